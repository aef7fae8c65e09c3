"""Decoding on a CUDA GPU: the same tokens, counts and statistics as transformers' own forward."""

from __future__ import annotations

import dataclasses
import gc
import importlib.util
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, OlmoeForCausalLM, PreTrainedTokenizerFast

from bh_studio.engine.calibration.recorder import calibration_text, make_recording
from bh_studio.engine.decoding import gpu_step, paths, stock_graph_step
from bh_studio.engine.decoding.paths import GPU, GRAPH, STOCK, DecodePath, decode_path
from bh_studio.engine.decoding.side import SideDecoder, Step
from bh_studio.engine.moe import experts_cuda
from bh_studio.engine.moe.experts import use_selected_experts
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.moe.routers import find_routers, router_shape
from bh_studio.engine.records.terms import FinishReason, GenerationParameters
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.selection import RoutingRule
from bh_studio.engine.rules.parameters import MixingWeights, Mode, RouterShape, RuleParameters
from bh_studio.engine.rules.text import parse_rule
from tests.engine.moe.test_devices import RULES, check_counts, logits_of, recorded
from tests.tiny_olmoe import EXPERTS, LAYERS, TOP_K, tiny_model

CUDA = torch.device("cuda")
SHAPE = RouterShape(LAYERS, EXPERTS, TOP_K, norm_topk_prob=False)
END_OF_TEXT = frozenset([256])
TOKENS, PROMPTS = 24, 20
BH = parse_rule("bh:0.2,max_k=10")
IDENTITY = dataclasses.replace(BH, min_k=TOP_K, max_k=TOP_K)
ANALYZE = dataclasses.replace(BH, mode=Mode.ANALYZE)
# Rules that differ in numbers only, which a captured graph reads anew for every token.
SAME_GRAPH = [
    "bh:0.2,max_k=10", "bh:0.02,max_k=3", "bh:0.01/0.2/0.6,max_k=16,min_k=2", "by:0.5",
    "storey:0.2", "bh:0.2,null=pooled,temperature=2", "bh:0.2,score=logit,weights=renormalize",
    "bh:0.2,null=all,weights=match,on_empty=top_k", "bh:0.2,max_k=10,mode=analyze",
]  # fmt: skip
# Rules whose operations are captured with their numbers.
OWN_GRAPH = [
    "hc:0.5", "hc:0.5,null=per-expert", "top-k:5", "top-p:0.7", "min-p:0.2", "cut:0.06",
    "entropy:0.75", "bh:0.2,null=per-expert,max_k=10", "bh:0.2,null=gaussian", "bh:0.2,null=robust",
    "bh:0.2,score=output,max_k=10", "bh:0.2,score=sensitivity,weights=match",
    "bh:0.2,score=output,mode=analyze",
]  # fmt: skip
DTYPES = [torch.float32, torch.bfloat16]
# Few scores in a tiny null: it says so at strict levels, which is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:The null holds")
if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")


@pytest.fixture(scope="module")
def recording(tokenizer: PreTrainedTokenizerFast) -> Recording:
    """The tiny model's own logits and the factors of its experts; it is the same everywhere."""
    return recorded(tiny_model(), tokenizer)


@pytest.fixture(scope="module")
def half_record(tokenizer: PreTrainedTokenizerFast) -> Recording:
    return make_recording(tiny_model(dtype=torch.bfloat16), tokenizer, calibration_text()[:4000])


@pytest.fixture
def model() -> OlmoeForCausalLM:
    return gpu_model()


def gpu_model(dtype: torch.dtype = torch.float32, **config: Any) -> OlmoeForCausalLM:
    model = tiny_model(dtype=dtype, **config).to(CUDA)
    use_selected_experts(model)
    return model


def prompt_of(length: int) -> Tensor:
    """Bytes at random, (1, length): no text that a null was fitted on."""
    return torch.randint(0, 256, (1, length), generator=torch.Generator().manual_seed(length))


def decoder_of(
    model: OlmoeForCausalLM,
    integration: RoutingIntegration | None = None,
    prompt: Tensor | None = None,
    tokens: int = TOKENS,
    end: frozenset[int] = frozenset(),
) -> SideDecoder:
    """A greedy side."""
    parameters = GenerationParameters(tokens, sampling=False)
    own_prompt = prompt_of(17) if prompt is None else prompt
    shape = router_shape(find_routers(model))
    return SideDecoder(model, own_prompt, parameters, end, shape, integration)


