"""The kernels of a decode step against transformers' forward: interpreted where there is no GPU."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, OlmoeForCausalLM

from bh_studio.engine.moe.fingerprint import model_fingerprint
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.moe.routers import find_routers, router_shape
from bh_studio.engine.records.recording import RecordingOrigin
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.selection import RoutingRule, own_tables
from bh_studio.engine.rules.parameters import Mode, RouterShape, RuleParameters, ScoreName
from bh_studio.engine.rules.text import parse_rule
from tests.tiny_olmoe import tiny_model

pytest.importorskip("triton")

from bh_studio.engine.decoding import gpu_step
from bh_studio.engine.decoding.gpu_graph import GpuGraph
from bh_studio.engine.kernels import decoder_kernels
from tests.engine.interpreted_kernels import DEVICE, kernels_run

LAYERS, VOCABULARY, TOP_K = 2, 61, 4
ROOM = 100
# Few scores in a small null: it says so at strict levels, which is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:The null holds")


@pytest.fixture(scope="module", autouse=True)
def _kernels_run() -> Iterator[None]:
    with kernels_run(), torch.inference_mode():
        yield


def small_model(dtype: torch.dtype = torch.float32, **config: Any) -> OlmoeForCausalLM:
    """Fewer layers and tokens than the tiny one; every part of it matters to its logits."""
    model = tiny_model(
        num_hidden_layers=LAYERS, vocab_size=VOCABULARY, eos_token_id=VOCABULARY - 1, **config
    )
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.data.uniform_(0.5, 1.5)
        elif "self_attn" in name:
            weight.data.normal_(0, 0.3)
        elif "embed_tokens" in name:
            weight.data.normal_(0, 1)
    return model.to(DEVICE, dtype)


def read(model: OlmoeForCausalLM, length: int) -> tuple[DynamicCache, Tensor]:
    """The cache of a prompt of `length` tokens, and the token to read next, (1, 1)."""
    cache = DynamicCache(config=model.config)
    generator = torch.Generator().manual_seed(length)
    tokens = torch.randint(0, VOCABULARY, (1, length + 1), generator=generator).to(DEVICE)
    if length:
        model(tokens[:, :-1], past_key_values=cache, use_cache=True)
    return cache, tokens[:, -1:]


def stock_pass(model: OlmoeForCausalLM, token: Tensor, cache: DynamicCache) -> Tensor:
    """transformers' logits after one more token, (1, vocabulary)."""
    logits: Tensor = model(token, past_key_values=cache, use_cache=True).logits[:, -1]
    return logits


def started(model: OlmoeForCausalLM, cache: DynamicCache, token: Tensor) -> GpuGraph:
    """A graph that is about to read `token`, routed by the model's own top-k."""
    graph = GpuGraph(model, ROOM)
    graph.set_rule(own_tables(router_shape(find_routers(model))))
    if cache.get_seq_length():
        graph.set_prompt(cache, token)
    else:
        graph.token.copy_(token[0])
    return graph


# The model's own routing


@pytest.mark.parametrize(
    ("length", "config"),
    [
        pytest.param(5, {}, id="less-than-a-block-of-keys"),
        pytest.param(37, {"num_key_value_heads": 1, "clip_qkv": 0.7}, id="grouped-and-clipped"),
        pytest.param(
            70,
            {
                "hidden_size": 48,
                "num_attention_heads": 3,
                "num_key_value_heads": 3,
                "num_experts": 12,
                "intermediate_size": 20,
                "norm_topk_prob": True,
            },
            id="no-powers-of-two",
        ),
        pytest.param(0, {"tie_word_embeddings": True}, id="empty-cache-and-tied"),
    ],
)
def test_several_passes_equal_transformers(length: int, config: dict[str, Any]) -> None:
    model = small_model(**config)
    cache, token = read(model, length)
    graph = started(model, cache, token)
    for number in (1, 2):
        expected = stock_pass(model, token, cache)
        graph.queue()
        torch.testing.assert_close(graph.logits, expected, rtol=0, atol=1e-4)
        token = expected.argmax(-1, keepdim=True)
        # The graph's own token is what its next pass reads.
        assert graph.token.tolist() == token[0].tolist()
        assert graph.record.outcome.tolist() == [int(token), *[0] * LAYERS]
        assert graph.position.tolist() == [length + number]
    for layer, states in enumerate(cache.layers):
        for buffer, tensor in ((graph._keys, states.keys), (graph._values, states.values)):
            written = buffer[layer, :, : length + 2]
            torch.testing.assert_close(written, tensor[0], rtol=0, atol=1e-5)
            assert not buffer[layer, :, length + 2 :].any()


