"""What is on screen: what each event does in each state of a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bh_studio.engine.protocol.events import (
    Failed,
    Finished,
    JobCancelled,
    Notice,
    Progress,
    SideFinished,
    TokenGenerated,
)
from bh_studio.engine.protocol.experiments import Comparison
from bh_studio.engine.protocol.requests import Body, LoadModel, SaveCalibration
from bh_studio.engine.records.decisions.drift import Drift, drift_words
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import Conversation, FinishReason, GenerationParameters
from bh_studio.engine.rules import parse_rule
from bh_studio.engine.rules.parameters import Mode, RuleParameters
from bh_studio.ui.state.engine_model import EngineModel
from bh_studio.ui.state.jobs_model import JobsModel
from bh_studio.ui.state.run_sides import ANALYZE_NOTE
from bh_studio.ui.state.selection import Place
from bh_studio.ui.state.session_model import RunState, SessionModel
from tests.fake_engine import FakeEngine

SIDES, GENERATION = (None, RuleParameters()), GenerationParameters()


def awaited_by(screen: SessionModel) -> Body | None:
    """What the run waits for, read anew too."""
    return screen.awaited


def is_started(screen: SessionModel) -> bool:
    """Whether there is anything on screen."""
    return screen.sides.all_runs[0].is_started


def prompt_of(screen: SessionModel) -> str:
    """What the side on screen was asked."""
    about = screen.sides.all_runs[0].about
    return "" if about is None else about.passages[-1].text


def state_of(screen: SessionModel) -> RunState:
    """The state, read anew: a type checker would take an earlier assertion to hold still."""
    return screen.state


def place_of(screen: SessionModel) -> Place | None:
    """What is looked at, read anew too."""
    return screen.selection.place


def test_a_run_passes_through_every_state(screen: SessionModel, engine: FakeEngine) -> None:
    states: list[RunState] = []
    screen.state_changed.connect(states.append)
    screen.run("Once", SIDES, GENERATION)
    engine.token(0, " upon")
    screen.stop()
    session = engine.finish(FinishReason.STOPPED)
    assert states == [RunState.RUNNING, RunState.CANCELLING, RunState.IDLE]
    assert screen.session is session


def test_stop_is_final_only_when_the_engine_confirms(
    screen: SessionModel, engine: FakeEngine
) -> None:
    screen.run("Once", SIDES, GENERATION)
    screen.stop()
    assert engine.is_run_cancelled
    assert state_of(screen) is RunState.CANCELLING
    engine.token(0, " last")
    assert state_of(screen) is RunState.CANCELLING
    assert screen.sides.all_runs[0].token_texts == [" last"]
    screen.run("Twice", SIDES, GENERATION)
    assert len(engine.requests) == 2
    engine.finish(FinishReason.STOPPED)
    assert state_of(screen) is RunState.IDLE
    assert screen.sides.all_runs[0].finish_reason is FinishReason.STOPPED


def test_events_of_an_old_run_are_dropped(screen: SessionModel, engine: FakeEngine) -> None:
    failures: list[Failed] = []
    screen.failed.connect(failures.append)
    screen.run("Once", SIDES, GENERATION)
    engine.token(1, " old")
    first = engine.finish()
    screen.run("Twice", SIDES, GENERATION)
    engine.begin()
    old = engine.jobs[-2]
    late = np.full(engine.model.layers, 5, dtype=np.uint8)
    engine.report(TokenGenerated(1, 0, 7, " late", late, late, 0.1), old)
    engine.report(SideFinished(1, " late", first.records[1]), old)
    engine.report(Finished(first, True), old)
    engine.report(Failed("late", "", ""), old)
    assert state_of(screen) is RunState.RUNNING
    assert screen.session is None
    assert screen.sides.all_runs[1].token_count == 0
    assert failures == []


def test_tokens_after_the_end_are_dropped(screen: SessionModel, engine: FakeEngine) -> None:
    screen.run("Once", SIDES, GENERATION)
    engine.token(1, " a")
    engine.finish()
    engine.token(1, " b")
    assert screen.sides.all_runs[1].token_texts == [" a"]
    assert state_of(screen) is RunState.IDLE


def test_running_numbers_equal_the_final_record(screen: SessionModel, engine: FakeEngine) -> None:
    screen.run("Once", SIDES, GENERATION)
    for number in range(300):
        engine.token(0, f" {number}", 8)
        engine.token(1, f" {number}", *engine.random_counts())
    live = [
        (run.statistics, run.tokens_per_second, run.time_to_first_token_s)
        for run in (screen.sides.all_runs[0], screen.sides.all_runs[1])
    ]
    session = engine.finish()
    for side, (statistics, speed, first) in zip(range(2), live, strict=True):
        record = session.records[side]
        assert statistics.to_dict() == record.statistics()["answer"]
        assert speed == record.tokens_per_second
        assert first == record.time_to_first_token_s
    assert (
        screen.sides.all_runs[1].statistics.to_dict() == session.records[1].statistics()["answer"]
    )
    assert np.array_equal(screen.sides.all_runs[1].counts, session.records[1].expert_counts)


def test_a_failed_run_keeps_the_partial_text(screen: SessionModel, engine: FakeEngine) -> None:
    screen.run("Once", SIDES, GENERATION)
    engine.token(0, " upon")
    engine.finish_side(0, FinishReason.END_OF_TEXT)
    engine.token(1, " upon")
    engine.fail()
    assert state_of(screen) is RunState.IDLE
    assert screen.session is None
    assert screen.sides.all_runs[1].token_texts == [" upon"]
    assert screen.sides.all_runs[1].is_failed
    assert not screen.sides.all_runs[0].is_failed


def test_held_back_characters_join_the_last_token(screen: SessionModel, engine: FakeEngine) -> None:
    screen.run("Once", SIDES, GENERATION)
    engine.token(1, " caf")
    engine.finish_side(1, FinishReason.MAX_NEW_TOKENS, tail="\N{REPLACEMENT CHARACTER}")
    epoch = screen.sides.all_runs[1].epoch
    session = engine.finish()
    assert screen.sides.all_runs[1].token_texts == [" caf\N{REPLACEMENT CHARACTER}"]
    assert session.records[1].text == screen.sides.all_runs[1].token_texts[0]
    assert screen.sides.all_runs[1].epoch == epoch


def test_the_first_difference_is_found_while_tokens_arrive(
    screen: SessionModel, engine: FakeEngine
) -> None:
    screen.run("Once", SIDES, GENERATION)
    for left, right in ((" a", " a"), (" b", " b"), (" c", " d"), (" e", " e")):
        engine.token(0, left)
        engine.token(1, right)
    assert screen.sides.partings[1].token == 2
    assert engine.finish().first_differences == (None, 2)
    assert screen.sides.partings[1].token == 2


def test_a_session_is_shown_without_a_model(screen: SessionModel, engine: FakeEngine) -> None:
    screen.run("Once", (None, RuleParameters(mode=Mode.ANALYZE)), GENERATION)
    for word in (" a", " b"):
        engine.token(0, word, 8)
        engine.token(1, word, *engine.random_counts())
    session: Session = engine.finish()
    other = SessionModel(EngineModel(JobsModel()))
    other.show_session(session)
    assert not other.is_busy
    assert other.sides.all_runs[1].token_texts == [" a", " b"]
    assert other.sides.all_runs[1].note == ANALYZE_NOTE.format("BH")
    assert other.sides.all_runs[0].note == ""
    assert other.session is session
    assert other.sides.partings[1].token is None
    assert other.sides.partings[1].compared == 2


def test_a_session_is_not_shown_over_a_run(screen: SessionModel, engine: FakeEngine) -> None:
    screen.run("Once", SIDES, GENERATION)
    session = engine.finish()
    screen.run("Twice", SIDES, GENERATION)
    with pytest.raises(RuntimeError):
        screen.show_session(session)


def test_a_refused_prompt_leaves_the_earlier_result(
    screen: SessionModel, engine: FakeEngine
) -> None:
    screen.run("Once", SIDES, GENERATION)
    engine.token(0, " upon")
    session = engine.finish()
    changes: list[None] = []
    screen.session_changed.connect(lambda: changes.append(None))
    screen.run("Too long", SIDES, GENERATION)
    assert state_of(screen) is RunState.RUNNING
    engine.fail("The prompt is too long.")
    assert state_of(screen) is RunState.IDLE
    sessions = [screen.session]
    assert prompt_of(screen) == "Once"
    assert screen.sides.all_runs[0].token_texts == [" upon"]
    assert not screen.sides.all_runs[0].is_failed
    assert changes == []
    screen.run("Twice", SIDES, GENERATION)
    engine.begin()
    assert [*sessions, screen.session] == [session, None]
    assert prompt_of(screen) == "Twice"
    assert screen.sides.all_runs[0].token_count == 0


def test_a_session_that_cannot_be_shown_changes_nothing(
    screen: SessionModel, engine: FakeEngine
) -> None:
    screen.run("Once", SIDES, GENERATION)
    engine.token(0, " upon")
    session = engine.finish()
    wrong = dataclasses.replace(session.model, layers=10**30)
    with pytest.raises(ValueError, match="not those of its tokens"):
        screen.show_session(dataclasses.replace(session, model=wrong))
    huge = RuleParameters(temperature=10**400)
    with pytest.raises(OverflowError):
        screen.show_session(dataclasses.replace(session, sides=(None, huge)))
    assert screen.session is session
    assert screen.sides.all_runs[0].token_texts == [" upon"]
    assert screen.sides.all_runs[0].layers == 16


# --- what is looked at ---


def test_the_same_run_again_is_looked_at_where_it_was(
    screen: SessionModel, engine: FakeEngine
) -> None:
    screen.run("Once", SIDES, GENERATION)
    engine.token(1, " upon")
    engine.finish()
    screen.selection.select(1, 0, 3)
    others = (None, parse_rule("cut:0.04"), parse_rule("cut:0.05"))
    screen.run("Once", others, dataclasses.replace(GENERATION, seed=7))
    engine.begin()
    assert screen.selection.place == Place(1, 0, 3)
    session = engine.finish()
    # So it is for an earlier run that is shown again.
    screen.show_session(session)
    assert place_of(screen) == Place(1, 0, 3)
    screen.selection.select(2, 0)
    screen.run("Once", others, GENERATION)
    engine.begin()
    assert place_of(screen) == Place(2, 0, 3)


@pytest.mark.parametrize(
    ("prompt", "sides", "conversation", "fingerprint"),
    [
        ("Twice", SIDES, None, None),
        ("Once", SIDES[:1], None, None),
        ("Once", SIDES, Conversation("Be brief."), None),
        ("Once", SIDES, None, "0" * 64),
    ],
)
def test_another_run_is_looked_at_anew(
    screen: SessionModel,
    engine: FakeEngine,
    prompt: str,
    sides: tuple[RuleParameters | None, ...],
    conversation: Conversation | None,
    fingerprint: str | None,
) -> None:
    screen.run("Once", SIDES, GENERATION)
    engine.token(1, " upon")
    engine.finish()
    screen.selection.select(1, 0)
    if fingerprint is not None:
        engine.model = dataclasses.replace(engine.model, fingerprint=fingerprint)
        screen.engine.load("another")
        engine.finish_load()
    screen.run(prompt, sides, GENERATION, conversation)
    engine.begin()
    assert screen.selection.place is None


def test_a_refused_prompt_is_no_reason_to_look_elsewhere(
    screen: SessionModel, engine: FakeEngine
) -> None:
    screen.run("Once", SIDES, GENERATION)
    engine.token(1, " upon")
    engine.finish()
    screen.selection.select(1, 0)
    screen.run("Too long", SIDES, GENERATION)
    engine.fail("The prompt is too long.")
    assert place_of(screen) == Place(1, 0, None)
    screen.run("Once", SIDES, GENERATION)
    engine.begin()
    assert place_of(screen) == Place(1, 0, None)


def test_nothing_is_asked_of_an_engine_that_is_not_there() -> None:
    screen = SessionModel(EngineModel(JobsModel()))
    screen.run("Once", SIDES, GENERATION)
    screen.stop()
    assert state_of(screen) is RunState.IDLE


# --- runs that wait ---


def test_a_run_waits_for_the_model_that_loads(model: EngineModel, engine: FakeEngine) -> None:
    screen = SessionModel(model)
    states: list[RunState] = []
    screen.state_changed.connect(states.append)
    model.load("embedded")
    screen.run("Once", SIDES, GENERATION)
    assert [type(request) for request in engine.requests] == [LoadModel, Comparison]
    engine.wait(engine.jobs[0])
    assert awaited_by(screen) == LoadModel("embedded")
    engine.finish_load()
    assert awaited_by(screen) is None
    assert not is_started(screen)
    engine.token(0, " upon")
    assert screen.sides.all_runs[0].layers == engine.model.layers
    session = engine.finish()
    assert states == [RunState.WAITING, RunState.RUNNING, RunState.IDLE]
    assert screen.session is session


@pytest.mark.parametrize("end", ["fail", "end_cancelled", "refuse"])
@pytest.mark.parametrize("is_there", [False, True])
def test_a_waiting_run_ends_quietly_with_its_load(
    model: EngineModel, engine: FakeEngine, end: str, is_there: bool
) -> None:
    screen = SessionModel(model)
    if is_there:
        model.load("embedded")
        engine.finish_load()
    told: list[object] = []
    for signal in (screen.failed, screen.run_lost, screen.run_accepted, screen.session_changed):
        signal.connect(lambda *_: told.append(None))
    model.load("/models/other")
    screen.run("Once", SIDES, GENERATION)
    load, run = engine.jobs[-2:]
    if end == "fail":
        engine.fail("The weights are damaged.", load)
    elif end == "end_cancelled":
        engine.end_cancelled(LoadModel)
    else:
        engine.refuse()
    assert state_of(screen) is RunState.IDLE
    assert run in engine.cancelled
    # The former model may have begun to answer before the engine heard of that.
    engine.token(0, " late")
    engine.finish(FinishReason.STOPPED)
    assert told == []
    assert not is_started(screen)
    assert model.is_ready == is_there
    assert model.is_settled


def test_who_cancels_a_load_gives_up_the_run_that_waits_for_it(
    model: EngineModel, engine: FakeEngine
) -> None:
    screen = SessionModel(model)
    model.load("embedded")
    screen.run("Once", SIDES, GENERATION)
    model.cancel_load()
    assert state_of(screen) is RunState.IDLE
    assert engine.cancelled == set(engine.jobs)
    # While a load is being given up there is nothing to wait for.
    screen.run("Twice", SIDES, GENERATION)
    assert len(engine.requests) == 2


def test_a_waiting_run_that_is_stopped_leaves_the_load_and_may_be_asked_for_again(
    model: EngineModel, engine: FakeEngine
) -> None:
    screen = SessionModel(model)
    model.load("embedded")
    screen.run("Once", SIDES, GENERATION)
    first = engine.jobs[-1]
    screen.stop()
    assert state_of(screen) is RunState.IDLE
    assert engine.cancelled == {first}
    assert model.can_cancel_load
    screen.run("Twice", SIDES, GENERATION)
    engine.finish_load()
    # The engine comes to the first one before it ends it.
    engine.report(Progress("answers", 0, 1), first)
    engine.report(JobCancelled(), first)
    assert state_of(screen) is RunState.RUNNING
    assert not is_started(screen)
    engine.token(0, " upon")
    assert prompt_of(screen) == "Twice"


def test_a_waiting_run_that_does_not_fit_the_model_is_refused_by_the_engine(
    model: EngineModel, engine: FakeEngine
) -> None:
    screen = SessionModel(model)
    failures: list[Failed] = []
    screen.failed.connect(failures.append)
    model.load("embedded")
    screen.run("Once", (None, RuleParameters(max_k=200)), GENERATION)
    engine.finish_load()
    failure = engine.fail("max_k must not exceed the 64 experts of a layer; got 200.")
    assert failures == [failure]
    assert state_of(screen) is RunState.IDLE
    assert not is_started(screen)


def test_a_run_says_what_it_waits_for(
    ready: EngineModel, screen: SessionModel, engine: FakeEngine
) -> None:
    ready.save_calibration(Path("/null.npz"))
    screen.run("Once", SIDES, GENERATION)
    assert state_of(screen) is RunState.RUNNING
    engine.wait(engine.jobs[-2])
    assert state_of(screen) is RunState.WAITING
    assert awaited_by(screen) == SaveCalibration(Path("/null.npz"))
    engine.save_calibration()
    assert awaited_by(screen) is None
    engine.begin()
    assert state_of(screen) is RunState.RUNNING


def test_a_run_asked_for_before_its_model_was_known_to_chat_becomes_a_message(
    model: EngineModel, engine: FakeEngine
) -> None:
    screen = SessionModel(model)
    model.load("embedded")
    screen.run("Who?", SIDES, GENERATION)
    plain = engine.jobs[-1]
    engine.finish_load()
    screen.take_as_message(Conversation("Be brief."))
    assert plain in engine.cancelled
    assert engine.run.prompt == "Who?"
    assert engine.run.conversation == Conversation("Be brief.")
    engine.report(Progress("answers", 0, 1), plain)
    assert not is_started(screen)
    engine.begin()
    assert is_started(screen)
    # A run that is under way stays what it is.
    screen.take_as_message(Conversation())
    assert engine.run.conversation == Conversation("Be brief.")


# --- what should be known of a run ---


def test_what_should_be_known_of_a_run_goes_with_the_next(
    screen: SessionModel, engine: FakeEngine
) -> None:
    screen.run("Once", SIDES, GENERATION)
    engine.begin()
    for text in ("The null is small.", "The null is small.", "Another fact."):
        engine.report(Notice(text))
    first = engine.finish()
    seen = [screen.sides.notices]
    screen.run("Twice", SIDES, GENERATION)
    seen.append(screen.sides.notices)
    engine.begin()
    seen.append(screen.sides.notices)
    facts = ("The null is small.", "Another fact.")
    assert seen == [facts, facts, ()]
    engine.report(Notice("A third."))
    engine.finish()
    screen.show_session(first)
    assert screen.sides.notices == ()


def test_of_a_text_unlike_the_nulls_it_is_said_once_all_sides_have_ended(
    screen: SessionModel, engine: FakeEngine
) -> None:
    layers = engine.model.layers
    unlike = Drift(200, 0.4, 0.2, (0.1,) * layers, (0.6,) * layers)
    screen.run("Once", SIDES, GENERATION)
    seen = [screen.sides.drift]
    for said in engine.sides.values():
        said.drift = unlike
    for side in (0, 1):
        engine.token(side, " upon")
    engine.finish_side(0, FinishReason.MAX_NEW_TOKENS)
    seen.append(screen.sides.drift)
    engine.finish_side(1, FinishReason.MAX_NEW_TOKENS)
    seen.append(screen.sides.drift)
    session = engine.finish()
    seen.append(screen.sides.drift)
    words = drift_words(SIDES, (unlike, unlike))
    assert words.headline.startswith("This text is unlike")
    assert seen == [("", ""), ("", ""), words, words]
    screen.run("Twice", SIDES, GENERATION)
    for side in (0, 1):
        engine.token(side, " upon")
    engine.finish()
    assert screen.sides.drift == ("", "")
    screen.show_session(session)
    assert screen.sides.drift == words


def test_no_model_is_exchanged_under_a_run(
    ready: EngineModel, screen: SessionModel, engine: FakeEngine
) -> None:
    screen.run("Once", SIDES, GENERATION)
    settled = [ready.is_settled, ready.is_ready]
    ready.load("/models/other")
    ready.unload()
    ready.save_calibration(Path("/null.npz"))
    assert len(engine.requests) == 2
    engine.begin()
    engine.finish()
    assert [*settled, ready.is_settled, ready.is_ready] == [False, False, True, True]
