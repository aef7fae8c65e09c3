"""An axis that marks whole numbers, as many as stand apart from each other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pyqtgraph as pg
from PySide6.QtGui import QFont, QFontMetricsF, QGuiApplication

# What a mark takes of an axis, in heights of its letters: beside its width, and in all.
_FREE = 0.6
UPRIGHT = 1.3


class WholeAxis(pg.AxisItem):
    """Takes its marks from the room that the letters of its marks need."""

    def __init__(self, orientation: str) -> None:
        super().__init__(orientation)
        self._first = 0
        # The marks are the values themselves; a name that speaks of thousandths would be wrong.
        self.enableAutoSIPrefix(False)

    def tickValues(self, minVal: float, maxVal: float, size: float) -> list[tuple[int, list[int]]]:  # noqa: N803
        low, high = sorted((minVal + self._first, maxVal + self._first))
        step = self.step(low, high, size)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return [(step, [mark * step - self._first for mark in range(first, last + 1)])]

    def tickStrings(self, values: list[int], scale: float, spacing: float) -> list[str]:
        # A true minus, as the rest of the window writes it.
        numbers = (value + self._first for value in values)
        return [f"{number:d}".replace("-", "\N{MINUS SIGN}") for number in numbers]

    def count_from(self, first: int) -> None:
        """Mark 0 as `first`, and all others so much higher."""
        if first != self._first:
            self._first = first
            self.picture = None
            self.update()

    @property
    def letter_height(self) -> float:
        """Of its marks, in pixels."""
        return self._metrics.height()

    @property
    def _metrics(self) -> QFontMetricsF:
        return QFontMetricsF(self.style["tickFont"] or QFont(QGuiApplication.font()))

    def step(self, low: float, high: float, pixels: float) -> int:
        """What to mark every how many of, from `low` to `high` on so many pixels."""
        height, metrics = self.letter_height, self._metrics
        widest = max(metrics.horizontalAdvance(f"{round(end)}") for end in (low, high))
        is_upright = self.orientation in ("left", "right")
        room = UPRIGHT * height if is_upright else widest + _FREE * height
        marks = max(1.0, pixels / room)
        return next(step for step in _steps() if (high - low) / step <= marks)


def _steps() -> Iterator[int]:
    for power in itertools.count():
        for first in (1, 2, 5):
            yield first * 10**power
