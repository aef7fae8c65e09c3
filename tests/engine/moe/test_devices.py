"""Rules in models whose layers lie on several devices: everything a layer's rule needs follows it.

The device "meta" has no numbers, but no operation mixes it with another; it stands for a second
device where there is none.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Self

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import OlmoeForCausalLM, PreTrainedTokenizerFast

from bh_studio.engine.calibration.recorder import calibration_text, make_recording
from bh_studio.engine.decoding.side import SideDecoder, Step
from bh_studio.engine.moe.expert_rows import ExpertRows
from bh_studio.engine.moe.experts import use_selected_experts
from bh_studio.engine.moe.fingerprint import model_fingerprint
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.moe.pass_counts import CountHistograms, ForwardPass, Phase
from bh_studio.engine.moe.routers import find_routers, router_weight
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.routing.layer_tensors import LayerTensors
from bh_studio.engine.routing.nulls import null_model
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.scores import Scorer
from bh_studio.engine.routing.selection import RoutingRule
from bh_studio.engine.rules.parameters import Mode, NullName, RouterShape, RuleParameters, ScoreName
from bh_studio.engine.rules.text import parse_rule
from tests.tiny_olmoe import EXPERTS, LAYERS, TOP_K, tiny_model, tiny_tokenizer

CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")
SHAPE = RouterShape(LAYERS, EXPERTS, TOP_K, norm_topk_prob=False)
RULES = [
    "bh:0.2,max_k=10", "bh:0.2,score=output,max_k=10", "bh:0.2,null=per-expert,max_k=10",
    "bh:0.2,null=pooled", "bh:0.2,null=gaussian", "bh:0.2,null=robust", "by:0.5", "storey:0.2",
    "hc:0.5", "hc:0.5,null=per-expert", "top-k:5", "top-p:0.7", "min-p:0.2", "cut:0.06",
    "entropy:0.75",
]  # fmt: skip
# Few scores in a tiny null: it says so at strict levels, which is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:The null holds")


@pytest.fixture(scope="module")
def recording(tokenizer: PreTrainedTokenizerFast) -> Recording:
    """The tiny model's own logits and the factors of its experts."""
    return recorded(tiny_model(), tokenizer)


