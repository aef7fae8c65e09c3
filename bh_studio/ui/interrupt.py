"""Ctrl+C in the terminal, and the system's requests to end, close the window. QtCore only."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from types import FrameType

from PySide6.QtCore import QCoreApplication, QObject, QSocketNotifier, Signal, Slot

from bh_studio.signals import ending_signals


class InterruptWatcher(QObject):
    """Ends the event loop with `exit_code` when the process is asked to end, until it is closed.

    exit_code: 128 and the number of the signal, as shells have it; None while none came.
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
        self.exit_code: int | None = None
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._notifier = QSocketNotifier(self._reader.fileno(), QSocketNotifier.Type.Read, self)
        self._notifier.activated.connect(self._wake_up)
        self._former = {
            number: signal.signal(number, self._interrupt) for number in ending_signals()
        }
        self._former_socket = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def close(self) -> None:
        """Leave interrupts to whoever had them before."""
        signal.set_wakeup_fd(self._former_socket)
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._notifier.setEnabled(False)
        self._reader.close()
        self._writer.close()

    @Slot()
    def _wake_up(self) -> None:
        """Take the byte; that Python runs at all is what lets it call the handler."""
        self._reader.recv(64)

    def _interrupt(self, number: int, _frame: FrameType | None) -> None:
        again, self.exit_code = self.exit_code is not None, 128 + number
        if again or self._is_busy is None or not self._is_busy():
            QCoreApplication.exit(self.exit_code)
        else:
            self.interrupted.emit()
