"""The composition root of the window: builds its parts, connects them, ends them in order."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import pyqtgraph as pg
from PySide6.QtCore import QEvent, QObject, Qt, QTimer, Signal, SignalInstance, Slot
from PySide6.QtWidgets import QApplication

from bh_studio import __version__, paths
from bh_studio.engine.protocol.events import Failed
from bh_studio.engine.protocol.requests import LoadModel
from bh_studio.settings import load_settings
from bh_studio.ui.errand import Errand
from bh_studio.ui.garbage import GarbageCollection
from bh_studio.ui.interrupt import InterruptWatcher
from bh_studio.ui.main_window import MainWindow
from bh_studio.ui.remembered import remember, restore
from bh_studio.ui.settings_keeper import SettingsKeeper
from bh_studio.ui.state.engine_model import EngineModel, EngineState
from bh_studio.ui.state.jobs_model import EnginePort, JobsModel
from bh_studio.ui.state.session_model import SessionModel
from bh_studio.ui.widgets.copied_text import release_copied_text
from bh_studio.ui.widgets.theme import Theme

_log = logging.getLogger(__name__)

# Python's 5 ms let the engine's thread hold up a frame; measured on two cores while both panels
# stream: the worst 1 % of the event loop's pauses fall from 26 to 18 ms.
_SWITCH_INTERVAL_S = 0.0005
_LAUNCH_AFTER_MS = 1500
_SCHEMES = {"light": Qt.ColorScheme.Light, "dark": Qt.ColorScheme.Dark}


@dataclass(frozen=True, slots=True)
class WindowOptions:
    """What the command line asks of the window.

    prompt: put into the editor. run: start as soon as the model is loaded. save: file for the
    session after the run. screenshot: file for a picture of the window, after the run if there is
    one, else when the model is loaded. quit: end after that; the exit code is 1 if anything failed.
    model, device, dtype, load_anyway, calibration: as in requests.LoadModel.
    rules: of each rule the values, by the field names of RuleParameters; a single one of the kind
    that is remembered last leaves what it does not say. own: whether the model's own routing is
    compared with them. generation: values that replace the remembered ones, by the field names of
    GenerationParameters. session: file to open. chat: take the prompt as a message (True) or as
    plain text (False). system: system prompt of a chat.
    history: keep every run. color_scheme: "light" or "dark" instead of the system's. size: width
    and height in pixels.
    """

    prompt: str | None = None
    run: bool = False
    save: Path | None = None
    screenshot: Path | None = None
    quit: bool = False
    model: str = "embedded"
    device: str = "auto"
    dtype: str = "auto"
    load_anyway: bool = False
    calibration: Path | None = None
    rules: Sequence[Mapping[str, Any]] = ()
    own: bool = True
    generation: Mapping[str, Any] = field(default_factory=dict)
    session: Path | None = None
    chat: bool | None = None
    system: str | None = None
    history: bool = True
    color_scheme: str | None = None
    size: tuple[int, int] | None = None


class EngineLike(EnginePort, Protocol):
    """What the window needs of an engine."""

    reported: SignalInstance

    def start(self) -> None: ...
    def shutdown(self) -> None: ...


def run_window(options: WindowOptions, make_engine: Callable[[], EngineLike] | None = None) -> int:
    """Open the window and stay in it until it is closed; the process's exit code."""
    existing = QApplication.instance()
    app = existing if isinstance(existing, QApplication) else QApplication(sys.argv[:1])
    app.setApplicationName("bh-studio")
    app.setApplicationDisplayName("BH Studio")
    app.setApplicationVersion(__version__)
    app.setDesktopFileName("bh-studio")
    pg.setConfigOptions(antialias=True)
    unreadable: list[str] = []
    settings = load_settings(tell=unreadable.append)
    theme = Theme(app, _SCHEMES.get(options.color_scheme or ""), settings.text_percent)
    engine = EngineModel(JobsModel())
    session = SessionModel(engine)
    with theme.put_on_at_end():
        window = MainWindow(engine, session, theme, settings)
    restore(window, settings)
    # With what was left open filled in: what the person has not changed is another window's to say.
    restored = remember(window)
    uncaught = UncaughtErrors()
    uncaught.caught.connect(window.report)
    uncaught.install()
    interrupts = InterruptWatcher(lambda: session.is_busy)
    # Queued: an interrupt may arrive in the middle of any of the window's methods.
    interrupts.interrupted.connect(window.close, Qt.ConnectionType.QueuedConnection)
    garbage = GarbageCollection(lambda: engine.state is EngineState.LOADING)
    garbage.take_over()
    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    errand = Errand(
        window,
        run=options.run,
        save=options.save,
        screenshot=options.screenshot,
        quit_after=options.quit,
        needs_template=bool(options.chat or options.system),
    )
    uncaught.caught.connect(errand.fail)
    if options.size is not None:
        window.resize(*options.size)
    first_load = LoadModel(
        options.model,
        options.device,
        options.dtype,
        load_anyway=options.load_anyway,
        calibration=options.calibration,
    )
    history = paths.history_dir() if options.history else None
    launcher = _Launcher(window, engine, first_load, make_engine or partial(_real_engine, history))
    window.show()
    for sentence in unreadable:
        window.report(Failed(sentence, "", ""))
    errand.prepare(
        options.prompt,
        options.rules,
        options.own,
        options.generation,
        options.session,
        options.chat,
        options.system,
    )
    # An errand says nothing of what a person wants the next time.
    keeper = None
    if not options.quit:
        keeper = SettingsKeeper(window, restored)
        window.kept.look_through()
    try:
        code = app.exec()
        if interrupts.exit_code is not None:
            code = interrupts.exit_code
        if keeper is not None:
            keeper.close()
    finally:
        sys.setswitchinterval(switch_interval)
        interrupts.close()
        uncaught.uninstall()
        window.hide()
        release_copied_text()
        engine.jobs.attach(None)
        window.models.shutdown()
        launcher.shutdown()
        window.deleteLater()
        # Widgets go while the application still lives, in Qt's own order.
        app.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        theme.deleteLater()
        garbage.give_back()
    return code


