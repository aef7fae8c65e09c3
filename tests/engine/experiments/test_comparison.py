"""A whole comparison: its events, what it records, stopping, and prompts it refuses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from transformers import OlmoeForCausalLM, PreTrainedTokenizerFast

from bh_studio.engine.decoding.stock_step import StockStep
from bh_studio.engine.errors import CancelToken, EngineError
from bh_studio.engine.experiments.runner import run
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import Finished, Progress, SideFinished, TokenGenerated
from bh_studio.engine.protocol.experiments import Comparison
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import FinishReason, GenerationParameters, ModelInfo
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.rules.parameters import Mode, RouterShape, RuleParameters
from bh_studio.engine.rules.text import parse_rule
from tests.tiny_olmoe import CONTEXT, EXPERTS, LAYERS, TOP_K

RULE = RuleParameters(level=0.1, max_k=TOP_K)


@pytest.fixture
def loaded(
    model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerFast, recording: Recording
) -> LoadedModel:
    info = ModelInfo(
        id="tiny", name="tiny", architecture="OlmoeForCausalLM",
        fingerprint=recording.origin.model_fingerprint, layers=LAYERS, experts=EXPERTS, top_k=TOP_K,
        context_length=CONTEXT, parameter_count=model.num_parameters(), dtype="float32",
        device="cpu", expert_path="grouped_mm", null_sha256=recording.sha256,
        null_samples=recording.samples,
    )  # fmt: skip
    shape = RouterShape(LAYERS, EXPERTS, TOP_K, norm_topk_prob=False)
    return LoadedModel(model, tokenizer, recording, shape, info, frozenset([256]))


def comparison(
    prompt: str = "Once upon a time", rule: RuleParameters = RULE, tokens: int = 20
) -> Comparison:
    generation = GenerationParameters(tokens, sampling=False)
    return Comparison(prompt=prompt, sides=(None, rule), generation=generation)


def session_of(events: Sequence[object]) -> Session:
    finished = events[-1]
    assert isinstance(finished, Finished)
    session: Session = finished.document
    return session


def test_events_come_in_turns_and_add_up_to_the_session(loaded: LoadedModel) -> None:
    events = list(run(loaded, comparison()))
    assert events[0] == Progress("answers", 0, 1)
    assert events[-2:] == [Progress("answers", 1, 1), Finished(session_of(events), True)]
    tokens = [event for event in events if isinstance(event, TokenGenerated)]
    assert [token.side for token in tokens[:4]] == [0, 1] * 2
    session = session_of(events)
    for side, record in enumerate(session.records):
        mine = [token for token in tokens if token.side is side]
        (ended,) = (e for e in events if isinstance(e, SideFinished) and e.side is side)
        assert ended.record is record
        assert record.token_ids == tuple(token.token_id for token in mine)
        assert "".join(token.text for token in mine) + ended.text_tail == record.text
        assert record.text == loaded.tokenizer.decode(record.token_ids, skip_special_tokens=True)
        assert "".join(record.token_texts) == record.text
        np.testing.assert_array_equal(record.expert_counts, [t.expert_counts for t in mine])
        np.testing.assert_array_equal(record.raw_counts, [t.raw_counts for t in mine])
        assert record.token_seconds.tolist() == pytest.approx([t.seconds for t in mine])
        assert record.expert_counts.dtype == np.uint8
        assert record.prompt_expert_counts.shape == (len(record.prompt_token_ids) - 1, LAYERS)
    baseline, bh = session.records[0], session.records[1]
    assert (baseline.expert_counts == TOP_K).all()
    assert bh.expert_counts.min() < TOP_K
    assert session.first_differences[1] is not None


def test_four_sides_take_turns_and_draw_with_the_same_random_numbers(loaded: LoadedModel) -> None:
    sides = (parse_rule("top-k:1"), None, RULE, parse_rule(f"bh:0.1,max_k={TOP_K},mode=analyze"))
    generation = GenerationParameters(20, temperature=2.0)
    definition = Comparison(prompt="Once upon a time", sides=sides, generation=generation)
    events = list(run(loaded, definition))
    tokens = [event for event in events if isinstance(event, TokenGenerated)]
    assert [token.side for token in tokens[:8]] == [0, 1, 2, 3] * 2
    session = session_of(events)
    assert session.sides == sides
    one, own, rule, same = session.records
    assert (one.expert_counts == 1).all()
    assert own.token_ids == same.token_ids
    assert len({one.token_ids, own.token_ids, rule.token_ids}) == 3
    for side in range(4):
        alone = Comparison(prompt="Once upon a time", sides=sides[side:][:1], generation=generation)
        (record,) = session_of(list(run(loaded, alone))).records
        assert record.token_ids == session.records[side].token_ids
        np.testing.assert_array_equal(record.raw_counts, session.records[side].raw_counts)


def test_analyze_answers_twice_the_same(loaded: LoadedModel) -> None:
    rule = RuleParameters(level=0.1, max_k=TOP_K, mode=Mode.ANALYZE)
    session = session_of(list(run(loaded, comparison(rule=rule))))
    baseline, bh = session.records[0], session.records[1]
    assert baseline.token_ids == bh.token_ids
    assert session.first_differences == (None, None)
    assert bh.expert_counts.mean() < TOP_K


@pytest.mark.parametrize("tokens", [0, 1, 5])
def test_a_run_that_nobody_listens_to_gives_its_buffers_back(
    tokens: int, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_now: set[object] = set()
    for name, keep in (("start", open_now.add), ("close", open_now.discard)):
        former = getattr(StockStep, name)

        def noted(self: StockStep, *args: Any, former: Any = former, keep: Any = keep) -> None:
            keep(self)
            former(self, *args)

        monkeypatch.setattr(StockStep, name, noted)
    with closing(run(loaded, comparison())) as events:
        said = 0
        while said < tokens:
            said += isinstance(next(events), TokenGenerated)
        assert len(open_now) == min(tokens, 2)
    assert not open_now


def test_the_model_is_restored_whatever_happens(loaded: LoadedModel) -> None:
    router = loaded.model.model.layers[0].mlp.gate
    with closing(run(loaded, comparison())) as events:
        for _ in range(5):
            next(events)
    assert "forward" not in vars(router)

    calls = iter(range(6))
    original = router.weight

    def failing(*_: object, **__: object) -> None:
        if next(calls) == 5:
            raise RuntimeError("a failing layer")

    handle = loaded.model.model.layers[1].register_forward_pre_hook(failing)
    with pytest.raises(RuntimeError, match="a failing layer"):
        list(run(loaded, comparison()))
    handle.remove()
    assert "forward" not in vars(router)
    assert router.weight is original
    assert len(list(run(loaded, comparison(tokens=3)))) == 2 + 2 * (1 + 3 + 1) + 2


@pytest.mark.parametrize("after", [0, 1, 5])
def test_stop_ends_both_sides_within_a_token(after: int, loaded: LoadedModel) -> None:
    cancel = CancelToken()

    def stopped() -> Iterator[object]:
        seen = 0
        if after == 0:
            cancel.cancel()
        for event in run(loaded, comparison(tokens=50), cancel=cancel):
            yield event
            if isinstance(event, TokenGenerated):
                seen += 1
                if seen == after:
                    cancel.cancel()

    session = session_of(list(stopped()))
    tokens = {side: len(record.token_ids) for side, record in enumerate(session.records)}
    assert sum(tokens.values()) == after
    assert {r.finish_reason for r in session.records} == {FinishReason.STOPPED}
    assert session.first_differences[1] is None or after == 5
    for record in session.records:
        rows = len(record.prompt_token_ids) - 1 if record.token_ids else 0
        assert record.prompt_expert_counts.shape == (rows, LAYERS)


@pytest.mark.parametrize("prompt", ["", "   \n "])
def test_an_empty_prompt_is_refused(prompt: str, loaded: LoadedModel) -> None:
    with pytest.raises(EngineError, match="empty"):
        list(run(loaded, comparison(prompt)))


def test_a_prompt_longer_than_the_context_is_refused_with_numbers(loaded: LoadedModel) -> None:
    with pytest.raises(EngineError, match=f"{CONTEXT} tokens.*at most {CONTEXT}"):
        list(run(loaded, comparison("x" * CONTEXT)))
    session = session_of(list(run(loaded, comparison("x" * (CONTEXT - 1)))))
    assert session.records[1].finish_reason is FinishReason.CONTEXT_LENGTH


def test_more_experts_than_there_are_is_refused(loaded: LoadedModel) -> None:
    with pytest.raises(ValueError, match=f"{EXPERTS} experts"):
        list(run(loaded, comparison(rule=RuleParameters(max_k=EXPERTS + 1))))


def test_the_environment_names_what_the_numbers_came_from(loaded: LoadedModel) -> None:
    environment = session_of(list(run(loaded, comparison(tokens=1)))).environment
    assert environment["packages"]["torch"].startswith("2.")
    assert environment["torch_threads"] >= 1
    assert environment["processor"]
