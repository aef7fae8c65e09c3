"""Ctrl+C in the terminal closes the window. QtCore only."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from types import FrameType

from PySide6.QtCore import QCoreApplication, QObject, QSocketNotifier, Signal, Slot

EXIT_CODE = 130


class InterruptWatcher(QObject):
    """Ends the event loop with EXIT_CODE when the process is interrupted, until it is closed.

    While `is_busy` says so, the first interrupt only emits `interrupted`, for the receiver to end
    in order; the second ends the loop.

    WORKAROUND: Python runs signal handlers between its own instructions, and an idle Qt event loop
    executes none. The signal therefore also writes to a socket, which wakes the loop up.
    """

    interrupted = Signal()

    def __init__(
        self, is_busy: Callable[[], bool] | None = None, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._is_busy = is_busy
        self.was_interrupted = False
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._notifier = QSocketNotifier(self._reader.fileno(), QSocketNotifier.Type.Read, self)
        self._notifier.activated.connect(self._wake_up)
        self._former_handler = signal.signal(signal.SIGINT, self._interrupt)
        self._former_socket = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def close(self) -> None:
        """Leave interrupts to whoever had them before."""
        signal.set_wakeup_fd(self._former_socket)
        signal.signal(signal.SIGINT, self._former_handler)
        self._notifier.setEnabled(False)
        self._reader.close()
        self._writer.close()

    @Slot()
    def _wake_up(self) -> None:
        """Take the byte; that Python runs at all is what lets it call the handler."""
        self._reader.recv(64)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        again, self.was_interrupted = self.was_interrupted, True
        if again or self._is_busy is None or not self._is_busy():
            QCoreApplication.exit(EXIT_CODE)
        else:
            self.interrupted.emit()
