"""Turns many changes into few repaints. Knows no widget and no model."""

from __future__ import annotations

from PySide6.QtCore import QElapsedTimer, QObject, Qt, QTimer, Signal, Slot

FRAME_MS = 33


class FrameClock(QObject):
    """Emits `frame` at most once every `FRAME_MS`, and only after `mark` was called.

    The first change after a pause is shown at once; the timer runs only while a frame is owed.
    """

    frame = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self.flush)
        self._since_frame = QElapsedTimer()
        self._owed = False

    @property
    def is_idle(self) -> bool:
        """Whether no frame is owed and the timer is stopped."""
        return not self._owed and not self._timer.isActive()

    @Slot()
    def mark(self) -> None:
        """Something changed: owe one frame."""
        self._owed = True
        if not self._timer.isActive():
            passed = self._since_frame.elapsed() if self._since_frame.isValid() else FRAME_MS
            self._timer.start(max(0, FRAME_MS - passed))

    @Slot()
    def flush(self) -> None:
        """Paint the owed frame now, if there is one."""
        self._timer.stop()
        if not self._owed:
            return
        self._owed = False
        self._since_frame.restart()
        self.frame.emit()
