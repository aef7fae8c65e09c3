"""The real window on the real engine with the embedded model, for what looks at it from outside."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from PySide6.QtCore import QEvent
from PySide6.QtWidgets import QApplication

from bh_studio.settings import Settings
from bh_studio.ui.engine_thread import Engine
from bh_studio.ui.main_window import MainWindow
from bh_studio.ui.remembered import restore
from bh_studio.ui.state.engine_model import EngineModel
from bh_studio.ui.state.jobs_model import JobsModel
from bh_studio.ui.state.session_model import SessionModel
from bh_studio.ui.widgets.theme import Theme

_PATIENCE_S = 120.0


@contextmanager
def embedded_window(app: QApplication, theme: Theme) -> Iterator[MainWindow]:
    """A window with settings and runs of nobody, once its model is loaded; closed at the end."""
    jobs = JobsModel()
    engine_model = EngineModel(jobs)
    with theme.put_on_at_end():
        window = MainWindow(engine_model, SessionModel(engine_model), theme, Settings())
    restore(window, Settings())
    window.show()
    engine = Engine(None)
    engine.reported.connect(jobs.apply)
    engine.start()
    jobs.attach(engine)
    engine_model.load("embedded")
    until(app, lambda: engine_model.is_ready)
    yield window
    jobs.attach(None)
    engine.shutdown()
    window.close()
    window.deleteLater()
    app.sendPostedEvents(None, QEvent.Type.DeferredDelete)


def until(app: QApplication, is_done: Callable[[], bool]) -> None:
    """Let the window work until `is_done`. Raises TimeoutError after two minutes."""
    end = time.monotonic() + _PATIENCE_S
    while not is_done():
        if time.monotonic() > end:
            raise TimeoutError("The window did not come to that.")
        app.processEvents()
        # Not to take Python from the engine's thread.
        time.sleep(0.0002)
