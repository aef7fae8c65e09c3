"""The engine thread, in which the service does what needs the model, from start to exit.

What needs none the service does in a thread of its own. Of Qt this knows only QtCore. torch and
transformers are imported in the engine thread, so a window can be up before they are.
"""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QObject, QThread, Signal

from bh_studio.engine.execution.service import Service
from bh_studio.engine.protocol.requests import Request


class Engine(QObject):
    """The engine as the GUI thread sees it: requests in, reports out, never a wait.

    reported: every events.Report, emitted in the engine thread and in the service's own, at once
    even. To be connected to slots of a QObject alone: Qt delivers in the thread that owns it, each
    thread's reports in their order. history: folder that keeps every comparison; None for none.
    What has to wait is told within `submit`, before it returns,
    and so is the end of what has not begun within `cancel`.
    """

    reported = Signal(object)

    def __init__(self, history: Path | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._service = Service(self.reported.emit, history)
        self._thread = _EngineThread(self._service)

    def start(self) -> None:
        """Start the engine thread."""
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Queue `request`; its reports follow."""
        self._service.submit(request)

    def cancel(self, job: int) -> None:
        """Ask a job to end as soon as it can; one that has ended is no matter."""
        self._service.cancel(job)

    def shutdown(self) -> None:
        """Cancel all jobs but the writing of files, and end both threads; returns when they have.

        What was asked to be written by then is on the disk. The wait is at most one step long
        (a token, the reading of a prompt or of a file, a calibration window, the import of torch)
        and as long as those files take.
        """
        self._service.close()
        self._thread.wait()


class _EngineThread(QThread):
    """Its life is the service's work."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self.setObjectName("engine")
        self._service = service

    def run(self) -> None:
        self._service.work()
