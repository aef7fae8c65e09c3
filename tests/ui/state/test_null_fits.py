"""What charts of nulls are told: asked once, when somebody looks, and again where it failed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from bh_studio.engine.errors import InputError
from bh_studio.engine.execution import recorded_routing
from bh_studio.engine.protocol.requests import JudgeSessionNull, LoadModel
from bh_studio.engine.records.diagnostics import NullFit
from bh_studio.engine.records.recording import RecordedLogits
from bh_studio.engine.rules import RuleParameters, parse_rule
from bh_studio.ui.charts.heat_map import HeatMap
from bh_studio.ui.charts.null.null_map import NullMap
from bh_studio.ui.charts.null.null_quantiles import NullQuantiles
from bh_studio.ui.state.engine_model import EngineModel
from bh_studio.ui.state.inspection.null_fits import NullFits
from bh_studio.ui.state.jobs_model import JobsModel
from tests.fake_engine import MODEL, FakeEngine
from tests.ui.charts.null_fits import fit_of, recording
from tests.ui.conftest import Desk

BH = RuleParameters()
STRICT = RuleParameters(level=0.01)
WAITING = "The null is being judged…"


@pytest.fixture
def _is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recording of the fake engine's model is on this machine."""

    def found(*_: object) -> RecordedLogits:
        return recording().arrays

    monkeypatch.setattr(recorded_routing, "session_recording", found)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def model(engine: FakeEngine) -> Iterator[EngineModel]:
    model = EngineModel(JobsModel())
    engine.reported.connect(model.jobs.apply)
    model.jobs.attach(engine)
    yield model
    model.jobs.attach(None)
    engine.shutdown()


@pytest.fixture
def nulls(model: EngineModel) -> NullFits:
    return NullFits(model)


def asked(engine: FakeEngine) -> list[JudgeSessionNull]:
    return [body for body in engine.files if isinstance(body, JudgeSessionNull)]


@pytest.mark.usefixtures("_is_here")
def test_a_null_is_asked_about_once(nulls: NullFits, engine: FakeEngine, qtbot: QtBot) -> None:
    for _ in range(3):
        assert nulls.of(MODEL, BH) == WAITING
        assert nulls.of(MODEL, STRICT) == WAITING
    assert asked(engine) == []
    with qtbot.waitSignal(nulls.changed):
        pass
    qtbot.waitUntil(lambda: isinstance(nulls.of(MODEL, STRICT), NullFit))
    found = nulls.of(MODEL, BH)
    assert isinstance(found, NullFit)
    assert found.layers == fit_of(BH).layers
    assert [body.rule for body in asked(engine)] == [BH, STRICT]
    assert not engine.has_files_left


def test_what_failed_is_asked_again_when_a_model_is_there(
    nulls: NullFits, model: EngineModel, engine: FakeEngine, qtbot: QtBot,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    nulls.of(MODEL, BH)
    qtbot.waitUntil(lambda: nulls.of(MODEL, BH) != WAITING)
    words = nulls.of(MODEL, BH)
    assert isinstance(words, str)
    assert words.startswith("The null that this session had is not on this machine: nothing is")
    assert "Load that model once" in words
    nulls.of(MODEL, BH)
    monkeypatch.setattr(recorded_routing, "session_recording", lambda *_: recording().arrays)
    with qtbot.waitSignal(nulls.changed):
        model.load_with(LoadModel(calibration=Path("null.npz")))
        engine.finish_load()
    assert nulls.of(MODEL, BH) == WAITING
    qtbot.waitUntil(lambda: isinstance(nulls.of(MODEL, BH), NullFit))
    assert [body.calibration for body in asked(engine)] == [None, Path("null.npz")]
    # A session of another null is not looked for in the file of this one.
    other = dataclasses.replace(MODEL, null_sha256="1" * 64)
    nulls.of(other, BH)
    qtbot.waitUntil(lambda: len(asked(engine)) == 3)
    assert asked(engine)[-1].calibration is None


@pytest.mark.usefixtures("_is_here")
def test_an_engine_that_comes_later_is_asked(
    nulls: NullFits, model: EngineModel, engine: FakeEngine, qtbot: QtBot
) -> None:
    model.jobs.attach(None)
    nulls.of(MODEL, BH)
    qtbot.wait(20)
    assert nulls.of(MODEL, BH) == WAITING
    model.jobs.attach(engine)
    qtbot.waitUntil(lambda: isinstance(nulls.of(MODEL, BH), NullFit))


@pytest.mark.usefixtures("_is_here")
def test_the_window_asks_while_such_a_chart_is_shown(desk: Desk) -> None:
    desk.page.settings_panel.show_sides((None, BH, parse_rule("cut:0.04")))
    desk.finished_run()
    desk.qtbot.wait(20)
    assert asked(desk.engine) == []
    one, other = desk.slots
    one.pick(NullMap)
    other.pick(NullQuantiles)
    assert one.words == other.words == WAITING
    desk.qtbot.waitUntil(lambda: not (one.is_empty or other.is_empty))
    assert len(asked(desk.engine)) == 1
    # Another run with the same rule is of the same null.
    desk.finished_run()
    assert not one.is_empty
    desk.start(rule=STRICT)
    desk.page.clock.flush()
    assert one.words == WAITING
    desk.qtbot.waitUntil(lambda: not one.is_empty)
    assert [body.rule for body in asked(desk.engine)] == [BH, STRICT]
    desk.engine.finish()
    desk.settle()
    one.pick(HeatMap)
    other.hide()
    desk.start(rule=RuleParameters(level=0.2))
    desk.engine.finish()
    desk.settle()
    desk.qtbot.wait(20)
    assert len(asked(desk.engine)) == 2


def test_what_a_model_could_tell_that_came_meanwhile_is_asked_again(
    nulls: NullFits, model: EngineModel, engine: FakeEngine, qtbot: QtBot,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    nulls.of(MODEL, BH)
    # Asked, and not yet answered, when the model comes that brings the null.
    nulls._go_on()
    assert len(asked(engine)) == 1
    model.load_with(LoadModel(calibration=Path("null.npz")))
    engine.finish_load()

    def found(_: object, calibration: Path | None) -> RecordedLogits:
        if calibration is None:
            raise InputError("The null is not here.", "Load that model once.")
        return recording().arrays

    monkeypatch.setattr(recorded_routing, "session_recording", found)
    qtbot.waitUntil(lambda: nulls.of(MODEL, BH) != WAITING)
    assert isinstance(nulls.of(MODEL, BH), NullFit)
