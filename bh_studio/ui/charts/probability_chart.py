"""How probable each token of an answer was when it was chosen, all sides over each other."""

from __future__ import annotations

import math

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QRectF

from bh_studio.engine.rules.sides import MOST_SIDES
from bh_studio.ui.charts.chart import Cell, Chart
from bh_studio.ui.charts.numbers import Numbers
from bh_studio.ui.charts.shown import ShownSide
from bh_studio.ui.state.selection import Place
from bh_studio.ui.widgets.side_looks import side_look
from bh_studio.ui.widgets.visible_text import visible

_LEAST_TOKENS = 16
# The lower end goes down by so many nats at a time, so that it keeps still.
_STEP = 5


class ProbabilityChart(Chart):
    """In nats, before temperature and top-p. A cell is one token of one side."""

    title = "Probability of tokens"
    meaning = (
        "Lines will show how probable each token of the answers was when it was chosen, before "
        "temperature and top-p: 0 is certain."
    )
    bottom_name, left_name = "Token", "Log-probability, nats"

    def build(self) -> None:
        self._lines = tuple(pg.PlotCurveItem() for _ in range(MOST_SIDES))
        for line in self._lines:
            self.plot.addItem(line)
        self._looks: list[tuple[object, ...]] = [()] * MOST_SIDES

    def obstacle(self) -> str:
        written = self.shown.written
        if not written:
            return self.meaning
        return "" if self.known else "How probable the tokens were was not kept of this run."

    @property
    def known(self) -> tuple[ShownSide, ...]:
        """The sides of which the probabilities are kept."""
        return tuple(side for side in self.shown.written if side.choices is not None)

    def draw(self) -> None:
        known = self.known
        tokens = max(max(side.most_tokens for side in known), _LEAST_TOKENS)
        self.plot.setRange(xRange=(-0.5, tokens - 0.5), yRange=(self._bottom(), 0), padding=0.02)
        numbers = {side.number for side in known}
        for number, line in enumerate(self._lines):
            line.setVisible(number in numbers)
        for side in known:
            line = self._lines[side.number]
            look = (side.is_own, self.theme.colors)
            if look != self._looks[side.number]:
                self._looks[side.number] = look
                line.setPen(side_look(side.number, *look).pen())
            values = _values(side)
            line.setData(np.arange(len(values)), values)

    @property
    def drawn_values(self) -> tuple[tuple[float, ...], ...]:
        """(side, token) the lines as drawn."""
        return tuple(tuple(self._lines[side.number].yData.tolist()) for side in self.known)

    def grid(self) -> Cell:
        known = self.known
        return max(len(_values(side)) for side in known), len(known)

    def cell_at(self, x: float, y: float) -> Cell:
        token = round(x)
        known = self.known
        reach = [
            abs(_values(side)[token] - y) if 0 <= token < len(_values(side)) else math.inf
            for side in known
        ]
        return token, int(np.argmin(reach))

    def outline(self, column: int, row: int) -> QRectF:
        return self._column(column)

    def hint(self) -> str:
        means = ", ".join(
            f"{side.name} {np.mean(_values(side), dtype=np.float64):.2f}" for side in self.known
        )
        return f"Mean, nats: {means}"

    def describe(self, column: int, row: int) -> str:
        """The numbers of all sides at a token."""
        parts = []
        for side in self.known:
            if column < len(_values(side)) and side.choices is not None:
                value = float(_values(side)[column])
                rank = int(side.choices.ranks[column])
                text = visible(side.texts[column], mark_newlines=True)
                parts.append(
                    f"{side.name} {math.exp(value):.3f} ({value:.2f}, rank {rank}) “{text}”"
                )
        return f"Token {column}: {', '.join(parts)}"

    def choose(self, column: int, row: int) -> None:
        side = self.known[row]
        if column < side.tokens:
            self.selection.select(side.number, column)

    def selected_outline(self, place: Place) -> QRectF | None:
        tokens = max(side.tokens for side in self.known)
        return self._column(place.token) if 0 <= place.token < tokens else None

    def numbers(self) -> Numbers:
        known = self.known
        rows = max(len(_values(side)) for side in known)
        values = np.full((rows, 2 * len(known)), np.nan)
        for place, side in enumerate(known):
            assert side.choices is not None
            values[: len(_values(side)), 2 * place] = _values(side)
            values[: len(side.choices.ranks), 2 * place + 1] = side.choices.ranks
        names = [f"{side.name} {what}" for side in known for what in ("log-probability", "rank")]
        return Numbers(("Token",), tuple(names), values)

    def take_theme(self) -> None:
        super().take_theme()
        self._looks = [()] * MOST_SIDES
        if not self.problem:
            self.draw()

    def _bottom(self) -> float:
        lowest = min(float(_values(side).min()) for side in self.known)
        return _STEP * min(math.floor(lowest / _STEP), -1)

    def _column(self, token: int) -> QRectF:
        return QRectF(token - 0.5, self._bottom(), 1, -self._bottom())


def _values(side: ShownSide) -> np.ndarray:
    """(token,) log-probabilities of the tokens of a side."""
    assert side.choices is not None
    return side.choices.log_probabilities
