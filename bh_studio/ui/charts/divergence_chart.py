"""How far each side's predictions are from those of side A, where they have read the same."""

from __future__ import annotations

import math

import numpy as np

from bh_studio.ui.charts.drawing.decimal_axis import DecimalAxis
from bh_studio.ui.charts.shown import ShownSide
from bh_studio.ui.charts.token_lines import TokenLines

# What float32 rounds differently is not drawn as large as the plot.
_LEAST_TOP = 1e-3
_NOT_YET_KNOWN = "When this was frozen, KL to A was not known."


class DivergenceChart(TokenLines):
    """KL(A || side) in nats: of a text that all sides read, or of the shared beginning of their
    answers."""

    title = "KL by position"
    meaning = (
        "Lines will show how far the predictions of each side are from those of side A at each "
        "token: of a text that all sides read (Same text beside the prompt), or of their answers, "
        "up to the first token that is not A's."
    )
    left_name = "KL to A, nats"
    left_axis = DecimalAxis
    unit = "nats"

    def missing(self) -> str:
        if all(side.kl is not None for side in self.shown.written):
            return "No other side has read the text to compare with A."
        wanted = self.shown.written_kl
        # What is not of the run on screen nobody has measured any more.
        obstacle = wanted.want() if wanted is not None and self.is_live else None
        return _NOT_YET_KNOWN if obstacle is None else obstacle.sentence

    def values_of(self, side: ShownSide) -> np.ndarray | None:
        if side.kl is None or not len(side.kl) or side.number == 0:
            return None
        # Of equal predictions it is a little below 0 where it was rounded.
        return side.kl.clip(0)

    def length(self) -> int:
        # The shared beginning of the answers may be a small part of them.
        return max(len(self.drawn(side)) for side in self.known)

    def span(self) -> tuple[float, float]:
        highest = max(float(self.drawn(side).max()) for side in self.known)
        step = 10.0 ** math.floor(math.log10(max(highest, _LEAST_TOP))) / 2
        return 0, step * max(math.ceil(highest / step), 2)

    def hint(self) -> str:
        means = ", ".join(map(self._mean_words, self.known))
        return f"Mean KL to A, nats: {means}"

    def _mean_words(self, side: ShownSide) -> str:
        values = self.drawn(side)
        words = f"{side.name} {values.mean():.4f}"
        return words if len(values) == side.tokens else f"{words} up to token {len(values) - 1}"

    def number_words(self, side: ShownSide, token: int) -> str:
        return f"{self.drawn(side)[token]:.4f}"

    def columns_of(self, side: ShownSide) -> tuple[tuple[str, np.ndarray], ...]:
        return (("KL to A", self.drawn(side)),)