def run(decoder: SideDecoder) -> list[Step]:
    steps = [decoder.step()]
    while steps[-1].finish_reason is None:
        steps.append(decoder.step())
    return steps


def token_ids(steps: list[Step]) -> list[int]:
    return [step.token_id for step in steps]


def raw_counts(steps: list[Step]) -> list[list[int]]:
    rows: list[list[int]] = np.concatenate([step.raw_counts for step in steps]).tolist()
    return rows


def graph_of(decoder: SideDecoder) -> Any:
    """The captured graph that serves a side which has begun."""
    step: Any = decoder._step
    assert isinstance(step, gpu_step.GpuStep)
    return step._graph


def free_graphs(model: OlmoeForCausalLM) -> list[Any]:
    return list(gpu_step._FREE_GRAPHS.get(model, []))


@contextmanager
def stock_decoding() -> Iterator[None]:
    """In this block sides decode by transformers' own forward."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "decode_path", lambda _model: DecodePath(STOCK, "asked for"))
        yield


def check_against_stock(
    model: OlmoeForCausalLM, recording: Recording, parameters: RuleParameters
) -> None:
    """Tokens, counts and statistics of the rule are those of transformers' own forward."""
    found = RoutingIntegration(model, parameters, recording=recording)
    steps = run(decoder_of(model, found))
    expected = RoutingIntegration(model, parameters, recording=recording)
    with stock_decoding():
        expected_steps = run(decoder_of(model, expected))
    assert token_ids(steps) == token_ids(expected_steps)
    assert raw_counts(steps) == raw_counts(expected_steps)
    for one, other in zip(steps, expected_steps, strict=True):
        assert one.expert_counts.tolist() == other.expert_counts.tolist()
        assert one.finish_reason == other.finish_reason
        assert one.seconds > 0
    assert found.get_routing_stats() == expected.get_routing_stats()


# Tokens


@needs_triton
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float16])
def test_the_models_decode_by_kernels(dtype: torch.dtype) -> None:
    model = gpu_model(dtype)
    assert decode_path(model) == DecodePath(GPU)
    decoder = decoder_of(model)
    decoder.step()
    assert graph_of(decoder).logits.dtype == dtype


def test_greedy_equals_generate(model: OlmoeForCausalLM) -> None:
    for number in range(PROMPTS):
        prompt = prompt_of(1 + 5 * number)
        expected = model.generate(prompt.to(CUDA), do_sample=False, max_new_tokens=TOKENS)
        steps = run(decoder_of(model, prompt=prompt, end=END_OF_TEXT))
        assert token_ids(steps) == expected[0, prompt.shape[1] :].tolist()


@pytest.mark.parametrize(
    "config",
    [
        {"num_key_value_heads": 1, "clip_qkv": 0.5},
        {"norm_topk_prob": True, "num_experts": 12, "intermediate_size": 24},
        {"hidden_size": 48, "num_attention_heads": 3, "num_key_value_heads": 3},
        {"tie_word_embeddings": True},
    ],
    ids=["grouped-and-clipped", "normalized", "three-heads", "tied"],
)
def test_other_layouts_equal_generate(config: dict[str, Any]) -> None:
    model = gpu_model(**config)
    prompt = prompt_of(30)
    expected = model.generate(prompt.to(CUDA), do_sample=False, max_new_tokens=TOKENS)
    steps = run(decoder_of(model, prompt=prompt, end=END_OF_TEXT))
    assert token_ids(steps) == expected[0, 30:].tolist()


@pytest.mark.parametrize("top_p", [0.8, 1.0])
@pytest.mark.parametrize("seed", [0, 12345])
def test_sampling_equals_generate(seed: int, top_p: float, model: OlmoeForCausalLM) -> None:
    prompt = prompt_of(17)
    torch.manual_seed(seed)
    expected = model.generate(
        prompt.to(CUDA),
        do_sample=True,
        temperature=0.7,
        top_p=top_p,
        top_k=0,
        max_new_tokens=TOKENS,
    )
    parameters = GenerationParameters(
        TOKENS, sampling=True, temperature=0.7, top_p=top_p, seed=seed
    )
    for _ in range(2):
        steps = run(SideDecoder(model, prompt, parameters, END_OF_TEXT, SHAPE))
        assert token_ids(steps) == expected[0, 17:].tolist()


