"""The state machine: what each event does in each state."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bh_studio.engine.protocol.events import Failed, Finished, SideFinished, TokenGenerated
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import FinishReason, GenerationParameters
from bh_studio.engine.rules.parameters import Mode, RuleParameters
from bh_studio.ui.state.jobs_model import JobsModel
from bh_studio.ui.state.run_pair import ANALYZE_NOTE
from bh_studio.ui.state.session_model import SessionModel, State
from tests.fake_engine import FakeEngine

RULE, GENERATION = RuleParameters(), GenerationParameters()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def model(engine: FakeEngine) -> SessionModel:
    model = SessionModel(JobsModel())
    engine.reported.connect(model.jobs.apply)
    model.jobs.attach(engine)
    return model


def state_of(model: SessionModel) -> State:
    """The state, read anew: a type checker would take an earlier assertion to hold still."""
    return model.state


def ready(model: SessionModel, engine: FakeEngine) -> None:
    model.load("embedded")
    engine.finish_load()
    assert state_of(model) is State.READY


def test_a_load_and_a_run_pass_through_every_state(model: SessionModel, engine: FakeEngine) -> None:
    states: list[State] = []
    model.state_changed.connect(states.append)
    ready(model, engine)
    model.run("Once", RULE, GENERATION)
    engine.token(0, " upon")
    model.stop()
    session = engine.finish(FinishReason.STOPPED)
    assert states == [
        State.LOADING,
        State.READY,
        State.RUNNING,
        State.CANCELLING,
        State.READY,
    ]
    assert model.session is session


def test_stop_is_final_only_when_the_engine_confirms(
    model: SessionModel, engine: FakeEngine
) -> None:
    ready(model, engine)
    model.run("Once", RULE, GENERATION)
    model.stop()
    assert engine.is_run_cancelled
    assert state_of(model) is State.CANCELLING
    engine.token(0, " last")
    assert state_of(model) is State.CANCELLING
    assert model.baseline.token_texts == [" last"]
    model.run("Twice", RULE, GENERATION)
    assert len(engine.requests) == 2
    engine.finish(FinishReason.STOPPED)
    assert state_of(model) is State.READY
    assert model.baseline.finish_reason is FinishReason.STOPPED


def test_a_load_can_be_cancelled(model: SessionModel, engine: FakeEngine) -> None:
    model.load("embedded")
    can_stop = [model.can_stop]
    model.stop()
    can_stop.append(model.can_stop)
    assert can_stop == [True, False]
    assert engine.jobs[0] in engine.cancelled
    assert state_of(model) is State.LOADING
    engine.cancel_load()
    assert state_of(model) is State.NO_MODEL
    assert model.model is None


def test_a_failed_load_leaves_no_model(model: SessionModel, engine: FakeEngine) -> None:
    failures: list[Failed] = []
    model.failed.connect(failures.append)
    model.load("nowhere")
    failure = engine.fail("No such folder.")
    assert state_of(model) is State.NO_MODEL
    assert failures == [failure]


def test_events_of_an_old_run_are_dropped(model: SessionModel, engine: FakeEngine) -> None:
    failures: list[Failed] = []
    model.failed.connect(failures.append)
    ready(model, engine)
    model.run("Once", RULE, GENERATION)
    engine.token(1, " old")
    first = engine.finish()
    model.run("Twice", RULE, GENERATION)
    engine.begin()
    old = engine.jobs[-2]
    late = np.full(engine.model.layers, 5, dtype=np.uint8)
    engine.report(TokenGenerated(1, 0, 7, " late", late, late, 0.1), old)
    engine.report(SideFinished(1, " late", first.records[1]), old)
    engine.report(Finished(first, True), old)
    engine.report(Failed("late", "", ""), old)
    assert state_of(model) is State.RUNNING
    assert model.session is None
    assert model.bh.token_count == 0
    assert failures == []


def test_tokens_after_the_end_are_dropped(model: SessionModel, engine: FakeEngine) -> None:
    ready(model, engine)
    model.run("Once", RULE, GENERATION)
    engine.token(1, " a")
    engine.finish()
    engine.token(1, " b")
    assert model.bh.token_texts == [" a"]
    assert state_of(model) is State.READY


def test_running_numbers_equal_the_final_record(model: SessionModel, engine: FakeEngine) -> None:
    ready(model, engine)
    model.run("Once", RULE, GENERATION)
    for number in range(300):
        engine.token(0, f" {number}", 8)
        engine.token(1, f" {number}", *engine.random_counts())
    live = [
        (run.statistics, run.tokens_per_second, run.time_to_first_token_s)
        for run in (model.baseline, model.bh)
    ]
    session = engine.finish()
    for side, (statistics, speed, first) in zip(range(2), live, strict=True):
        record = session.records[side]
        assert statistics.to_dict() == record.statistics()["answer"]
        assert speed == record.tokens_per_second
        assert first == record.time_to_first_token_s
    assert model.bh.statistics.to_dict() == session.records[1].statistics()["answer"]
    assert np.array_equal(model.bh.counts, session.records[1].expert_counts)


def test_a_failed_run_keeps_the_partial_text(model: SessionModel, engine: FakeEngine) -> None:
    ready(model, engine)
    model.run("Once", RULE, GENERATION)
    engine.token(0, " upon")
    engine.finish_side(0, FinishReason.END_OF_TEXT)
    engine.token(1, " upon")
    engine.fail()
    assert state_of(model) is State.READY
    assert model.session is None
    assert model.bh.token_texts == [" upon"]
    assert model.bh.is_failed
    assert not model.baseline.is_failed


def test_held_back_characters_join_the_last_token(model: SessionModel, engine: FakeEngine) -> None:
    ready(model, engine)
    model.run("Once", RULE, GENERATION)
    engine.token(1, " caf")
    engine.finish_side(1, FinishReason.MAX_NEW_TOKENS, tail="\N{REPLACEMENT CHARACTER}")
    epoch = model.bh.epoch
    session = engine.finish()
    assert model.bh.token_texts == [" caf\N{REPLACEMENT CHARACTER}"]
    assert session.records[1].text == model.bh.token_texts[0]
    assert model.bh.epoch == epoch


def test_the_first_difference_is_found_while_tokens_arrive(
    model: SessionModel, engine: FakeEngine
) -> None:
    ready(model, engine)
    model.run("Once", RULE, GENERATION)
    for left, right in ((" a", " a"), (" b", " b"), (" c", " d"), (" e", " e")):
        engine.token(0, left)
        engine.token(1, right)
    assert model.first_difference == 2
    assert engine.finish().first_difference == 2
    assert model.first_difference == 2


def test_a_session_is_shown_without_a_model(model: SessionModel, engine: FakeEngine) -> None:
    ready(model, engine)
    model.run("Once", RuleParameters(mode=Mode.ANALYZE), GENERATION)
    for word in (" a", " b"):
        engine.token(0, word, 8)
        engine.token(1, word, *engine.random_counts())
    session: Session = engine.finish()
    other = SessionModel(JobsModel())
    other.show_session(session)
    assert other.state is State.NO_MODEL
    assert other.bh.token_texts == [" a", " b"]
    assert other.bh.note == ANALYZE_NOTE
    assert other.baseline.note == ""
    assert other.session is session
    assert other.first_difference is None
    assert other.compared_tokens == 2


def test_a_session_is_not_shown_over_a_run(model: SessionModel, engine: FakeEngine) -> None:
    ready(model, engine)
    model.run("Once", RULE, GENERATION)
    session = engine.finish()
    model.run("Twice", RULE, GENERATION)
    with pytest.raises(RuntimeError):
        model.show_session(session)


def test_a_refused_prompt_leaves_the_earlier_result(
    model: SessionModel, engine: FakeEngine
) -> None:
    ready(model, engine)
    model.run("Once", RULE, GENERATION)
    engine.token(0, " upon")
    session = engine.finish()
    changes: list[None] = []
    model.session_changed.connect(lambda: changes.append(None))
    model.run("Too long", RULE, GENERATION)
    assert state_of(model) is State.RUNNING
    engine.fail("The prompt is too long.")
    assert state_of(model) is State.READY
    sessions = [model.session]
    assert model.baseline.prompt == "Once"
    assert model.baseline.token_texts == [" upon"]
    assert not model.baseline.is_failed
    assert changes == []
    model.run("Twice", RULE, GENERATION)
    engine.begin()
    assert [*sessions, model.session] == [session, None]
    assert model.baseline.prompt == "Twice"
    assert model.baseline.token_count == 0


def test_a_session_that_cannot_be_shown_changes_nothing(
    model: SessionModel, engine: FakeEngine
) -> None:
    ready(model, engine)
    model.run("Once", RULE, GENERATION)
    engine.token(0, " upon")
    session = engine.finish()
    wrong = dataclasses.replace(session.model, layers=10**30)
    with pytest.raises(ValueError, match="not those of its tokens"):
        model.show_session(dataclasses.replace(session, model=wrong))
    huge = RuleParameters(temperature=10**400)
    with pytest.raises(OverflowError):
        model.show_session(dataclasses.replace(session, sides=(None, huge)))
    assert model.session is session
    assert model.baseline.token_texts == [" upon"]
    assert model.baseline.layers == 16


def test_nothing_is_asked_of_an_engine_that_is_not_there() -> None:
    model = SessionModel(JobsModel())
    model.load("embedded")
    model.run("Once", RULE, GENERATION)
    model.stop()
    assert state_of(model) is State.NO_MODEL
