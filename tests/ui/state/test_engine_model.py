"""Models in the state machine: loading over a model, refusals, unloading, inspecting."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs

from bh_studio.engine.protocol.events import Failed, LoadProgress, LoadRefused, ModelInspected
from bh_studio.engine.protocol.experiments import Comparison
from bh_studio.engine.protocol.requests import InspectModel, LoadModel, UnloadModel
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.ui.state.engine_model import EngineModel, EngineState
from bh_studio.ui.state.jobs_model import JobsModel
from bh_studio.ui.state.models.model_inspection import ModelInspection
from bh_studio.ui.state.session_model import SessionModel
from tests.fake_engine import MODEL, FakeEngine

SIDES, GENERATION = (None, RuleParameters()), GenerationParameters()


def state_of(model: EngineModel) -> EngineState:
    """The state, read anew: a type checker would take an earlier assertion to hold still."""
    return model.state


def loaded_source(model: EngineModel) -> str | None:
    return None if model.loaded is None else model.loaded.source


def test_a_load_can_be_cancelled(model: EngineModel, engine: FakeEngine) -> None:
    model.load("embedded")
    can_cancel = [model.can_cancel_load]
    model.cancel_load()
    can_cancel.append(model.can_cancel_load)
    assert can_cancel == [True, False]
    assert engine.jobs[0] in engine.cancelled
    assert state_of(model) is EngineState.LOADING
    engine.cancel_load()
    assert state_of(model) is EngineState.NO_MODEL
    assert model.model is None


def test_a_failed_load_leaves_no_model(model: EngineModel, engine: FakeEngine) -> None:
    failures: list[Failed] = []
    model.failed.connect(failures.append)
    model.load("nowhere")
    failure = engine.fail("No such folder.")
    assert state_of(model) is EngineState.NO_MODEL
    assert failures == [failure]


def test_the_former_model_stays_until_the_engine_lets_it_go(
    ready: EngineModel, engine: FakeEngine
) -> None:
    ready.load("/models/other")
    assert ready.model == MODEL
    assert loaded_source(ready) == "embedded"
    engine.unload()
    assert loaded_source(ready) is None
    assert state_of(ready) is EngineState.LOADING
    engine.finish_load()
    assert loaded_source(ready) == "/models/other"


@pytest.mark.parametrize("end", ["fail", "cancel_load", "refuse"])
@pytest.mark.parametrize("is_let_go", [False, True])
def test_a_load_that_ends_without_a_model_leaves_what_there_is(
    ready: EngineModel, engine: FakeEngine, end: str, is_let_go: bool
) -> None:
    ready.load("/models/other")
    engine.progress("Reading the weights", 0.5)
    if is_let_go:
        engine.unload()
    getattr(engine, end)()
    assert state_of(ready) is (EngineState.NO_MODEL if is_let_go else EngineState.READY)
    assert (ready.model is None) == is_let_go
    assert ready.loading is None
    assert ready.load_progress is None
    ready.load("embedded")
    assert state_of(ready) is EngineState.LOADING


def test_progress_is_kept_for_who_comes_late(model: EngineModel, engine: FakeEngine) -> None:
    model.load("embedded")
    assert model.load_progress is not None
    engine.progress("Reading the weights", 0.5)
    assert model.load_progress == LoadProgress("Reading the weights", 0.5)


def test_a_refused_load_can_be_insisted_on(model: EngineModel, engine: FakeEngine) -> None:
    refusals: list[LoadRefused] = []
    model.load_refused.connect(refusals.append)
    first = LoadModel("a/b", "cuda:1", "float16", calibration=Path("c.npz"))
    model.load_with(first)
    refused = engine.refuse()
    assert refusals == [refused]
    model.load_anyway(refused)
    second = engine.requests[-1]
    assert isinstance(second, LoadModel)
    assert second == structs.replace(first, load_anyway=True)
    assert len(set(engine.jobs)) == 2
    assert model.can_cancel_load


def test_unloading_passes_through_a_state_of_its_own(
    ready: EngineModel, screen: SessionModel, engine: FakeEngine
) -> None:
    states: list[EngineState] = []
    ready.state_changed.connect(states.append)
    ready.unload()
    ready.unload()
    ready.load("embedded")
    screen.run("Once", SIDES, GENERATION)
    assert [type(request) for request in engine.requests] == [LoadModel, UnloadModel]
    assert not ready.can_cancel_load
    engine.unload()
    assert states == [EngineState.UNLOADING, EngineState.NO_MODEL]
    assert ready.model is None


def test_a_failed_unload_leaves_the_model(ready: EngineModel, engine: FakeEngine) -> None:
    ready.unload()
    engine.fail()
    assert state_of(ready) is EngineState.READY
    assert ready.model == MODEL


def test_a_calibration_is_saved_and_told(ready: EngineModel, engine: FakeEngine) -> None:
    saved: list[Path] = []
    ready.calibration_saved.connect(saved.append)
    ready.save_calibration(Path("/null.npz"))
    assert ready.state is EngineState.READY
    engine.save_calibration()
    assert saved == [Path("/null.npz")]
    assert ready.is_idle


def test_a_calibration_that_fails_is_told_and_changes_nothing(
    ready: EngineModel, engine: FakeEngine
) -> None:
    failures: list[Failed] = []
    ready.failed.connect(failures.append)
    ready.save_calibration(Path("/null.npz"))
    failure = engine.fail("The disk is full.")
    assert failures == [failure]
    assert state_of(ready) is EngineState.READY
    assert ready.is_idle


def test_a_failure_belongs_to_the_job_that_it_names(ready: EngineModel, engine: FakeEngine) -> None:
    failures: list[Failed] = []
    ready.failed.connect(failures.append)
    ready.inspect(InspectModel("a/b"))
    ready.load("/models/other")
    engine.fail("The inspection broke.", engine.jobs[-2])
    assert state_of(ready) is EngineState.LOADING
    assert failures == []
    failure = engine.fail("The load broke.", engine.jobs[-1])
    assert state_of(ready) is EngineState.READY
    assert failures == [failure]


def test_a_question_waits_until_the_engine_is_idle(
    ready: EngineModel, screen: SessionModel, engine: FakeEngine
) -> None:
    inspection = ModelInspection(ready)
    screen.run("Once", SIDES, GENERATION)
    inspection.ask("a/b", "cpu", "auto")
    inspection.ask("a/c", "cpu", "auto")
    assert engine.inspections == []
    engine.begin()
    engine.finish()
    assert [question.source for question in engine.inspections] == ["a/c"]
    answer = engine.answer_inspection()
    assert inspection.answer == answer


def test_answers_to_earlier_questions_are_dropped(ready: EngineModel, engine: FakeEngine) -> None:
    inspection = ModelInspection(ready)
    answers: list[ModelInspected | Failed | None] = []
    inspection.changed.connect(lambda: answers.append(inspection.answer))
    inspection.ask("a/b", "cpu", "auto")
    inspection.ask("a/b", "cpu", "float32")
    assert len(engine.inspections) == 1
    engine.answer_inspection()
    assert [question.dtype for question in engine.inspections] == ["auto", "float32"]
    assert inspection.is_waiting
    answer = engine.answer_inspection()
    assert answers == [None, None, answer]
    inspection.ask("a/b", "cpu", "float32")
    inspection.forget()
    engine.answer_inspection()
    assert inspection.answer is None


def test_a_question_that_fails_is_not_asked_again(ready: EngineModel, engine: FakeEngine) -> None:
    failures: list[Failed] = []
    ready.failed.connect(failures.append)
    inspection = ModelInspection(ready)
    inspection.ask("a/b", "cpu", "auto")
    failure = engine.fail("The inspection broke.")
    assert inspection.answer == failure
    assert failures == []
    assert len(engine.inspections) == 1
    assert ready.is_idle


def test_a_run_may_follow_a_question_at_once(
    ready: EngineModel, screen: SessionModel, engine: FakeEngine
) -> None:
    inspection = ModelInspection(ready)
    inspection.ask("a/b", "cpu", "auto")
    screen.run("Once", SIDES, GENERATION)
    assert isinstance(engine.requests[-1], Comparison)
    answer = engine.answer_inspection()
    assert inspection.answer == answer
    engine.begin()
    engine.finish()
    assert not screen.is_busy


def test_nothing_is_asked_without_a_model_or_an_engine(
    model: EngineModel, engine: FakeEngine
) -> None:
    model.unload()
    model.save_calibration(Path("/null.npz"))
    assert engine.requests == []
    other = EngineModel(JobsModel())
    inspection = ModelInspection(other)
    inspection.ask("a/b", "cpu", "auto")
    other.unload()
    assert inspection.is_waiting
    assert state_of(other) is EngineState.NO_MODEL