def test_a_long_text_equals_generate() -> None:
    model = gpu_model(max_position_embeddings=4096)
    prompt = prompt_of(1500)
    expected = model.generate(prompt.to(CUDA), do_sample=False, max_new_tokens=TOKENS)
    steps = run(decoder_of(model, prompt=prompt, end=END_OF_TEXT))
    assert token_ids(steps) == expected[0, 1500:].tolist()


def test_the_context_may_be_filled(model: OlmoeForCausalLM) -> None:
    prompt = prompt_of(125)
    steps = run(decoder_of(model, prompt=prompt, tokens=100))
    assert len(steps) == 3
    assert steps[-1].finish_reason is FinishReason.CONTEXT_LENGTH
    with stock_decoding():
        assert token_ids(run(decoder_of(model, prompt=prompt, tokens=100))) == token_ids(steps)


# Rules


def logits_by_kernels(
    model: OlmoeForCausalLM, integration: RoutingIntegration | None
) -> tuple[list[Step], list[Tensor]]:
    """Steps, and what the graph held after each that was its work."""
    decoder = decoder_of(model, integration)
    steps, logits = [decoder.step()], []
    while steps[-1].finish_reason is None:
        steps.append(decoder.step())
        if steps[-1].finish_reason is None:
            logits.append(graph_of(decoder).logits.clone())
    return steps, logits


