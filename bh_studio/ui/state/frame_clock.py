"""Turns many changes into few repaints. Knows no widget and no model."""

from __future__ import annotations

from PySide6.QtCore import QElapsedTimer, QObject, Qt, QTimer, Signal, Slot

FRAME_MS = 33
# What is painted takes its time from the engine, which shares Python with it and often the core:
# at every frame it took a third of its speed, so it takes a few per cent. A text is read while it
# grows; digits that change faster than this cannot be read.
TEXT_MS = 100
FIGURES_MS = 400


class FrameClock(QObject):
    """Emits `frame` at most once every `frame_ms`, and only after `mark` was called; and `figures`
    with every frame that is `figures_ms` after the one before, and with the last.

    The first change after a pause is shown at once; the timer runs only while a frame is owed.
    """

    frame = Signal()
    figures = Signal()

    def __init__(
        self, parent: QObject | None = None, frame_ms: int = FRAME_MS, figures_ms: int = 0
    ) -> None:
        super().__init__(parent)
        self._frame_ms, self._figures_ms = frame_ms, figures_ms
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        self._since_frame, self._since_figures = QElapsedTimer(), QElapsedTimer()
        self._owes_frame = self._owes_figures = False

    @property
    def is_idle(self) -> bool:
        """Whether no frame is owed and the timer is stopped."""
        return not (self._owes_frame or self._owes_figures or self._timer.isActive())

    @Slot()
    def mark(self) -> None:
        """Something changed: owe one frame, and figures."""
        if not self._owes_frame:
            self._owes_frame = self._owes_figures = True
            self._timer.start(_left(self._since_frame, self._frame_ms))

    @Slot()
    def flush(self) -> None:
        """Paint now what is owed."""
        self._timer.stop()
        self._paint(with_figures=True)

    @Slot()
    def _tick(self) -> None:
        self._paint(with_figures=_left(self._since_figures, self._figures_ms) == 0)
        if self._owes_figures and not self._timer.isActive():
            self._timer.start(_left(self._since_figures, self._figures_ms))

    def _paint(self, *, with_figures: bool) -> None:
        if self._owes_frame:
            self._owes_frame = False
            self._since_frame.restart()
            self.frame.emit()
        if self._owes_figures and with_figures:
            self._owes_figures = False
            self._since_figures.restart()
            self.figures.emit()


def _left(since: QElapsedTimer, interval_ms: int) -> int:
    """Milliseconds until `interval_ms` have passed; 0 before the first time."""
    return max(0, interval_ms - since.elapsed()) if since.isValid() else 0