def test_a_prompt_starts_anew_whatever_was_read_before() -> None:
    model = small_model()
    cache, token = read(model, 20)
    graph = started(model, cache, token)
    graph.queue()
    first = graph.logits.clone()
    graph.set_prompt(*read(model, 60))
    graph.queue()
    # What programs leave to the last of them is as it was.
    assert graph._best.tolist() == [decoder_kernels.NO_TOKEN.value]
    assert not graph._arrived.any()
    graph.set_prompt(cache, token)
    graph.queue()
    assert torch.equal(graph.logits, first)


def test_a_prompt_that_does_not_fit_is_refused() -> None:
    model = small_model()
    graph = GpuGraph(model, 7)
    with pytest.raises(ValueError, match="8 tokens do not fit into 7"):
        graph.set_prompt(*read(model, 8))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_near_to_float32_as_transformers_is(dtype: torch.dtype) -> None:
    model = small_model(dtype)
    exact_model = copy.deepcopy(model).float()
    cache, token = read(model, 21)
    exact_cache, _ = read(exact_model, 21)
    graph = started(model, cache, token)
    errors = []
    for _ in range(2):
        exact = stock_pass(exact_model, token, exact_cache)
        stock = stock_pass(model, token, cache)
        graph.queue()
        errors.append([(one.float() - exact).square().mean() for one in (graph.logits, stock)])
        token = exact.argmax(-1, keepdim=True)
        graph.token.copy_(token[0])
    own, others = torch.tensor(errors).mean(0).sqrt().tolist()
    assert 0 < own < 3 * others


# Which token is the most probable


