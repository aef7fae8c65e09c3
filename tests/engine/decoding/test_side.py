"""The decode loop against transformers' own generate, and its stopping conditions."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, OlmoeForCausalLM, PreTrainedTokenizerFast

from bh_studio.engine.decoding import side
from bh_studio.engine.decoding.paths import CPU, STOCK, decode_path
from bh_studio.engine.decoding.sampling import SampledToken
from bh_studio.engine.decoding.side import SideDecoder
from bh_studio.engine.decoding.step import DecodedToken
from bh_studio.engine.errors import EngineError
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.notebook import BHRoutingIntegration
from bh_studio.engine.records.terms import FinishReason, GenerationParameters
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.rules.parameters import OnEmpty, RouterShape, RuleParameters
from tests.tiny_olmoe import CONTEXT, EXPERTS, LAYERS, TOP_K, tiny_model, tiny_tokenizer

SHAPE = RouterShape(LAYERS, EXPERTS, TOP_K, norm_topk_prob=False)
PROMPTS = [
    "Once upon a time",
    "The fox",
    "a",
    "Hot soup, cold bread and 3 apples; then home!",
    "\n\nChapter the last",
]


def encode(text: str) -> Tensor:
    token_ids: Tensor = tiny_tokenizer()(text, return_tensors="pt").input_ids
    return token_ids


def run(decoder: SideDecoder) -> tuple[list[int], FinishReason]:
    token_ids = []
    while True:
        step = decoder.step()
        token_ids.append(step.token_id)
        if step.finish_reason is not None:
            return token_ids, step.finish_reason


# In 16 bits our own forward on the CPU rounds otherwise than the model's: test_cpu_step.py.
@pytest.mark.parametrize(
    ("implementation", "dtype"),
    [
        ("grouped_mm", torch.float32),
        ("grouped_mm", torch.bfloat16),
        ("bh_selected", torch.float32),
    ],
)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_equals_generate(prompt: str, implementation: str, dtype: torch.dtype) -> None:
    model = tiny_model(dtype=dtype)
    model.set_experts_implementation(implementation)
    token_ids = encode(prompt)
    expected = model.generate(token_ids, do_sample=False, max_new_tokens=40)
    found, _ = run(
        SideDecoder(
            model, token_ids, GenerationParameters(40, sampling=False), frozenset([256]), SHAPE
        )
    )
    assert found == expected[0, token_ids.shape[1] :].tolist()


@pytest.mark.parametrize("top_p", [0.8, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_sampling_equals_generate(seed: int, top_p: float, model: OlmoeForCausalLM) -> None:
    token_ids = encode("Once upon a time")
    torch.manual_seed(seed)
    expected = model.generate(
        token_ids, do_sample=True, temperature=0.7, top_p=top_p, top_k=0, max_new_tokens=40
    )
    parameters = GenerationParameters(40, sampling=True, temperature=0.7, top_p=top_p, seed=seed)
    found, _ = run(SideDecoder(model, token_ids, parameters, frozenset([256]), SHAPE))
    assert found == expected[0, token_ids.shape[1] :].tolist()
    again, _ = run(SideDecoder(model, token_ids, parameters, frozenset([256]), SHAPE))
    assert again == found


def test_two_decoders_share_a_model_and_take_turns(
    model: OlmoeForCausalLM, recording: Recording
) -> None:
    token_ids, parameters = encode("Once upon a time"), GenerationParameters(20, sampling=False)
    alone, _ = run(SideDecoder(model, token_ids, parameters, frozenset(), SHAPE))
    bh = BHRoutingIntegration(model, alpha=0.1, max_k=TOP_K, recording=recording)
    bh_alone, _ = run(SideDecoder(model, token_ids, parameters, frozenset(), SHAPE, bh))
    assert alone != bh_alone
    left = SideDecoder(model, token_ids, parameters, frozenset(), SHAPE)
    right = SideDecoder(model, token_ids, parameters, frozenset(), SHAPE, bh)
    pairs = [(left.step(), right.step()) for _ in range(20)]
    assert [pair[0].token_id for pair in pairs] == alone
    assert [pair[1].token_id for pair in pairs] == bh_alone
    assert not bh.is_patched


def test_counts_have_one_row_a_position_that_was_read(
    model: OlmoeForCausalLM, recording: Recording
) -> None:
    token_ids = encode("Once upon a time")
    bh = BHRoutingIntegration(model, alpha=0.1, max_k=TOP_K, recording=recording)
    for integration in (None, bh):
        decoder = SideDecoder(
            model,
            token_ids,
            GenerationParameters(5, sampling=False),
            frozenset(),
            SHAPE,
            integration,
        )
        first, second = decoder.step(), decoder.step()
        assert first.expert_counts.shape == (token_ids.shape[1], LAYERS)
        assert second.expert_counts.shape == (1, LAYERS)
        for step in (first, second):
            assert step.expert_counts.dtype == step.raw_counts.dtype == np.uint8
        if integration is None:
            assert (first.expert_counts == TOP_K).all()
        else:
            assert (first.raw_counts.clip(1, TOP_K) == first.expert_counts).all()


def test_ends_at_the_end_of_text_token(
    model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    token_ids = encode("Once")
    free, reason = run(
        SideDecoder(model, token_ids, GenerationParameters(30, sampling=False), frozenset(), SHAPE)
    )
    assert (len(free), reason) == (30, FinishReason.MAX_NEW_TOKENS)
    end = free[7]
    found, reason = run(
        SideDecoder(
            model, token_ids, GenerationParameters(30, sampling=False), frozenset([end]), SHAPE
        )
    )
    assert found == free[: free.index(end) + 1]
    assert reason is FinishReason.END_OF_TEXT


@pytest.mark.parametrize(("implementation", "path"), [("grouped_mm", STOCK), ("bh_selected", CPU)])
@pytest.mark.parametrize("has_rule", [False, True])
def test_an_end_of_text_may_be_the_first_token(
    implementation: str, path: str, has_rule: bool, model: OlmoeForCausalLM, recording: Recording
) -> None:
    model.set_experts_implementation(implementation)
    assert decode_path(model).name == path
    bh = BHRoutingIntegration(model, alpha=0.1, max_k=TOP_K, recording=recording)
    token_ids, parameters = encode("Once"), GenerationParameters(30, sampling=False)
    routing = bh if has_rule else None
    (first, *_), _ = run(SideDecoder(model, token_ids, parameters, frozenset(), SHAPE, routing))
    decoder = SideDecoder(model, token_ids, parameters, frozenset([first]), SHAPE, routing)
    assert run(decoder) == ([first], FinishReason.END_OF_TEXT)
    with pytest.raises(RuntimeError, match="ended"):
        decoder.step()


def test_ends_when_the_context_is_full(model: OlmoeForCausalLM) -> None:
    token_ids = encode("x" * (CONTEXT - 3))
    found, reason = run(
        SideDecoder(model, token_ids, GenerationParameters(500, sampling=False), frozenset(), SHAPE)
    )
    assert len(found) == 3
    assert reason is FinishReason.CONTEXT_LENGTH


def test_a_token_in_which_the_rule_finds_nothing_is_counted_as_what_it_then_gets(
    model: OlmoeForCausalLM, recording: Recording
) -> None:
    # A level that no score of this null reaches.
    rule = RuleParameters(level=1e-9, max_k=TOP_K, on_empty=OnEmpty.TOP_K)
    routing = RoutingIntegration(model, rule, recording=recording)
    parameters = GenerationParameters(3, sampling=False)
    decoder = SideDecoder(model, encode("Once"), parameters, frozenset(), SHAPE, routing)
    for step in (decoder.step(), decoder.step()):
        assert (step.raw_counts == 0).all()
        assert (step.expert_counts == TOP_K).all()


@pytest.mark.parametrize(
    ("tokens", "wanted", "expected"),
    [
        (CONTEXT - 3, 3, (3, FinishReason.MAX_NEW_TOKENS)),
        (CONTEXT - 3, 4, (3, FinishReason.CONTEXT_LENGTH)),
        (CONTEXT - 1, 4, (1, FinishReason.CONTEXT_LENGTH)),
        (CONTEXT, 4, (1, FinishReason.CONTEXT_LENGTH)),
    ],
)
def test_what_ends_an_answer_at_the_end_of_the_context(
    tokens: int, wanted: int, expected: tuple[int, FinishReason], model: OlmoeForCausalLM
) -> None:
    parameters = GenerationParameters(wanted, sampling=False)
    prompt = encode("x" * tokens)
    assert prompt.shape[1] == tokens
    found, reason = run(SideDecoder(model, prompt, parameters, frozenset(), SHAPE))
    assert (len(found), reason) == expected


# Steps that run ahead


class FakeStep:
    """A decode step that says the tokens it is told, and notes what is asked of it."""

    def __init__(self, token_ids: list[int], runs_ahead: bool) -> None:
        self.runs_ahead = runs_ahead
        self._tokens = [FakeToken(self, token_id) for token_id in token_ids]
        self.calls: list[str] = []
        self.room = -1
        self.is_closed = False

    def start(self, cache: DynamicCache, token: Tensor, room: int) -> None:
        self.room = room

    def submit(self) -> FakeToken:
        self.calls.append("submit")
        assert not self.is_closed
        return self._tokens.pop(0)

    def close(self) -> None:
        self.is_closed = True


class FakeToken:
    """Raises KeyboardInterrupt in place of the token 0."""

    def __init__(self, step: FakeStep, token_id: int) -> None:
        self._step = step
        self._token_id = token_id

    def wait(self) -> DecodedToken:
        self._step.calls.append(f"wait {self._token_id}")
        if self._token_id == 0:
            raise KeyboardInterrupt
        return DecodedToken(self._token_id, None, 0.25)


def decoder_on(
    step: FakeStep, monkeypatch: pytest.MonkeyPatch, tokens: int = 100, prompt: str = "Once"
) -> SideDecoder:
    monkeypatch.setattr(side, "open_step", lambda *_: step)
    parameters = GenerationParameters(tokens, sampling=False)
    return SideDecoder(tiny_model(), encode(prompt), parameters, frozenset([999]), SHAPE)


def test_the_next_step_is_submitted_before_the_former_token_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = FakeStep([11, 12, 13], runs_ahead=True)
    decoder = decoder_on(step, monkeypatch, tokens=4)
    found, reason = run(decoder)
    assert (found[1:], reason) == ([11, 12, 13], FinishReason.MAX_NEW_TOKENS)
    assert step.calls == ["submit", "submit", "wait 11", "submit", "wait 12", "wait 13"]
    assert (step.room, step.is_closed) == (3, True)


def test_a_step_that_does_not_run_ahead_is_asked_for_one_token_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = FakeStep([11, 12, 13], runs_ahead=False)
    run(decoder_on(step, monkeypatch, tokens=4))
    assert step.calls == ["submit", "wait 11", "submit", "wait 12", "submit", "wait 13"]


def test_a_token_computed_beyond_the_end_of_the_text_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = FakeStep([11, 999, 12], runs_ahead=True)
    found, reason = run(decoder_on(step, monkeypatch))
    assert (found[1:], reason) == ([11, 999], FinishReason.END_OF_TEXT)
    # Never waited for, so that it enters no statistics.
    assert step.calls == ["submit", "submit", "wait 11", "submit", "wait 999"]
    assert step.is_closed


def test_nothing_is_submitted_beyond_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    step = FakeStep([11, 12], runs_ahead=True)
    found, reason = run(decoder_on(step, monkeypatch, prompt="x" * (CONTEXT - 3)))
    assert (len(found), reason) == (3, FinishReason.CONTEXT_LENGTH)
    assert step.calls == ["submit", "submit", "wait 11", "wait 12"]
    assert step.room == 2


def test_no_step_is_opened_for_a_single_token(monkeypatch: pytest.MonkeyPatch) -> None:
    step = FakeStep([], runs_ahead=True)
    assert len(run(decoder_on(step, monkeypatch, tokens=1))[0]) == 1
    assert step.room == -1


def test_the_seconds_of_a_token_are_those_of_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = decoder_on(FakeStep([11, 12], runs_ahead=True), monkeypatch)
    start = time.perf_counter()
    first = decoder.step()
    assert 0 < first.seconds <= time.perf_counter() - start
    assert decoder.step().seconds == 0.25


def test_a_step_is_closed_after_an_error_and_takes_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = FakeStep([11, 0, 12], runs_ahead=True)
    decoder = decoder_on(step, monkeypatch)
    decoder.step(), decoder.step()
    with pytest.raises(KeyboardInterrupt):
        decoder.step()
    assert step.is_closed
    with pytest.raises(RuntimeError, match="ended"):
        decoder.step()


def test_a_decoder_that_is_abandoned_can_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    step = FakeStep([11, 12], runs_ahead=True)
    decoder = decoder_on(step, monkeypatch)
    decoder.close()
    decoder = decoder_on(step, monkeypatch)
    decoder.step(), decoder.step()
    assert not step.is_closed
    decoder.close()
    decoder.close()
    assert step.is_closed


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_told_of(value: float) -> None:
    choose = SampledToken(GenerationParameters(), torch.device("cpu"))
    with pytest.raises(EngineError, match="not finite"):
        choose(torch.tensor([[0.0, value, 1.0]]))