def recorded(model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Recording:
    factors = [ScoreName.OUTPUT, ScoreName.SENSITIVITY]
    return make_recording(model, tokenizer, calibration_text()[:4000], factors=factors)


# What is copied, and when


def test_a_layers_tensor_is_copied_once_to_each_device() -> None:
    tensors = torch.arange(6.0).reshape(3, 2)
    placed = LayerTensors(tensors)
    assert placed.on(CPU, 1).data_ptr() == tensors[1].data_ptr()
    copies = [placed.on(ELSEWHERE, layer) for layer in range(3)]
    assert [copy.device for copy in copies] == [ELSEWHERE] * 3
    assert all(placed.on(ELSEWHERE, layer) is copies[layer] for layer in range(3))
    assert len({id(copy) for copy in copies}) == 3


def test_layers_that_share_their_memory_share_their_copies() -> None:
    placed = LayerTensors(torch.arange(2.0).expand(3, -1))
    assert len({id(placed.on(ELSEWHERE, layer)) for layer in range(3)}) == 1


def test_copies_serve_outside_inference_mode_too() -> None:
    placed = LayerTensors(torch.ones(1, 2))
    with torch.inference_mode():
        assert not placed.on(ELSEWHERE, 0).is_inference()


@pytest.mark.parametrize("text", RULES)
def test_what_a_layers_rule_needs_lies_where_its_logits_do(text: str, recording: Recording) -> None:
    rule = RoutingRule(parse_rule(text), recording, SHAPE)
    devices = [CPU, ELSEWHERE, CPU]
    for layer, device in enumerate(devices):
        logits = recording.logits[layer, :20]
        expected = rule.select(layer, logits)
        found = rule.select(layer, logits.to(device))
        for one, other in zip(found, expected, strict=True):
            assert one.device == device
            assert one.shape == other.shape
            assert one.is_meta or torch.equal(one, other)
        assert rule.counts(layer, logits.to(device))[0].device == device


@pytest.mark.parametrize("name", NullName)
def test_a_null_moves_to_a_device_once(
    name: NullName, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer(ScoreName.PROBABILITY)
    null = null_model(name, recording, scorer)
    scores = scorer(1, recording.logits[1, :20]).to(ELSEWHERE)
    assert null.p_values(1, scores).device == ELSEWHERE
    moved: list[Tensor] = []
    move = Tensor.to

    def watched(tensor: Tensor, *where: Any, **how: Any) -> Tensor:
        result: Tensor = move(tensor, *where, **how)
        if result.device != tensor.device:
            moved.append(tensor)
        return result

    monkeypatch.setattr(Tensor, "to", watched)
    assert null.p_values(1, scores).device == ELSEWHERE
    assert not moved


# Counts


class Far(Tensor):
    """Counts on a device of their own, which notes each transfer to the processor."""

    transfers = 0

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda:7")

    def to(self, *_where: Any, **_how: Any) -> Any:
        Far.transfers += 1
        return self.as_subclass(Tensor)


def far(*counts: int) -> Tensor:
    return torch.tensor(counts).as_subclass(Far)


def counted(*layers: Tensor | int) -> Tensor:
    counts = ForwardPass(len(layers))
    counts.begin((torch.zeros(1, 2),), {})
    counts.layers[:] = layers
    counts.end()
    assert counts.raw_counts is not None
    return counts.raw_counts


def test_counts_of_several_devices_are_gathered_in_one_transfer_each() -> None:
    Far.transfers = 0
    near = torch.tensor([3, 4])
    raw = counted(far(1, 2), near, far(5, 6), near + 4)
    assert raw.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert Far.transfers == 1
    # A single token: the processor's layers report plain numbers.
    assert counted(9, far(2), 7).tolist() == [[9], [2], [7]]
    assert counted(9, 8, 7).tolist() == [[9], [8], [7]]
    assert Far.transfers == 2


def test_statistics_go_on_after_the_model_has_moved() -> None:
    histograms = CountHistograms(2, 8)
    histograms.add(Phase.PREFILL, far(1, 2).expand(2, -1), far(1, 0))
    histograms.add(Phase.PREFILL, torch.tensor([[1, 2], [3, 4]]), None)
    assert histograms.summary(RuleParameters(), TOP_K)["per_layer_mean"] == [4 / 3, 8 / 3]


# The model


@pytest.mark.parametrize("part", ["gate.weight", "experts.down_proj"])
def test_offloaded_weights_of_any_part_are_refused(part: str) -> None:
    model = tiny_model()
    name = f"model.layers.1.mlp.{part}"
    path, _, attribute = name.rpartition(".")
    offloaded = torch.nn.Parameter(model.get_parameter(name).to("meta"))
    setattr(model.get_submodule(path), attribute, offloaded)
    with pytest.raises(RuntimeError, match="weights of this model are offloaded"):
        RoutingIntegration(model, RuleParameters(max_k=TOP_K))


def spread(first: torch.device, second: torch.device) -> OlmoeForCausalLM:
    """A tiny model by accelerate over two devices: its middle layer lies on `second`."""
    accelerate = pytest.importorskip("accelerate")
    model = tiny_model()
    use_selected_experts(model)
    places = {name: first for name, _ in model.named_children() if name != "model"}
    places |= {f"model.{n}": first for n, _ in model.model.named_children() if n != "layers"}
    places |= {f"model.layers.{n}": second if n == 1 else first for n in range(LAYERS)}
    return accelerate.dispatch_model(
        model,
        device_map=places,
        main_device="cpu",
        skip_keys=model._skip_keys_device_placement,
        force_hooks=True,
    )


class RecordedLogits:
    """Inside a `with` block, what the routers of a model return as logits, pass by pass."""

    def __init__(self, model: OlmoeForCausalLM) -> None:
        self._routers = find_routers(model)
        self.of_layer: list[list[Tensor]] = [[] for _ in self._routers]
        self._hooks: list[Any] = []

    def __enter__(self) -> Self:
        def keep(kept: list[Tensor], _module: Any, _inputs: Any, outputs: Any) -> None:
            kept.append(outputs[0].cpu())

        self._hooks = [
            router.register_forward_hook(functools.partial(keep, kept))
            for router, kept in zip(self._routers, self.of_layer, strict=True)
        ]
        return self

    def __exit__(self, *_error: object) -> None:
        for hook in self._hooks:
            hook.remove()


def decoded(model: OlmoeForCausalLM, rule: RoutingIntegration | None) -> list[Step]:
    prompt = tiny_tokenizer()("Once upon a time", return_tensors="pt").input_ids
    decoder = SideDecoder(
        model, prompt, GenerationParameters(12, sampling=False), frozenset(), SHAPE, rule
    )
    return [decoder.step() for _ in range(12)]


def token_ids(steps: list[Step]) -> list[int]:
    return [step.token_id for step in steps]


@torch.inference_mode()
def logits_of(model: OlmoeForCausalLM) -> Tensor:
    """Of a prompt in one pass and of one token after it."""
    prompt = torch.arange(40)[None].to(model.device)
    first = model(prompt, use_cache=True)
    second = model(prompt[:, :1], past_key_values=first.past_key_values)
    return torch.cat([first.logits, second.logits], dim=1)


def check_layers_on(first: torch.device, second: torch.device) -> None:
    """Compare, in a model whose layers lie on two devices, rules with what they promise."""
    model = spread(first, second)
    weights = [router_weight(router) for router in find_routers(model)]
    assert [weight.device for weight in weights] == [first, second, first]
    assert model_fingerprint(model) == model_fingerprint(tiny_model())
    recording = recorded(model, tiny_tokenizer())
    stock, answer = logits_of(model), token_ids(decoded(model, None))

    identity = RuleParameters(level=0.3, min_k=TOP_K, max_k=TOP_K)
    with RoutingIntegration(model, identity, recording=recording):
        assert torch.equal(logits_of(model), stock)
    assert (
        token_ids(decoded(model, RoutingIntegration(model, identity, recording=recording)))
        == answer
    )

    for text in RULES:
        parameters = parse_rule(text)
        analyze = dataclasses.replace(parameters, mode=Mode.ANALYZE)
        with RoutingIntegration(model, analyze, recording=recording):
            assert torch.equal(logits_of(model), stock), text
        check_counts(model, recording, parameters)
    # The hooks of accelerate are as they were, and the model answers as before.
    assert torch.equal(logits_of(model), stock)
    assert token_ids(decoded(model, None)) == answer


def check_counts(model: OlmoeForCausalLM, recording: Recording, parameters: RuleParameters) -> None:
    """Reported counts are those of the rule on the processor, and of the experts that ran."""
    integration = RoutingIntegration(model, parameters, recording=recording)
    with RecordedLogits(model) as routed, ExpertRows(model) as experts:
        steps = decoded(model, integration)
    found = np.concatenate([step.expert_counts for step in steps])
    rule = RoutingRule(parameters, recording, SHAPE)
    for layer, logits in enumerate(routed.of_layer):
        expected = rule.counts(layer, torch.cat(logits))[0]
        assert found[:, layer].tolist() == expected.tolist()
    assert experts.rows == found.sum(0).tolist()
    stats = integration.get_routing_stats()
    assert stats["mean_experts_per_token"] == pytest.approx(found.mean())
    assert stats["tokens"] == len(found)


def test_layers_behind_the_hooks_of_accelerate() -> None:
    check_layers_on(CPU, CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_layers_on_the_processor_and_a_gpu() -> None:
    check_layers_on(CPU, torch.device("cuda:0"))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_layers_on_two_gpus() -> None:
    check_layers_on(torch.device("cuda:0"), torch.device("cuda:1"))
