"""The program as the command line starts it, on a fake engine."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import QEvent, QObject, QTimer
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from bh_studio import paths
from bh_studio.app import UncaughtErrors, WindowOptions, run_window
from bh_studio.engine.hub.source import HubSource
from bh_studio.engine.protocol.events import Failed, LoadRefused, Report
from bh_studio.engine.protocol.requests import FindCutOff, LoadModel, ReadSession
from bh_studio.engine.reading import Result, read
from bh_studio.engine.records.runs.reader import load_run
from bh_studio.engine.records.session_file import load_session
from bh_studio.engine.records.terms import FinishReason
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.settings import Settings, load_settings, save_settings, settings_path
from bh_studio.ui.main_window import MainWindow
from tests.fake_download import FakeHub
from tests.fake_engine import FakeEngine
from tests.ui.conftest import Desk


def kept_folder() -> Path:
    """The folder of the one run that is kept."""
    (folder,) = paths.history_dir().glob("*/*/*")
    return folder


WORDS = [f" word{number}" for number in range(30)]


@pytest.fixture
def engine(qapp: QApplication) -> FakeEngine:
    engine = FakeEngine()
    engine.history = paths.history_dir()
    engine.loads_at_once = True
    engine.script = {0: WORDS, 1: WORDS}
    return engine


@pytest.fixture(autouse=True)
def _restore_look(qapp: QApplication) -> object:
    font = qapp.font()
    yield
    qapp.setStyleSheet("")
    qapp.setFont(font)


def window() -> MainWindow:
    widgets = QApplication.topLevelWidgets()
    return next(widget for widget in widgets if isinstance(widget, MainWindow))


def when(is_time: Callable[[], bool], act: Callable[[], None]) -> QTimer:
    """Have `act` called once, as soon as it is time, however busy the machine is."""
    timer = QTimer()

    def look() -> None:
        if is_time():
            timer.stop()
            act()

    timer.timeout.connect(look)
    timer.start(20)
    return timer


def test_run_save_screenshot_quit(engine: FakeEngine, tmp_path: Path) -> None:
    options = WindowOptions(
        prompt="Once",
        run=True,
        save=tmp_path / "run.bhsession",
        screenshot=tmp_path / "shots" / "window.png",
        quit=True,
        rules=[{"level": 0.01, "max_k": 6}],
        generation={"max_new_tokens": 20},
        color_scheme="dark",
        size=(1280, 800),
    )
    assert run_window(options, lambda: engine) == 0
    assert engine.is_started
    assert engine.is_shut_down
    session = load_session(tmp_path / "run.bhsession")
    assert session.prompt == "Once"
    assert session.sides == (None, RuleParameters(level=0.01, max_k=6))
    assert len(session.records[1].token_ids) == 20
    picture = QImage(str(tmp_path / "shots" / "window.png"))
    assert (picture.width(), picture.height()) == (1280, 800)


def test_a_prompt_is_answered_although_texts_were_read_last(
    engine: FakeEngine, tmp_path: Path
) -> None:
    save_settings(Settings(same_text=True))
    path = tmp_path / "run.bhsession"
    options = WindowOptions(prompt="Once", run=True, save=path, quit=True)
    assert run_window(options, lambda: engine) == 0
    assert load_session(path).prompt == "Once"


def test_the_text_that_is_remembered_is_read_and_saved(engine: FakeEngine, tmp_path: Path) -> None:
    save_settings(Settings(prompt="Once upon a time", same_text=True))
    path = tmp_path / "text.json"
    assert run_window(WindowOptions(run=True, save=path, quit=True), lambda: engine) == 0
    result = read(path)
    assert isinstance(result, Result)
    assert result.kind == "same-text"


def test_a_failed_run_exits_with_1(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    engine.run_failure = Failed("Out of memory.", "Close other programs.", "trace")
    options = WindowOptions(prompt="Once", run=True, quit=True)
    assert run_window(options, lambda: engine) == 1
    assert capsys.readouterr().err == "Out of memory. Close other programs.\n"


def test_a_failed_load_exits_with_1(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    engine.load_failure = Failed("No such folder.", "", "trace")
    assert run_window(WindowOptions(model="nowhere", quit=True), lambda: engine) == 1
    assert "No such folder." in capsys.readouterr().err


def test_a_refused_load_exits_with_1(
    engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.load_failure = LoadRefused(LoadModel("a/b"), "Too large.", "Use --load-anyway.", ())
    assert run_window(WindowOptions(model="a/b", quit=True), lambda: engine) == 1
    assert capsys.readouterr().err == "Too large. Use --load-anyway.\n"


def test_the_first_load_is_the_one_asked_for(engine: FakeEngine, tmp_path: Path) -> None:
    options = WindowOptions(
        model="a/b",
        device="cuda:1",
        dtype="float16",
        load_anyway=True,
        calibration=tmp_path / "null.npz",
        quit=True,
    )
    assert run_window(options, lambda: engine) == 0
    request = engine.requests[0]
    assert isinstance(request, LoadModel)
    assert request == LoadModel(
        "a/b",
        "cuda:1",
        "float16",
        load_anyway=True,
        calibration=tmp_path / "null.npz",
    )


def test_closing_the_window_ends_a_download(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = FakeHub()
    monkeypatch.setattr("bh_studio.ui.state.models.downloads._real_download", hub.make)

    def close_later() -> None:
        window().models.downloads.start(HubSource("a/b"))
        hub.last.progress(1000)
        window().close()

    _timer = when(lambda: engine.is_started, close_later)
    assert run_window(WindowOptions(), lambda: engine) == 0
    assert hub.last.is_over


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (WindowOptions(run=True, quit=True), "Type a prompt first."),
        (WindowOptions(prompt="a", run=True, quit=True, rules=[{"max_k": 65}]), "64 experts"),
        (WindowOptions(prompt="a", quit=True, rules=[{"level": 2.0}]), "alpha must lie"),
        (WindowOptions(quit=True, rules=[{"max_k": 300}]), "max_k 300 became 255"),
    ],
)
def test_what_cannot_be_run_exits_with_1(
    engine: FakeEngine,
    capsys: pytest.CaptureFixture[str],
    options: WindowOptions,
    message: str,
) -> None:
    assert run_window(options, lambda: engine) == 1
    assert message in capsys.readouterr().err


def test_a_picture_of_the_start_window(engine: FakeEngine, tmp_path: Path) -> None:
    options = WindowOptions(screenshot=tmp_path / "start.png", quit=True)
    assert run_window(options, lambda: engine) == 0
    assert not QImage(str(tmp_path / "start.png")).isNull()


def test_a_session_is_opened_at_the_start(
    engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.bhsession"
    first = WindowOptions(prompt="Once", run=True, save=path, quit=True, rules=[{"level": 0.01}])
    assert run_window(first, lambda: engine) == 0
    seen: list[tuple[int, str, RuleParameters | None]] = []

    def look() -> None:
        shown = window()
        panel = shown.compare.settings_panel
        seen.append(
            (
                shown.session.sides.all_runs[1].token_count,
                shown.compare.prompt.prompt,
                panel.sides()[1],
            )
        )

    # What is asked for beside the session goes before what the session says.
    options = WindowOptions(session=path, rules=[{"min_k": 3}], quit=True)
    assert run_window(options, lambda: watched(look)) == 0
    assert seen == [(30, "Once", RuleParameters(level=0.01, min_k=3))]
    bad = WindowOptions(session=tmp_path / "none.bhsession", quit=True)
    assert run_window(bad, lambda: engine) == 1
    assert "none.bhsession could not be opened." in capsys.readouterr().err


def watched(look: Callable[[], None]) -> FakeEngine:
    """An engine that calls `look` when the program ends it."""

    class Watched(FakeEngine):
        def shutdown(self) -> None:
            look()
            super().shutdown()

    engine = Watched()
    engine.loads_at_once = True
    engine.script = {0: WORDS, 1: WORDS}
    return engine


def test_a_run_waits_for_the_session_that_is_opened(engine: FakeEngine, tmp_path: Path) -> None:
    path, again = tmp_path / "run.bhsession", tmp_path / "again.bhsession"
    first = WindowOptions(prompt="Opened", run=True, save=path, quit=True)
    assert run_window(first, lambda: engine) == 0
    second = WindowOptions(session=path, run=True, save=again, quit=True)
    assert run_window(second, lambda: engine) == 0
    assert load_session(again).prompt == "Opened"


def test_a_session_that_cannot_be_saved_exits_with_1(
    engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    options = WindowOptions(
        prompt="Once", run=True, save=tmp_path / "file" / "run.bhsession", quit=True
    )
    assert run_window(options, lambda: engine) == 1
    assert capsys.readouterr().err.startswith("run.bhsession could not be written. ")
    # The run itself is kept.
    assert load_run(kept_folder()).records[1].finish_reason is FinishReason.END_OF_TEXT


def test_what_is_saved_right_before_closing_is_there_and_remembered(
    engine: FakeEngine, tmp_path: Path
) -> None:
    path = tmp_path / "run.bhsession"

    def save_and_close() -> None:
        window().files.save_to(path)
        window().close()
        assert window().isVisible()

    _timer = when(
        lambda: engine.is_started and window().session.session is not None, save_and_close
    )
    assert run_window(WindowOptions(prompt="Once", run=True), lambda: engine) == 0
    assert len(load_session(path).records[1].token_ids) == 30
    assert load_settings().recent_sessions == (str(path),)


def test_an_interrupt_right_after_saving_loses_nothing(engine: FakeEngine, tmp_path: Path) -> None:
    path = tmp_path / "run.bhsession"

    def save_and_interrupt() -> None:
        window().files.save_to(path)
        signal.raise_signal(signal.SIGINT)

    _timer = when(
        lambda: engine.is_started and window().session.session is not None, save_and_interrupt
    )
    assert run_window(WindowOptions(prompt="Once", run=True), lambda: engine) == 128 + signal.SIGINT
    assert len(load_session(path).records[1].token_ids) == 30


def test_the_window_is_visible_before_the_engine_is_made(engine: FakeEngine) -> None:
    visible: list[bool] = []

    def make() -> FakeEngine:
        visible.append(window().isVisible())
        return engine

    assert run_window(WindowOptions(quit=True), make) == 0
    assert visible == [True]


def test_a_window_that_is_closed_as_soon_as_it_is_painted_starts_no_engine(
    engine: FakeEngine, qapp: QApplication
) -> None:
    class EndsWithPaint(QObject):
        def eventFilter(self, watched: QObject, event: QEvent) -> bool:
            if isinstance(watched, MainWindow) and event.type() is QEvent.Type.Paint:
                QApplication.exit(0)
            return False

    ends = EndsWithPaint()
    qapp.installEventFilter(ends)
    assert run_window(WindowOptions(), lambda: engine) == 0
    qapp.removeEventFilter(ends)
    # What is still to be delivered is about a window that is gone.
    QApplication.processEvents()
    assert not engine.is_started


def test_nobody_is_told_what_an_engine_says_that_was_taken_away(desk: Desk) -> None:
    told: list[object] = []
    job = desk.model.jobs.ask(ReadSession(Path("a.bhsession")), told.append)
    desk.model.jobs.attach(None)
    desk.model.jobs.apply(Report(job, Failed("a.bhsession could not be opened.", "", "")))
    assert told == []
    desk.model.jobs.attach(desk.engine)


def test_the_start_window_is_laid_out_as_after_a_change_of_the_theme(engine: FakeEngine) -> None:
    heights: list[int] = []

    def measure() -> None:
        shown = window()
        for change in (lambda: None, shown.theme.enlarge_text, shown.theme.reset_text):
            change()
            QApplication.processEvents()
            heights.append(shown.compare.prompt.editor.height())
        shown.close()

    _timer = when(lambda: engine.is_started, measure)
    assert run_window(WindowOptions(), lambda: engine) == 0
    assert heights[0] == heights[2] < heights[1]


def test_closing_the_window_ends_the_program_and_remembers(engine: FakeEngine) -> None:
    def close_later() -> None:
        window().compare.prompt.set_prompt("Remember me")
        window().close()

    _timer = when(lambda: engine.is_started, close_later)
    assert run_window(WindowOptions(), lambda: engine) == 0
    assert engine.is_shut_down
    assert load_settings().prompt == "Remember me"


def test_what_is_typed_is_on_the_disk_soon_after(engine: FakeEngine) -> None:
    found: list[str] = []

    def look() -> None:
        found.append(load_settings().prompt)
        window().close()

    def write() -> None:
        window().compare.prompt.set_prompt("Not to be lost")

    _writing = when(lambda: engine.is_started, write)
    _looking = when(lambda: load_settings().prompt == "Not to be lost", look)
    assert run_window(WindowOptions(), lambda: engine) == 0
    assert found == ["Not to be lost"]


def test_who_types_on_and_on_loses_no_more_than_a_second(engine: FakeEngine) -> None:
    typing = QTimer()
    typing.timeout.connect(lambda: window().compare.prompt.editor.insertPlainText("a"))
    _start = when(lambda: engine.is_started, lambda: typing.start(50))

    def close() -> None:
        assert typing.isActive()
        typing.stop()
        window().close()

    _looking = when(lambda: "a" in load_settings().prompt, close)
    latest = QTimer()
    latest.setSingleShot(True)
    latest.timeout.connect(lambda: QApplication.exit(3))
    latest.start(20_000)
    assert run_window(WindowOptions(), lambda: engine) == 0


def test_what_another_window_has_set_first_stays_though_no_file_was_there(
    engine: FakeEngine,
) -> None:
    def set_elsewhere() -> None:
        save_settings(Settings(generation={"max_new_tokens": 33}))
        window().compare.prompt.editor.setPlainText("Typed here")
        window().close()

    _waiting = when(lambda: engine.is_started, set_elsewhere)
    run_window(WindowOptions(), lambda: engine)
    kept = load_settings()
    assert kept.prompt == "Typed here"
    assert kept.generation["max_new_tokens"] == 33


def test_unreadable_settings_are_kept_aside_and_told(engine: FakeEngine) -> None:
    settings_path().parent.mkdir(parents=True, exist_ok=True)
    settings_path().write_bytes(b'{"prompt": "torn')
    told: list[str] = []

    def look() -> None:
        failure = window().errors.failure
        told.append(failure.message if failure else "")
        window().close()

    _timer = when(lambda: engine.is_started, look)
    assert run_window(WindowOptions(), lambda: engine) == 0
    (aside,) = settings_path().parent.glob("settings unreadable *.json")
    assert aside.read_bytes() == b'{"prompt": "torn'
    assert told == [
        f"The settings could not be read, so they begin anew. What was there is kept in {aside}."
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_during_a_run_keeps_what_was_written(
    engine: FakeEngine, number: signal.Signals
) -> None:
    engine.interval_ms = 100

    def interrupt() -> None:
        assert window().session.is_busy
        signal.raise_signal(number)

    _timer = when(
        lambda: engine.is_started and bool(window().session.sides.all_runs[1].token_ids), interrupt
    )
    assert run_window(WindowOptions(prompt="Once", run=True), lambda: engine) == 128 + number
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    assert load_run(kept_folder()).records[1].finish_reason is FinishReason.STOPPED


def test_automated_runs_leave_the_settings_alone(engine: FakeEngine) -> None:
    assert run_window(WindowOptions(prompt="Once", quit=True), lambda: engine) == 0
    assert load_settings().prompt == ""


def test_uncaught_exceptions_reach_the_window(
    qtbot: QtBot, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    uncaught = UncaughtErrors()
    uncaught.caught.connect(desk.window.report)
    before: tuple[Callable[..., object], Callable[..., object]]
    before = (sys.excepthook, threading.excepthook)
    uncaught.install()
    try:
        try:
            raise ZeroDivisionError("division by zero")
        except ZeroDivisionError as error:
            sys.excepthook(type(error), error, error.__traceback__)
        failure = desk.window.errors.failure
        assert failure is not None
        assert "division by zero" in failure.message
        assert "ZeroDivisionError" in failure.details

        def fail() -> None:
            raise OSError("in a thread")

        thread = threading.Thread(target=fail)
        with qtbot.waitSignal(uncaught.caught):
            thread.start()
        thread.join()
        qtbot.waitUntil(lambda: "in a thread" in (desk.window.errors.failure or failure).message)
    finally:
        uncaught.uninstall()
    assert (sys.excepthook, threading.excepthook) == before


@pytest.mark.parametrize("is_errand", [False, True])
def test_a_start_looks_for_runs_that_were_cut_off_but_for_an_errand(
    engine: FakeEngine, is_errand: bool
) -> None:
    _timer = when(lambda: engine.is_started and not is_errand, QApplication.quit)
    assert run_window(WindowOptions(quit=is_errand), lambda: engine) == 0
    asked = [body for body in engine.files if isinstance(body, FindCutOff)]
    assert asked == ([] if is_errand else [FindCutOff(paths.history_dir())])
