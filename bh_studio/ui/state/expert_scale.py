"""The one colour scale for expert counts: full strength on charts, softened behind text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PySide6.QtGui import QColor

# Viridis at nine evenly spaced places: it rises evenly in lightness, so it also reads without
# colour vision and in print.
_STOPS = np.array(
    [
        (68, 1, 84),
        (71, 44, 122),
        (59, 81, 139),
        (44, 113, 142),
        (33, 144, 141),
        (39, 173, 129),
        (92, 200, 99),
        (170, 220, 50),
        (253, 231, 37),
    ],
    dtype=np.float64,
)
_TINT_STRENGTH_LIGHT = 0.38
_TINT_STRENGTH_DARK = 0.46
# Yellow behind light text needs more of the dark background than purple does.
_TINT_DARK_FADE = 0.14


@dataclass(frozen=True, slots=True)
class ExpertScale:
    """Maps counts from `low` to `high` to colours. Fixed for a run, so that colours keep still."""

    low: int = 1
    high: int = 8

    @classmethod
    def spanning(cls, min_k: int, max_k: int, top_k: int) -> ExpertScale:
        """The scale that holds every count of a run with these limits, the baseline's included."""
        low, high = min(min_k, top_k), max(max_k, top_k)
        return cls(low - 1 if low == high else low, high)

    def position(self, count: float) -> float:
        """Place of `count` on the scale, 0 to 1."""
        return float(np.clip((count - self.low) / (self.high - self.low), 0.0, 1.0))

    def color(self, count: float) -> QColor:
        """Colour of `count` on a chart."""
        return _color(_viridis(self.position(count)))

    def tint(self, count: float, background: QColor) -> QColor:
        """Colour of `count` behind text, mixed into `background` so that it stays readable."""
        return self.tint_at(self.position(count), background)

    def tint_at(self, place: float, background: QColor) -> QColor:
        """Colour behind text at a place of the scale, from 0 to 1."""
        if background.lightnessF() > 0.5:
            strength = _TINT_STRENGTH_LIGHT
        else:
            strength = _TINT_STRENGTH_DARK - _TINT_DARK_FADE * place
        base = np.array([background.red(), background.green(), background.blue()], dtype=float)
        return _color(base + (_viridis(place) - base) * strength)

    def lookup_table(self) -> np.ndarray:
        """(256, 4) uint8 RGBA for counts 0 to 255; count 0, which no token has, is clear."""
        table = np.zeros((256, 4), dtype=np.uint8)
        for count in range(256):
            table[count, :3] = np.round(_viridis(self.position(count)))
        table[1:, 3] = 255
        return table

    def marks(self, at_most: int = 9) -> tuple[int, ...]:
        """Whole counts to write beside the scale: both ends and evenly spaced ones between."""
        span = self.high - self.low
        steps = (1, 2, 4, 5, 8, 10, 16, 20, 32, 64, 128)
        step = next((step for step in steps if span / step <= at_most - 1), span)
        marks = [self.low, *range((self.low // step + 1) * step, self.high, step), self.high]
        if len(marks) > 2 and marks[-1] - marks[-2] < step / 2:
            del marks[-2]
        return tuple(marks)

    def labels(self, at_most: int = 9) -> list[tuple[float, str]]:
        """Places of the marks on the scale, 0 to 1, and what is written there."""
        return [(self.position(count), str(count)) for count in self.marks(at_most)]


def _color(rgb: np.ndarray) -> QColor:
    return QColor(*(round(part) for part in rgb.tolist()))


def _viridis(place: float) -> np.ndarray:
    at = place * (len(_STOPS) - 1)
    left = min(int(at), len(_STOPS) - 2)
    return _STOPS[left] + (_STOPS[left + 1] - _STOPS[left]) * (at - left)