class UncaughtErrors(QObject):
    """Brings exceptions that nobody caught, in any thread, to the log and to the window."""

    caught = Signal(object)

    def install(self) -> None:
        """Receive uncaught exceptions from now on."""
        self._before = sys.excepthook, threading.excepthook
        sys.excepthook = self._take
        threading.excepthook = self._take_from_thread

    def uninstall(self) -> None:
        """Leave them to whoever had them before."""
        sys.excepthook, threading.excepthook = self._before

    def _take(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            QApplication.exit(130)
            return
        details = "".join(traceback.format_exception(kind, error, trace))
        _log.critical("Uncaught exception\n%s", details)
        self.caught.emit(
            Failed(
                f"The program made a mistake: {str(error) or kind.__name__}.",
                "Your runs are kept. Please report this with its details.",
                details,
            )
        )

    def _take_from_thread(self, arguments: threading.ExceptHookArgs) -> None:
        error = arguments.exc_value or arguments.exc_type()
        self._take(arguments.exc_type, error, arguments.exc_traceback)


class _Launcher(QObject):
    """Starts the engine once the window has been painted, so that the window comes first."""

    def __init__(
        self,
        window: MainWindow,
        engine_model: EngineModel,
        first_load: LoadModel,
        make_engine: Callable[[], EngineLike],
    ) -> None:
        super().__init__(window)
        self._engine_model = engine_model
        self._first_load = first_load
        self._make_engine = make_engine
        self._engine: EngineLike | None = None
        window.installEventFilter(self)
        # A window that starts minimized is never painted.
        self._latest = QTimer(self)
        self._latest.setSingleShot(True)
        self._latest.timeout.connect(self._launch)
        self._latest.start(_LAUNCH_AFTER_MS)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() is QEvent.Type.Paint:
            watched.removeEventFilter(self)
            # By the timer that goes with the window: one that is closed before that starts nothing.
            self._latest.start(0)
        return False

    @Slot()
    def _launch(self) -> None:
        if self._engine is not None:
            return
        self._latest.stop()
        self._engine = self._make_engine()
        self._engine.reported.connect(self._engine_model.jobs.apply)
        self._engine.start()
        self._engine_model.jobs.attach(self._engine)
        self._engine_model.load_with(self._first_load)

    def shutdown(self) -> None:
        """End the engine; returns when its thread has ended."""
        if self._engine is not None:
            # What ends now is of no more concern to a window that is gone.
            self._engine.reported.disconnect(self._engine_model.jobs.apply)
            self._engine.shutdown()


def _real_engine(history: Path | None) -> EngineLike:
    from bh_studio.ui.engine_thread import Engine

    return Engine(history)
