"""Runs asked for before their turn: behind the load of their model, or another job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot

from bh_studio.engine.protocol.experiments import Calibration, Comparison
from bh_studio.engine.protocol.requests import Body, InspectModel
from bh_studio.engine.protocol.texts import Text
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import Conversation, GenerationParameters
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.settings import Settings
from bh_studio.ui.engine_thread import Engine
from bh_studio.ui.state.engine_model import EngineModel, EngineState
from bh_studio.ui.state.jobs_model import JobsModel
from bh_studio.ui.state.session_model import SessionModel
from bh_studio.ui.state.words import waiting_words
from tests.fake_engine import CHAT_MODEL
from tests.tiny_olmoe import TOP_K, save_tiny_checkpoint
from tests.ui.conftest import Desk
from tests.ui.test_window import enabled, flags

pytestmark = pytest.mark.usefixtures("collected")


def test_a_run_may_be_asked_for_while_the_model_loads(
    make_desk: Callable[..., Desk], qtbot: QtBot
) -> None:
    desk = make_desk(show=True)
    window, page = desk.window, desk.page
    desk.model.load("embedded")
    desk.engine.progress("Reading the weights", 0.25)
    page.prompt.set_prompt("Once")
    qtbot.mouseClick(page.prompt.run_button, Qt.MouseButton.LeftButton)
    waits = "The run begins when the model is loaded."
    assert window.status.stage == f"Reading the weights  ·  {waits}"
    assert window.status.progress_range == (250, 1000)
    desk.engine.progress("Warming up")
    assert window.status.stage == f"Warming up  ·  {waits}"
    assert page.prompt.run_button.toolTip() == waits
    assert enabled(window) == flags("00110000")
    desk.engine.finish_load()
    assert window.status.stage == "Running: the sides take turns, token by token."
    desk.say([" upon"])
    assert desk.second.text.toPlainText() == "Once upon"
    desk.engine.finish()
    assert enabled(window) == flags("11001111")


def test_stop_ends_what_waits_and_then_the_load(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(show=True)
    window, page = desk.window, desk.page
    desk.model.load("embedded")
    page.prompt.set_prompt("Once")
    window.actions_.run.trigger()
    window.actions_.stop.trigger()
    assert not desk.session.is_busy
    assert page.prompt.prompt == "Once"
    assert window.status.stage == "Waiting for the engine"
    assert enabled(window) == flags("11110010")
    window.actions_.stop.trigger()
    assert window.status.stage == "Cancelling the load…"
    assert page.obstacle() == "The load is being cancelled."
    assert enabled(window) == flags("00000010")
    desk.engine.cancel_load()
    desk.engine.end_cancelled(Comparison)
    assert enabled(window) == flags("00000011")
    assert window.errors.failure is None


def test_closing_while_a_run_waits_closes(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(show=True)
    desk.model.load("embedded")
    desk.page.prompt.set_prompt("Once")
    desk.page.start()
    assert desk.session.is_busy
    desk.window.close()
    assert not desk.window.isVisible()


def test_a_load_that_fails_leaves_the_prompt_that_waited(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(show=True)
    desk.model.load("embedded")
    desk.page.prompt.set_prompt("Once")
    desk.page.start()
    load, run = desk.engine.jobs
    failure = desk.engine.fail("The weights are damaged.", load)
    desk.engine.fail("No model is loaded.", run)
    assert desk.window.errors.failure == failure
    assert desk.page.prompt.prompt == "Once"
    assert desk.window.status.stage == "No model is loaded; choose one in the Model menu."


@pytest.mark.parametrize("is_chat", [True, False])
def test_a_prompt_that_waits_for_an_instruct_model_is_what_was_chosen(
    make_desk: Callable[..., Desk], is_chat: bool
) -> None:
    desk = make_desk(Settings(chat=is_chat), show=True, answering=CHAT_MODEL)
    desk.model.load("embedded")
    desk.page.prompt.set_prompt("Who?")
    desk.page.start()
    desk.engine.finish_load()
    assert desk.engine.run.conversation == (Conversation() if is_chat else None)
    desk.say([" fox"])
    assert desk.second.text.toPlainText() == ("You: Who?\n fox" if is_chat else "Who? fox")
    assert desk.page.prompt.prompt == ("" if is_chat else "Who?")


def test_what_a_run_waits_for_is_said(desk: Desk) -> None:
    desk.model.save_calibration(Path("/null.npz"))
    desk.page.prompt.set_prompt("Once")
    desk.page.start()
    desk.engine.wait(desk.engine.jobs[-2])
    assert desk.window.status.stage == "The run begins when the calibration is saved."
    desk.engine.save_calibration()
    assert desk.window.status.stage == "The run begins when the engine is free."
    desk.engine.begin()
    assert desk.window.status.stage == "Running: the sides take turns, token by token."


@pytest.mark.parametrize(
    ("awaited", "words"),
    [
        (InspectModel("a/b"), "the other model has been looked at"),
        (Calibration(texts=(Text("a", "b"),)), "the calibration gives way"),
    ],
)
def test_whatever_a_run_waits_for_has_words(awaited: Body, words: str) -> None:
    assert waiting_words(awaited) == f"The run begins when {words}."


# --- on the real thread ---


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_checkpoint(tmp_path_factory.mktemp("tiny-olmoe")))


@pytest.fixture
def screen(qapp: object) -> Iterator[SessionModel]:
    engine, model = Engine(), EngineModel(JobsModel())
    engine.reported.connect(model.jobs.apply)
    model.jobs.attach(engine)
    engine.start()
    yield SessionModel(model)
    model.jobs.attach(None)
    engine.shutdown()


def ask(screen: SessionModel, prompt: str = "Once upon a time", tokens: int = 8) -> None:
    screen.run(prompt, (None, RuleParameters(max_k=TOP_K)), GenerationParameters(tokens))


def test_the_real_engine_runs_what_waited_for_its_model(
    screen: SessionModel, checkpoint: str, qtbot: QtBot
) -> None:
    screen.engine.load(checkpoint)
    ask(screen)
    with qtbot.waitSignal(screen.run_finished, timeout=60_000) as finished:
        pass
    session: Session = finished.args[0]
    assert len(session.records[1].token_ids) == 8
    assert screen.engine.model is not None
    assert session.model == screen.engine.model


def test_the_real_engine_answers_nothing_when_the_load_fails(
    screen: SessionModel, checkpoint: str, qtbot: QtBot
) -> None:
    engine = screen.engine
    engine.load(checkpoint)
    qtbot.waitUntil(lambda: engine.is_idle, timeout=60_000)
    failures: list[object] = []
    shown: list[object] = []
    engine.failed.connect(failures.append)
    screen.failed.connect(failures.append)
    screen.run_accepted.connect(shown.append)
    # The former model stays, and could answer.
    engine.load("/nowhere")
    ask(screen)
    assert screen.is_busy
    qtbot.waitUntil(lambda: engine.is_idle, timeout=60_000)
    assert engine.state is EngineState.READY
    assert (len(failures), shown, screen.is_busy) == (1, [], False)
    ask(screen)
    qtbot.waitUntil(lambda: screen.session is not None, timeout=60_000)
    assert len(shown) == 1


def test_the_real_engine_passes_over_a_run_that_was_stopped_while_it_waited(
    screen: SessionModel, checkpoint: str, qtbot: QtBot
) -> None:
    shown: list[Comparison] = []
    screen.run_accepted.connect(shown.append)
    screen.engine.load(checkpoint)
    ask(screen, "Once", 200)
    screen.stop()
    ask(screen, "Twice")
    qtbot.waitUntil(lambda: screen.session is not None, timeout=60_000)
    assert [run.prompt for run in shown] == ["Twice"]
    assert screen.engine.is_idle


def test_the_real_engine_refuses_what_does_not_fit_the_model_that_came(
    screen: SessionModel, checkpoint: str, qtbot: QtBot
) -> None:
    screen.engine.load(checkpoint)
    screen.run("Once", (None, RuleParameters(max_k=200)), GenerationParameters(8))
    with qtbot.waitSignal(screen.failed, timeout=60_000) as failed:
        pass
    assert "max_k must not exceed" in failed.args[0].message
    assert not screen.sides.all_runs[0].is_started
