"""The engine thread, in which the service does what needs the model, from start to exit.

What needs none the service does in a thread of its own. Of Qt this knows only QtCore. torch and
transformers are imported in the engine thread, so a window can be up before they are.
"""

from __future__ import annotations

import threading
from pathlib import Path

from PySide6.QtCore import QElapsedTimer, QObject, Qt, QThread, QTimer, Signal, Slot

from bh_studio.engine.execution.service import Service
from bh_studio.engine.protocol.events import Report
from bh_studio.engine.protocol.requests import Request

# A third of the time between two repaints of a text.
_TOGETHER_MS = 33


class Engine(QObject):
    """The engine as the GUI thread sees it: requests in, reports out, never a wait.

    reported: every events.Report, in the thread that made this object, each job's in their order.
    What comes soon after another comes together with what follows, so that a token that nobody can
    see yet does not take Python away from the next one. history: folder that keeps every
    comparison; None for none. What has to wait is told within `submit`, before it returns, and so
    is the end of what has not begun within `cancel`.
    """

    reported = Signal(object)
    _filled = Signal()

    def __init__(self, history: Path | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._service = Service(self._take, history)
        self._thread = _EngineThread(self._service)
        # Filled in the threads of the service, emptied in this one.
        self._sorting = threading.Lock()
        self._reports: list[Report] = []
        self._filled.connect(self._plan_delivery, Qt.ConnectionType.QueuedConnection)
        self._since_delivery = QElapsedTimer()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._deliver)

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

    def _take(self, report: Report) -> None:
        if self.thread().isCurrentThread():
            self.reported.emit(report)
            return
        with self._sorting:
            is_first = not self._reports
            self._reports.append(report)
        # The next delivery takes all that has come by then.
        if is_first:
            self._filled.emit()

    @Slot()
    def _plan_delivery(self) -> None:
        passed = self._since_delivery.elapsed() if self._since_delivery.isValid() else _TOGETHER_MS
        self._timer.start(max(0, _TOGETHER_MS - passed))

    @Slot()
    def _deliver(self) -> None:
        self._since_delivery.restart()
        with self._sorting:
            reports, self._reports = self._reports, []
        for report in reports:
            self.reported.emit(report)


class _EngineThread(QThread):
    """Its life is the service's work."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self.setObjectName("engine")
        self._service = service

    def run(self) -> None:
        self._service.work()