def greedy(values: Tensor) -> int:
    """The token that predict and finish take where these are the logits, (vocabulary,)."""
    size, dtype = 16, values.dtype
    rows = torch.zeros(len(values), size, dtype=dtype, device=DEVICE)
    rows[:, 0] = values
    ones = torch.ones(size, dtype=dtype, device=DEVICE)
    logits = torch.empty(1, len(values), dtype=dtype, device=DEVICE)
    best = torch.tensor([decoder_kernels.NO_TOKEN.value], device=DEVICE)
    token, position, outcome = (torch.zeros(2, dtype=torch.int64, device=DEVICE) for _ in range(3))
    decoder_kernels.predict[(3,)](
        ones, ones, rows, logits, best,
        EPSILON=0.0, SIZE=size, PADDED=size, VOCABULARY=len(values), BLOCK=4, DEPENDENT=False,
    )  # fmt: skip
    torch.testing.assert_close(logits[0].cpu(), values, rtol=1e-6, atol=0)
    decoder_kernels.finish[(1,)](
        best, token, position, torch.zeros(1, dtype=torch.int32, device=DEVICE), outcome,
        LAYERS=1, PADDED_LAYERS=1, DEPENDENT=False,
    )  # fmt: skip
    assert token[0] == outcome[0]
    return int(token[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("logits", "token"),
    [
        # 4 tokens a block, 3 programs: equal ones within a block, of other blocks, of one program.
        ([1.0, 3.0, 2.0, 3.0, 3.0, 0.0], 1),
        ([-1.0] * 7 + [5.0] + [0.0] * 5 + [5.0], 7),
        ([0.0, 0.0, 0.5] + [0.0] * 9 + [0.5, 0.25], 2),
        # All negative, where whole numbers would order floats the other way round.
        ([-3.0, -2.5, -0.125, -7.0, -0.125], 2),
        ([-2.0] * 30, 0),
        ([-1e30, -1e-30, -1.0, -1e-30], 1),
        ([0.0] * 12 + [1e-30], 12),
    ],
)
def test_the_first_of_the_largest_logits_is_taken(
    logits: list[float], token: int, dtype: torch.dtype
) -> None:
    assert greedy(torch.tensor(logits, dtype=dtype)) == token


# Rules


@pytest.fixture(scope="module")
def model() -> OlmoeForCausalLM:
    return small_model()


@pytest.fixture(scope="module")
def recording(model: OlmoeForCausalLM) -> Recording:
    """Logits about as spread as the model's own, and factors of its experts."""
    shape = router_shape(find_routers(model))
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(LAYERS, 200, shape.experts, generator=generator)
    factors = 1 + torch.rand(LAYERS, shape.experts, generator=generator)
    origin = RecordingOrigin(model_fingerprint(model), "", 200, 0, 200, TOP_K)
    return Recording(logits, origin, {ScoreName.OUTPUT: factors})


@pytest.mark.parametrize(
    "text",
    [
        "bh:0.2,max_k=10",
        # What makes raw counts, and what makes all of the selection, outside the kernels.
        "hc:0.5,weights=match",
        "bh:0.2,null=per-expert,max_k=10",
        "bh:0.2,score=output,mode=analyze",
    ],
)
def test_a_rule_routes_as_it_does_in_transformers(
    text: str, model: OlmoeForCausalLM, recording: Recording
) -> None:
    integration = RoutingIntegration(model, parse_rule(text), recording=recording)
    rule = integration.rule
    cache, token = read(model, 9)
    graph = gpu_step._graph(model, rule, ROOM)
    graph.set_rule(rule.tables() or own_tables(integration.shape))
    graph.set_prompt(cache, token)
    for _ in range(2):
        with integration:
            expected = stock_pass(model, token, cache)
        graph.queue()
        torch.testing.assert_close(graph.logits, expected, rtol=0, atol=1e-4)
        token = expected.argmax(-1, keepdim=True)
        raw = integration.last_counts()[1][0].tolist()
        assert graph.record.outcome.tolist() == [int(token), *raw]
        assert any(count not in (0, TOP_K) for count in raw)


def test_identity_and_analysis_change_no_bit(model: OlmoeForCausalLM, recording: Recording) -> None:
    shape: RouterShape = router_shape(find_routers(model))
    cache, token = read(model, 9)
    graph = GpuGraph(model, ROOM)

    def outcome(parameters: RuleParameters | None) -> tuple[Tensor, list[int]]:
        tables = own_tables(shape)
        if parameters is not None:
            tables = (
                RoutingIntegration(model, parameters, recording=recording).rule.tables() or tables
            )
        graph.set_rule(tables)
        graph.set_prompt(cache, token)
        graph.queue()
        return graph.logits.clone(), graph.record.outcome.tolist()

    own, (own_token, *_) = outcome(None)
    rule = parse_rule("bh:0.2,max_k=10")
    patched, (_, *raw) = outcome(rule)
    assert not torch.equal(patched, own)

    identity = dataclasses.replace(rule, min_k=TOP_K, max_k=TOP_K)
    logits, (found, *identity_raw) = outcome(identity)
    assert torch.equal(logits, own)
    assert found == own_token

    analyze = dataclasses.replace(rule, mode=Mode.ANALYZE)
    logits, (found, *analyze_raw) = outcome(analyze)
    assert torch.equal(logits, own)
    assert found == own_token
    assert analyze_raw == identity_raw
    # No rule has changed what the first layer's router sees.
    assert analyze_raw[0] == raw[0] > 0


def test_a_step_that_cannot_be_made_says_only_why(model: OlmoeForCausalLM) -> None:
    class Failing:
        @property
        def rule(self) -> RoutingRule:
            raise ValueError("no rule")

    integration: Any = Failing()
    with pytest.raises(ValueError, match="no rule"):
        gpu_step.GpuStep(model, router_shape(find_routers(model)), integration, None)