@needs_triton
@pytest.mark.parametrize("parameters", [IDENTITY, ANALYZE], ids=["identity", "analyze"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_leaves_the_routing_alone_changes_no_bit(
    dtype: torch.dtype, parameters: RuleParameters, recording: Recording, half_record: Recording
) -> None:
    model = gpu_model(dtype)
    null = recording if dtype == torch.float32 else half_record
    own, own_logits = logits_by_kernels(model, None)
    integration = RoutingIntegration(model, parameters, recording=null)
    steps, logits = logits_by_kernels(model, integration)
    assert token_ids(steps) == token_ids(own)
    assert len(logits) == len(own_logits) == TOKENS - 2
    assert all(torch.equal(*pair) for pair in zip(logits, own_logits, strict=True))
    assert all((step.raw_counts == TOP_K).all() for step in own)
    # The rule has counted all the same.
    assert len({tuple(row) for row in raw_counts(steps)}) > 3


@pytest.mark.parametrize("text", [*SAME_GRAPH, *OWN_GRAPH])
def test_rules_decode_as_in_transformers(
    text: str, model: OlmoeForCausalLM, recording: Recording
) -> None:
    check_against_stock(model, recording, parse_rule(text))


@pytest.mark.parametrize("text", RULES)
def test_counts_are_those_of_the_rule_on_the_processor(
    text: str, model: OlmoeForCausalLM, recording: Recording
) -> None:
    # Its hooks in routers and experts make the model decode by transformers' forward.
    check_counts(model, recording, parse_rule(text))


def test_two_sides_take_turns(model: OlmoeForCausalLM, recording: Recording) -> None:
    alone = run(decoder_of(model))
    bh_alone = run(decoder_of(model, RoutingIntegration(model, BH, recording=recording)))
    assert token_ids(alone) != token_ids(bh_alone)
    left = decoder_of(model)
    integration = RoutingIntegration(model, BH, recording=recording)
    right = decoder_of(model, integration)
    pairs = [(left.step(), right.step()) for _ in range(TOKENS)]
    assert token_ids([pair[0] for pair in pairs]) == token_ids(alone)
    assert token_ids([pair[1] for pair in pairs]) == token_ids(bh_alone)
    assert raw_counts([pair[1] for pair in pairs]) == raw_counts(bh_alone)
    assert integration.get_routing_stats()["tokens"] == 17 + TOKENS - 1


def test_a_token_after_the_end_of_text_is_not_counted(
    model: OlmoeForCausalLM, recording: Recording
) -> None:
    free = token_ids(run(decoder_of(model, RoutingIntegration(model, BH, recording=recording))))
    end = next(n for n in range(2, TOKENS - 2) if free[n] not in free[:n])
    integration = RoutingIntegration(model, BH, recording=recording)
    steps = run(decoder_of(model, integration, end=frozenset([free[end]])))
    assert token_ids(steps) == free[: end + 1]
    assert steps[-1].finish_reason is FinishReason.END_OF_TEXT
    stats = integration.get_routing_stats()
    assert stats["tokens"] == 17 + end
    assert stats["total_forward_passes"] == 1 + end
    assert stats["decode"]["tokens"] == end


# Graphs


@needs_triton
def test_numbers_of_a_rule_change_without_a_new_graph(
    model: OlmoeForCausalLM, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bh_studio.engine.decoding.gpu_graph import GpuGraph

    captured: list[GpuGraph] = []
    capture = GpuGraph._captured

    def noted(graph: GpuGraph) -> Any:
        captured.append(graph)
        return capture(graph)

    monkeypatch.setattr(GpuGraph, "_captured", noted)
    run(decoder_of(model))
    for text in SAME_GRAPH:
        decoder = decoder_of(
            model, RoutingIntegration(model, parse_rule(text), recording=recording)
        )
        decoder.step()
        assert graph_of(decoder) is captured[0]
        run(decoder)
    assert len(captured) == 1
    # Another kind of rule captures its own, which serves nobody else.
    run(decoder_of(model, RoutingIntegration(model, parse_rule("hc:0.5"), recording=recording)))
    assert len(captured) == 2
    assert free_graphs(model) == captured[:1]


@needs_triton
def test_a_longer_text_gets_a_larger_graph() -> None:
    model = gpu_model(max_position_embeddings=4096)
    decoder = decoder_of(model)
    first = run(decoder)
    assert [graph.capacity for graph in free_graphs(model)] == [1024]
    small = weakref.ref(free_graphs(model)[0])
    run(decoder_of(model, prompt=prompt_of(1100)))
    (large,) = free_graphs(model)
    assert large.capacity == 2048
    gc.collect()
    assert small() is None
    # A larger one serves a shorter text.
    decoder = decoder_of(model)
    decoder.step()
    assert graph_of(decoder) is large
    assert token_ids(run(decoder)) == token_ids(first)[1:]


@needs_triton
def test_a_side_that_ends_gives_its_graph_back_once(model: OlmoeForCausalLM) -> None:
    whole = token_ids(run(decoder_of(model)))
    (graph,) = free_graphs(model)

    decoder = decoder_of(model)
    assert token_ids([decoder.step() for _ in range(3)]) == whole[:3]
    assert free_graphs(model) == []
    # A token is being computed at this moment.
    decoder.close()
    decoder.close()
    assert free_graphs(model) == [graph]
    with pytest.raises(RuntimeError, match="This side has ended"):
        decoder.step()
    assert token_ids(run(decoder_of(model))) == whole

    abandoned = decoder_of(model)
    abandoned.step()
    assert free_graphs(model) == []
    del abandoned
    gc.collect()
    assert free_graphs(model) == [graph]
    assert token_ids(run(decoder_of(model))) == whole


@needs_triton
def test_an_error_gives_the_graph_back(
    model: OlmoeForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = decoder_of(model)
    decoder.step()
    graph = graph_of(decoder)

    def fail() -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(graph, "replay", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        decoder.step()
    assert free_graphs(model) == [graph]


@needs_triton
def test_a_model_that_goes_takes_its_graphs_along() -> None:
    model: OlmoeForCausalLM | None = gpu_model()
    assert model is not None
    run(decoder_of(model))
    graph = free_graphs(model)[0]
    references = [weakref.ref(kept) for kept in (model, graph, graph._keys)]
    model = graph = None
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


# Steps


def started(model: OlmoeForCausalLM, room: int) -> tuple[Any, int]:
    """A step about to read the first token after a prompt, and that token."""
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        prompt = prompt_of(17).to(CUDA)
        token = model(prompt, past_key_values=cache, use_cache=True).logits[:, -1].argmax(-1)
    step = gpu_step.GpuStep(model, SHAPE, None, None)
    step.start(cache, token[None], room)
    return step, int(token)


@needs_triton
def test_two_tokens_may_be_under_way(model: OlmoeForCausalLM) -> None:
    whole = token_ids(run(decoder_of(model)))
    step, first = started(model, TOKENS)
    pending = [step.submit()]
    found = [first]
    for _ in range(TOKENS - 1):
        pending.append(step.submit())
        token = pending.pop(0).wait()
        assert token.raw_counts is None
        assert token.seconds > 0
        found.append(token.token_id)
    assert found == whole
    step.close()
    with pytest.raises(RuntimeError, match="was not started, or was closed"):
        step.submit()


@contextmanager
def no_waiting() -> Iterator[None]:
    """In this block an operation that waits for the device is an error."""
    torch.cuda.synchronize()
    with warnings.catch_warnings():
        # That this does not notice every operation that waits.
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_triton
def test_a_token_is_submitted_without_waiting(model: OlmoeForCausalLM) -> None:
    step, _ = started(model, 3)
    step.submit().wait()
    with no_waiting():
        pending = [step.submit(), step.submit()]
    whole = token_ids(run(decoder_of(model)))
    assert [token.wait().token_id for token in pending] == whole[2:4]


@needs_triton
def test_a_graph_is_not_used_for_weights_that_were_moved(model: OlmoeForCausalLM) -> None:
    before = token_ids(run(decoder_of(model)))
    (former,) = free_graphs(model)
    model.lm_head.weight.data = model.lm_head.weight.data.clone()
    assert token_ids(run(decoder_of(model))) == before
    (present,) = free_graphs(model)
    assert present is not former


# Which models


@needs_triton
@pytest.mark.parametrize(
    ("config", "reason", "name"),
    [
        ({"hidden_act": "gelu"}, "the experts' activation is gelu", STOCK),
        ({"num_attention_heads": 4, "num_key_value_heads": 4}, "heads are 8 wide", GRAPH),
        ({"hidden_size": 48}, "heads are 24 wide", GRAPH),
        (
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}},
            "the rotary embedding changes with the length of the text",
            STOCK,
        ),
        (
            {"intermediate_size": 4104, "num_experts": 4, "num_hidden_layers": 1},
            "rows of the weights are longer than 4096",
            STOCK,
        ),
    ],
    ids=["activation", "narrow-heads", "odd-heads", "rotation", "long-rows"],
)
def test_shapes_that_the_kernels_do_not_take(
    config: dict[str, Any], reason: str, name: str
) -> None:
    model = gpu_model(**config)
    assert gpu_step.problem(model) == reason
    assert decode_path(model).name == name
    assert decode_path(model).reason == (
        reason if name == GRAPH else stock_graph_step.problem(model)
    )
    expected = model.generate(prompt_of(17).to(CUDA), do_sample=False, max_new_tokens=4)
    steps = run(decoder_of(model, tokens=4, end=END_OF_TEXT))
    assert token_ids(steps) == expected[0, 17:].tolist()


@needs_triton
def test_what_was_done_to_a_model_keeps_it_in_transformers(model: OlmoeForCausalLM) -> None:
    def path() -> DecodePath:
        found = decode_path(model)
        assert bool(found.reason) == bool(gpu_step.problem(model))
        return found

    hook = model.model.layers[1].mlp.register_forward_hook(lambda *_: None)
    assert path().name == STOCK
    assert "hook" in path().reason
    hook.remove()
    assert path() == DecodePath(GPU)

    model.set_experts_implementation("eager")
    assert path() == DecodePath(STOCK, "the experts are computed by eager")
    use_selected_experts(model)

    model.model.norm.to(torch.bfloat16)
    assert path().name == GRAPH
    assert "several dtypes" in path().reason
    model.model.norm.to(torch.float32)

    model.train()
    assert path().name == STOCK
    model.eval()
    assert path() == DecodePath(GPU)


@pytest.fixture
def no_triton(monkeypatch: pytest.MonkeyPatch) -> str:
    """Triton is missing; what is said of it."""
    problem = "Triton is not installed"
    for module in ("decoding.gpu_step", "moe.experts_cuda", "routing.selection"):
        monkeypatch.setattr(f"bh_studio.engine.{module}.triton_problem", lambda _device: problem)
    return problem


def test_without_triton_tokens_are_the_same(
    model: OlmoeForCausalLM, recording: Recording, request: pytest.FixtureRequest
) -> None:
    expected = run(decoder_of(model, RoutingIntegration(model, BH, recording=recording)))
    request.getfixturevalue("no_triton")
    assert decode_path(model).name == STOCK
    assert "wait for the host" in decode_path(model).reason
    steps = run(decoder_of(model, RoutingIntegration(model, BH, recording=recording)))
    assert token_ids(steps) == token_ids(expected)
    assert raw_counts(steps) == raw_counts(expected)


needs_grouped = pytest.mark.skipif(
    torch.cuda.get_device_capability() < (9, 0),
    reason="needs a GPU that makes grouped products by itself",
)


@needs_triton
@pytest.mark.parametrize("text", RULES)
def test_the_captured_forward_decodes_as_the_forward(
    text: str, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = gpu_model(num_attention_heads=4, num_key_value_heads=4)
    recording = recorded(model, tokenizer)
    assert decode_path(model).name == GRAPH
    rule = parse_rule(text)

    def answers() -> tuple[list[int], list[Any], dict[str, Any]]:
        integration = RoutingIntegration(model, rule, recording=recording)
        steps = run(decoder_of(model, integration))
        return token_ids(steps), raw_counts(steps), integration.get_routing_stats()

    captured = answers()
    monkeypatch.setattr(paths, "decode_path", lambda _model: DecodePath(STOCK))
    assert captured == answers()


@needs_grouped
def test_sides_of_the_captured_forward_take_turns(half_record: Recording, no_triton: str) -> None:
    model = gpu_model(torch.bfloat16)

    def decoders() -> list[SideDecoder]:
        integration = RoutingIntegration(model, BH, recording=half_record)
        return [decoder_of(model), decoder_of(model, integration)]

    assert decode_path(model).name == GRAPH
    alone = [token_ids(run(decoder)) for decoder in decoders()]
    together: list[list[int]] = [[], []]
    sides = decoders()
    for _ in range(len(alone[0])):
        for found, decoder in zip(together, sides, strict=True):
            found.append(decoder.step().token_id)
    assert together == alone
    identity = RoutingIntegration(model, IDENTITY, recording=half_record)
    assert token_ids(run(decoder_of(model, identity))) == alone[0]
    # The routers are the model's own again.
    assert not any("forward" in vars(router) for router in find_routers(model))


# The model's own forward: a prompt in one pass, and everything but decoding


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_forward_of_transformers_keeps_its_bits(
    dtype: torch.dtype, recording: Recording, half_record: Recording
) -> None:
    model = gpu_model(dtype)
    null = recording if dtype == torch.float32 else half_record
    stock = logits_of(model)
    for parameters in (
        IDENTITY,
        ANALYZE,
        dataclasses.replace(IDENTITY, weights=MixingWeights.MATCH),
    ):
        integration = RoutingIntegration(model, parameters, recording=null)
        with integration:
            assert torch.equal(logits_of(model), stock)
        assert integration.get_routing_stats()["tokens"] == 41
    with RoutingIntegration(model, BH, recording=null):
        assert not torch.equal(logits_of(model), stock)
    assert torch.equal(logits_of(model), stock)


@pytest.mark.parametrize("text", [*SAME_GRAPH, *OWN_GRAPH])
def test_a_rule_selects_on_the_gpu_as_on_the_processor(text: str, recording: Recording) -> None:
    parameters = dataclasses.replace(parse_rule(text), mode=Mode.PATCH)
    rule = RoutingRule(parameters, recording, SHAPE)
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(60, EXPERTS, generator=generator)
    logits *= torch.linspace(0.2, 3, 60)[:, None]
    for layer in range(LAYERS):
        found, expected = rule.select(layer, logits.to(CUDA)), rule.select(layer, logits)
        assert found.weights.device.type == CUDA.type
        for name in ("indices", "counts", "raw_counts"):
            assert torch.equal(getattr(found, name).cpu(), getattr(expected, name)), name
        torch.testing.assert_close(found.weights.cpu(), expected.weights, rtol=1e-5, atol=0)


@needs_triton
@pytest.mark.parametrize("rows", [1, 4])
def test_a_few_rows_of_experts_do_not_wait(rows: int, model: OlmoeForCausalLM) -> None:
    experts = model.model.layers[0].mlp.experts
    hidden = torch.ones(rows, 32, device=CUDA)
    indices = torch.arange(TOP_K, device=CUDA).repeat(rows, 1)
    weights = torch.full((rows, TOP_K), 0.25, device=CUDA)
    weights[:, 1] = 0
    with torch.inference_mode():
        expected = experts_cuda.forward(experts, hidden, indices, weights)
        with no_waiting():
            found = experts_cuda.forward(experts, hidden, indices, weights)
    assert torch.equal(found, expected)


@needs_triton
def test_a_step_up_rule_does_not_wait(recording: Recording) -> None:
    rule = RoutingRule(BH, recording, SHAPE)
    logits = torch.randn(50, EXPERTS, device=CUDA)
    expected = rule.select(1, logits)
    with no_waiting():
        found = rule.select(1, logits)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
