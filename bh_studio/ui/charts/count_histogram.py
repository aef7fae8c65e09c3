"""How often a side used no expert, one, two and so on, as bars."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import QRectF

from bh_studio.ui.charts.chart import Cell
from bh_studio.ui.charts.grouped_bars import GroupedBars
from bh_studio.ui.charts.numbers import Numbers
from bh_studio.ui.charts.shown import ShownSide
from bh_studio.ui.state.selection import Place

_HEADROOM = 1.05


class CountHistogram(GroupedBars):
    """In shares, because sides do not have equally many tokens."""

    title = "Histogram of counts"
    meaning = (
        "Bars will show in which share of all tokens and layers each side uses one expert, two, "
        "three and so on."
    )
    bottom_name, left_name = "Experts", "Share, %"

    def _pairs(self, side: ShownSide) -> np.ndarray:
        """(count,) pairs of token and layer, from 0 to the most that the axis has."""
        pairs = np.zeros(self.grid()[0], np.int64)
        histogram = side.statistics.histogram
        pairs[: len(histogram)] = histogram
        return pairs

    def heights(self, side: ShownSide) -> np.ndarray:
        pairs = self._pairs(side)
        return np.asarray(100 * pairs / pairs.sum())

    def top(self) -> float:
        highest = max(
            max(side.statistics.histogram) / sum(side.statistics.histogram)
            for side in self.shown.written
        )
        # In steps, so that it keeps still.
        return min(100.0, 10.0 * np.ceil(10 * highest)) * _HEADROOM

    def grid(self) -> Cell:
        written = self.shown.written
        most = max(len(side.statistics.histogram) for side in written)
        return max(most, self.shown.sides[0].about.scale.high + 1), len(written)

    def hint(self) -> str:
        pairs = ", ".join(
            f"{side.title} {sum(side.statistics.histogram)}" for side in self.shown.written
        )
        return f"Share of the pairs of token and layer: {pairs}"

    def describe(self, column: int, row: int) -> str:
        """The numbers of all sides at a count."""
        parts = []
        for side in self.shown.written:
            pairs = self._pairs(side)
            parts.append(
                f"{side.title} {100 * pairs[column] / pairs.sum():.1f} % "
                f"({pairs[column]} of {pairs.sum()})"
            )
        return f"{column} {'expert' if column == 1 else 'experts'}: {', '.join(parts)}"

    def choose(self, column: int, row: int) -> None:
        """A count is no place in the run: only its side can be looked at."""
        side = self.shown.written[row]
        place = self.selection.place
        self.selection.select(side.number, side.tokens - 1 if place is None else place.token)

    def selected_outline(self, place: Place) -> QRectF | None:
        """The count of what all views look at."""
        side = next((side for side in self.shown.written if side.number == place.side), None)
        if side is None or place.layer is None or not 0 <= place.token < side.tokens:
            return None
        return self.group_outline(int(side.counts[place.token, place.layer]))

    def numbers(self) -> Numbers:
        written = self.shown.written
        values = [column for side in written for column in (self._pairs(side), self.heights(side))]
        names = [f"{side.name} {what}" for side in written for what in ("pairs", "%")]
        return Numbers(("Experts",), tuple(names), np.array(values, np.float64).T)
