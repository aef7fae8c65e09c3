"""How far each side's predictions are from those of side A, token by token of a text they read."""

from __future__ import annotations

import math

import numpy as np

from bh_studio.ui.charts.drawing.decimal_axis import DecimalAxis
from bh_studio.ui.charts.shown import ShownSide
from bh_studio.ui.charts.token_lines import TokenLines

# What float32 rounds differently is not drawn as large as the plot.
_LEAST_TOP = 1e-3


class DivergenceChart(TokenLines):
    """KL(A || side) in nats, where all sides read the same text."""

    title = "KL by position"
    meaning = (
        "Lines will show how far the predictions of each side are from those of side A at each "
        "token of a text that all sides read: choose Same text beside the prompt, and two sides."
    )
    left_name = "KL to A, nats"
    left_axis = DecimalAxis
    unknown = (
        "KL to A is known where two or more sides read the same text: choose Same text beside the "
        "prompt. Here each side wrote its own."
    )

    def obstacle(self) -> str:
        written = self.shown.written
        if written and all(side.kl is not None for side in written) and not self.known:
            return "No other side has read the text to compare with A."
        return super().obstacle()

    def values_of(self, side: ShownSide) -> np.ndarray | None:
        # Of equal predictions it is a little below 0 where it was rounded.
        return None if side.kl is None or side.number == 0 else side.kl.clip(0)

    def span(self) -> tuple[float, float]:
        highest = max(float(self.drawn(side).max()) for side in self.known)
        step = 10.0 ** math.floor(math.log10(max(highest, _LEAST_TOP))) / 2
        return 0, step * max(math.ceil(highest / step), 2)

    def hint(self) -> str:
        means = ", ".join(f"{side.name} {self.drawn(side).mean():.4f}" for side in self.known)
        return f"Mean KL to A, nats: {means}"

    def number_words(self, side: ShownSide, token: int) -> str:
        return f"{self.drawn(side)[token]:.4f} nats"

    def columns_of(self, side: ShownSide) -> tuple[tuple[str, np.ndarray], ...]:
        return (("KL to A", self.drawn(side)),)
