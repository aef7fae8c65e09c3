"""A colour scale behind text that begins with no colour at all: what is usual stays quiet."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PySide6.QtGui import QColor

# It deepens evenly in lightness, so it also reads without colour vision and in print.
_DEEPEST_LIGHT = QColor("#e07fb0")
_DEEPEST_DARK = QColor("#9c3a72")


@dataclass(frozen=True, slots=True)
class QuietScale:
    """From `low`, which is left plain, to `high`, from where on it is deepest. Fixed for all runs.

    marks: values to write beside it, both ends among them. is_log: equal ratios are equal steps.
    """

    low: float
    high: float
    marks: tuple[float, ...]
    is_log: bool = False

    def position(self, value: float) -> float:
        """Place of `value` on the scale, 0 to 1."""
        if value <= self.low:
            return 0.0
        if value >= self.high:
            return 1.0
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def tint(self, value: float, background: QColor) -> QColor:
        """Colour of `value` behind text, mixed into `background`."""
        return self.tint_at(self.position(value), background)

    def tint_at(self, place: float, background: QColor) -> QColor:
        """Colour at a place of the scale, from 0 to 1."""
        deepest = _DEEPEST_LIGHT if background.lightnessF() > 0.5 else _DEEPEST_DARK
        return QColor(
            round(background.red() + (deepest.red() - background.red()) * place),
            round(background.green() + (deepest.green() - background.green()) * place),
            round(background.blue() + (deepest.blue() - background.blue()) * place),
        )

    def labels(self, at_most: int) -> list[tuple[float, str]]:
        """Places and what is written there: the upper end stands for all beyond it too."""
        chosen = self.marks if len(self.marks) <= at_most else (self.low, self.high)
        return [
            (self.position(mark), f"{mark:,.6g}{'+' if mark == self.high else ''}")
            for mark in chosen
        ]
