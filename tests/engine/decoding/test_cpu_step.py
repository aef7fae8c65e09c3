"""Our own forward of one token on the CPU against transformers' own: same tokens, same numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, OlmoeForCausalLM, PreTrainedTokenizerFast

from bh_studio.engine.calibration.recorder import calibration_text, make_recording
from bh_studio.engine.decoding import key_value_buffer
from bh_studio.engine.decoding.cpu_step import CpuStep
from bh_studio.engine.decoding.paths import CPU, decode_path
from bh_studio.engine.decoding.side import SideDecoder
from bh_studio.engine.decoding.step import Choose, DecodeStep
from bh_studio.engine.decoding.stock_step import StockStep
from bh_studio.engine.moe.experts import use_selected_experts
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.records.terms import FinishReason, GenerationParameters
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.rules.parameters import Mode, RouterShape, RuleParameters
from bh_studio.engine.rules.text import parse_rule
from tests.tiny_olmoe import CONTEXT, EXPERTS, LAYERS, TOP_K, tiny_model

SHAPE = RouterShape(LAYERS, EXPERTS, TOP_K, norm_topk_prob=False)
PROMPT = torch.tensor([[79, 110, 99, 101, 32, 117, 112, 111, 110]])
Open = Callable[[OlmoeForCausalLM, RoutingIntegration | None, Choose], DecodeStep]
# Few scores in a tiny null: it says so at strict levels, which is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:The null holds")

VARIANTS: dict[str, dict[str, object]] = {
    "plain": {},
    "fewer heads of keys": {"num_attention_heads": 4, "num_key_value_heads": 2},
    "clipped": {"clip_qkv": 0.2},
    "weights add up to 1": {"norm_topk_prob": True},
    "tied embeddings": {"tie_word_embeddings": True},
    "eager attention": {"attn_implementation": "eager"},
    "frequencies that change": {
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
        "max_position_embeddings": 16,
    },
    "scaled frequencies": {
        "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    },
}


def selected(**settings: object) -> OlmoeForCausalLM:
    model = tiny_model(**settings)  # type: ignore[arg-type]
    use_selected_experts(model)
    return model


def own(
    model: OlmoeForCausalLM, integration: RoutingIntegration | None, choose: Choose
) -> DecodeStep:
    assert decode_path(model).name == CPU, decode_path(model)
    return CpuStep(model, integration, choose)


def forced(
    open_step: Open,
    model: OlmoeForCausalLM,
    text: Tensor,
    integration: RoutingIntegration | None = None,
) -> Tensor:
    """Logits after each token of `text`, (token, vocabulary), read one by one after PROMPT."""
    found: list[Tensor] = []

    def choose(logits: Tensor) -> Tensor:
        found.append(logits[0].clone())
        return text[:, len(found) % text.shape[1], None]

    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(PROMPT, past_key_values=cache, use_cache=True)
    step = open_step(model, integration, choose)
    step.start(cache, text[:, :1], text.shape[1])
    for _ in range(text.shape[1]):
        step.submit().wait()
    step.close()
    return torch.stack(found)


def text_of(length: int = 40) -> Tensor:
    return torch.randint(0, 256, (1, length), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_are_those_of_the_models_own_forward(name: str) -> None:
    model, text = selected(**VARIANTS[name]), text_of()
    expected = forced(StockStep, model, text)
    torch.testing.assert_close(forced(own, model, text), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rule", ["bh:0.1", "bh:0.1,mode=analyze", "top-p:0.5,max_k=10"])
@pytest.mark.parametrize("normalize", [False, True])
def test_logits_under_a_rule_are_those_of_the_patched_forward(
    rule: str, normalize: bool, tokenizer: PreTrainedTokenizerFast
) -> None:
    model, text = selected(norm_topk_prob=normalize), text_of()
    recording = make_recording(model, tokenizer, calibration_text()[:2000])
    own_side = RoutingIntegration(model, parse_rule(rule), recording=recording)
    stock_side = RoutingIntegration(model, parse_rule(rule), recording=recording)
    expected = forced(StockStep, model, text, stock_side)
    found = forced(own, model, text, own_side)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert own_side.get_routing_stats() == stock_side.get_routing_stats()
    assert own_side.get_routing_stats()["total_forward_passes"] == text.shape[1]
    for one, other in zip(own_side.last_counts(), stock_side.last_counts(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_as_near_to_the_truth_as_the_models_own_forward(
    dtype: torch.dtype,
) -> None:
    model, text = selected(dtype=dtype), text_of(80)
    exact = tiny_model().to(dtype).double()
    exact.set_experts_implementation("eager")
    expected = forced(StockStep, exact, text)

    def error(open_step: Open) -> float:
        return float((forced(open_step, model, text).double() - expected).abs().mean())

    assert error(own) < 1.2 * error(StockStep)


def test_a_rule_that_takes_what_the_model_takes_changes_no_bit(recording: Recording) -> None:
    model, text = selected(), text_of()
    baseline = forced(own, model, text)
    for parameters in (
        RuleParameters(min_k=TOP_K, max_k=TOP_K),
        RuleParameters(level=0.1, max_k=TOP_K, mode=Mode.ANALYZE),
    ):
        integration = RoutingIntegration(model, parameters, recording=recording)
        assert torch.equal(forced(own, model, text, integration), baseline)
    different = RoutingIntegration(
        model, RuleParameters(level=0.1, max_k=TOP_K), recording=recording
    )
    assert not torch.equal(forced(own, model, text, different), baseline)


def test_another_rule_in_force_acts_on_the_baseline(recording: Recording) -> None:
    model, text = selected(), text_of(8)
    parameters = RuleParameters(level=0.1, max_k=TOP_K)
    expected = forced(own, model, text, RoutingIntegration(model, parameters, recording=recording))

    def inside(model: OlmoeForCausalLM, _: RoutingIntegration | None, choose: Choose) -> DecodeStep:
        step = own(model, None, choose)
        other.patch_model()
        return step

    other = RoutingIntegration(model, parameters, recording=recording)
    found = forced(inside, model, text)
    other.unpatch_model()
    assert torch.equal(found, expected)


def test_room_is_made_when_the_first_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model = selected()
    expected = model.generate(PROMPT, do_sample=False, max_new_tokens=100, eos_token_id=None)
    monkeypatch.setattr(key_value_buffer, "_FIRST_ROOM", 3)
    decoder = side(model, 100)
    found = [decoder.step().token_id for _ in range(100)]
    assert found == expected[0, PROMPT.shape[1] :].tolist()


def test_the_context_can_be_filled_to_the_last_position() -> None:
    decoder = side(selected(), 1000)
    steps = [decoder.step() for _ in range(CONTEXT - PROMPT.shape[1])]
    assert [step.finish_reason for step in steps[-2:]] == [None, FinishReason.CONTEXT_LENGTH]


def test_an_error_in_the_middle_of_a_step_leaves_nothing_behind(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = selected()
    integration = RoutingIntegration(
        model, RuleParameters(level=0.1, max_k=TOP_K), recording=recording
    )
    expected = five_tokens(model, integration)
    decoder = side(model, 5, integration)
    decoder.step()
    before = integration.get_routing_stats()
    with monkeypatch.context() as patch:
        patch.setattr(model.model.layers[1].mlp.experts.act_fn, "forward", failing)
        with pytest.raises(RuntimeError, match="a failing layer"):
            decoder.step()
    with pytest.raises(RuntimeError, match="ended"):
        decoder.step()
    assert not integration.is_patched
    assert "forward" not in vars(model.model.layers[0].mlp.gate)
    assert integration.get_routing_stats() == before
    assert five_tokens(model, integration) == expected


def test_a_closed_step_reads_nothing() -> None:
    step = CpuStep(selected(), None, None)
    with pytest.raises(RuntimeError, match="not started"):
        step.submit()


def side(
    model: OlmoeForCausalLM, tokens: int, integration: RoutingIntegration | None = None
) -> SideDecoder:
    parameters = GenerationParameters(tokens, sampling=False)
    return SideDecoder(model, PROMPT, parameters, frozenset(), SHAPE, integration)


def five_tokens(model: OlmoeForCausalLM, integration: RoutingIntegration) -> list[int]:
    decoder = side(model, 5, integration)
    return [decoder.step().token_id for _ in range(5)]


def failing(_: Tensor) -> Tensor:
    raise RuntimeError("a failing layer")
