"""A number a token, as lines from left to right, all sides over each other."""

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

# Half of what stands for a line of one token.
_DASH = 0.3
_LEAST_TOKENS = 16


class TokenLines(Chart):
    """A cell is one token of one side. A subclass fills in what the numbers are.

    unit: of the numbers, if they need one.
    """

    bottom_name = "Token"
    unit = ""

    def build(self) -> None:
        self._lines = tuple(pg.PlotCurveItem() for _ in range(MOST_SIDES))
        for line in self._lines:
            self.plot.addItem(line)
        self._looks: list[tuple[object, ...]] = [()] * MOST_SIDES

    # --- what a subclass fills in ---

    def values_of(self, side: ShownSide) -> np.ndarray | None:
        """(token,) the numbers of a side; None where they are not known."""
        raise NotImplementedError

    def missing(self) -> str:
        """Why there is nothing to draw where sides have tokens, a sentence."""
        raise NotImplementedError

    def length(self) -> int:
        """Tokens that there is to be room for."""
        return max(side.most_tokens for side in self.known)

    def span(self) -> tuple[float, float]:
        """The lower and the upper end of what is drawn."""
        raise NotImplementedError

    def number_words(self, side: ShownSide, token: int) -> str:
        """The number of a side at a token, without its unit."""
        raise NotImplementedError

    def columns_of(self, side: ShownSide) -> tuple[tuple[str, np.ndarray], ...]:
        """What the table has of a side: names and (token,) numbers."""
        raise NotImplementedError

    # --- what a chart is ---

    def obstacle(self) -> str:
        if not self.shown.written:
            return self.meaning
        return "" if self.known else self.missing()

    @property
    def known(self) -> tuple[ShownSide, ...]:
        """The sides of which the numbers are known."""
        return tuple(side for side in self.shown.written if self.values_of(side) is not None)

    @property
    def overlaid(self) -> tuple[ShownSide, ...]:
        return self.known

    def draw(self) -> None:
        known = self.known
        self.axis("bottom").count_from(self.shown.first_number)
        tokens = max(self.length(), _LEAST_TOKENS)
        self.plot.setRange(xRange=(-0.5, tokens - 0.5), yRange=self.span(), padding=0.02)
        numbers = {side.number for side in known}
        for number, line in enumerate(self._lines):
            line.setVisible(number in numbers)
        for side in known:
            line = self._lines[side.number]
            look = (side.is_own, self.theme.colors)
            if look != self._looks[side.number]:
                self._looks[side.number] = look
                line.setPen(side_look(side.number, *look).pen())
            values = self.drawn(side)
            # A line of one point would have no pixel.
            places = np.arange(len(values)) if len(values) > 1 else np.array([-_DASH, _DASH])
            line.setData(places, values if len(values) > 1 else values.repeat(2))

    def drawn(self, side: ShownSide) -> np.ndarray:
        """(token,) the numbers of a side that is known."""
        values = self.values_of(side)
        assert values is not None
        return values

    @property
    def drawn_values(self) -> tuple[tuple[float, ...], ...]:
        """(side, token) the lines as drawn."""
        return tuple(
            tuple(self._lines[side.number].yData[: len(self.drawn(side))].tolist())
            for side in self.known
        )

    def grid(self) -> Cell:
        known = self.known
        return max(len(self.drawn(side)) for side in known), len(known)

    def cell_at(self, x: float, y: float) -> Cell:
        token = round(x)
        reach = [
            abs(values[token] - y) if 0 <= token < len(values) else math.inf
            for values in map(self.drawn, self.known)
        ]
        return token, int(np.argmin(reach))

    def outline(self, column: int, row: int) -> QRectF:
        return self._column(column)

    def describe(self, column: int, row: int) -> str:
        """The numbers of all sides at a token."""
        sides = [side for side in self.known if column < len(self.drawn(side))]
        texts = [f"“{visible(side.texts[column], mark_newlines=True)}”" for side in sides]
        parts = [f"{side.name} {self.number_words(side, column)}" for side in sides]
        unit = f" {self.unit}" if self.unit else ""
        if len(set(texts)) == 1:
            # Once, and last: it is what may be cut off.
            told = f"{', '.join(parts)}{unit} {texts[0]}"
        else:
            pairs = zip(parts, texts, strict=True)
            told = ", ".join(f"{part}{unit} {text}" for part, text in pairs)
        return f"Token {self.shown.first_number + column}: {told}"

    def choose(self, column: int, row: int) -> None:
        side = self.known[row]
        if column < side.tokens:
            self.selection.select(side.number, column)

    def selected_outline(self, place: Place) -> QRectF | None:
        tokens, _ = self.grid()
        return self._column(place.token) if 0 <= place.token < tokens else None

    def numbers(self) -> Numbers:
        columns = [(side, *column) for side in self.known for column in self.columns_of(side)]
        values = np.full((max(len(column) for *_, column in columns), len(columns)), np.nan)
        for place, (_, _, column) in enumerate(columns):
            values[: len(column), place] = column
        names = tuple(f"{side.name} {what}" for side, what, _ in columns)
        first = self.shown.first_number
        return Numbers(("Token",), names, values, lambda token: (first + token,))

    def take_theme(self) -> None:
        super().take_theme()
        self._looks = [()] * MOST_SIDES
        if not self.problem:
            self.draw()

    def _column(self, token: int) -> QRectF:
        low, high = self.span()
        return QRectF(token - 0.5, low, 1, high - low)
