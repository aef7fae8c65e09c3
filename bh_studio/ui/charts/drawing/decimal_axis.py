"""An upright axis that marks round numbers, whole or not, as many as stand apart."""

from __future__ import annotations

import math

from bh_studio.ui.charts.drawing.whole_axis import UPRIGHT, WholeAxis

_FIRSTS = (1, 2, 5, 10)
_LEAST_SPAN = 1e-12


class DecimalAxis(WholeAxis):
    """Takes its marks from the room that the letters of its marks need."""

    def tickValues(  # type: ignore[override]
        self,
        minVal: float,  # noqa: N803
        maxVal: float,  # noqa: N803
        size: float,
    ) -> list[tuple[float, list[float]]]:
        low, high = sorted((minVal, maxVal))
        step = self.spacing(low, high, size)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return [(step, [mark * step for mark in range(first, last + 1)])]

    def tickStrings(  # type: ignore[override]
        self, values: list[float], scale: float, spacing: float
    ) -> list[str]:
        decimals = max(0, -math.floor(math.log10(spacing) + 1e-9))
        return [f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}") for value in values]

    def spacing(self, low: float, high: float, pixels: float) -> float:
        """From mark to mark, from `low` to `high` on so many pixels."""
        marks = max(1.0, pixels / (UPRIGHT * self.letter_height))
        least = max(high - low, _LEAST_SPAN) / marks
        power = 10.0 ** math.floor(math.log10(least))
        return next(first * power for first in _FIRSTS if first * power >= least)
