"""How many experts more or fewer than side A another side uses, token by layer."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QBrush, QColor

from bh_studio.ui.charts.drawing.filled_rects import FilledRects
from bh_studio.ui.charts.numbers import Numbers
from bh_studio.ui.charts.shown import ShownSide
from bh_studio.ui.charts.table_legend import TableLegend
from bh_studio.ui.charts.token_map import TokenMap

# From fewer over equally many to more: blue and orange are told apart by every kind of colour
# vision. Equally many is the ground, so that what differs is what is seen.
_FEWER, _MORE = {False: "#0b5394", True: "#6db8ff"}, {False: "#b45309", True: "#ffa94d"}
_MIDDLE = 128
_SHADE = 85


class DifferenceMap(TokenMap):
    """Where both have not read the same any more, the picture is shaded."""

    title = "Difference to A"
    meaning = (
        "A cell will show how many experts more or fewer than side A another side uses for one "
        "token in one layer. It takes two sides."
    )
    first_side = 1

    def build(self) -> None:
        super().build()
        self._shade = FilledRects(outlined=False)
        self._shade.setVisible(False)
        self._border = pg.InfiniteLine(angle=90)
        self._border.setVisible(False)
        for item in (self._shade, self._border):
            self.plot.addItem(item, ignoreBounds=True)
        self._span = 0

    def new_legend(self) -> TableLegend:
        self._legend = TableLegend(self.theme, "Experts")
        return self._legend

    @property
    def first(self) -> ShownSide:
        """Side A, which the other is compared with."""
        return self.shown.sides[0]

    def obstacle(self) -> str:
        return "" if self.tokens() else self.meaning

    def tokens(self) -> int:
        return min(self.first.tokens, self.side.tokens)

    def differences(self) -> np.ndarray:
        """(token, layer) int16, experts of the side less those of A, where both have the token."""
        tokens = self.tokens()
        return np.subtract(self.side.counts[:tokens], self.first.counts[:tokens], dtype=np.int16)

    def same_until(self) -> int:
        """Tokens for which both had read the same.

        The counts of a token are of the position before it: those of the first in which they differ
        are still of the same text.
        """
        if self.first.about.passages != self.side.about.passages:
            return 0
        parting = self.side.parting.token
        return self.tokens() if parting is None else min(parting + 1, self.tokens())

    def draw(self) -> None:
        scale = self.side.about.scale
        span = scale.high - scale.low
        if span != self._span:
            self._span = span
            self._take_span()
        steps = np.rint(self.differences() * ((_MIDDLE - 1) / span))
        self.paint_cells((steps.clip(1 - _MIDDLE, _MIDDLE - 1) + _MIDDLE).astype(np.uint8))
        same, tokens = self.same_until(), self.tokens()
        for item in (self._shade, self._border):
            item.setVisible(same < tokens)
        self._shade.show_rects([QRectF(same - 0.5, -0.5, tokens - same, self.shown.layers)])
        self._border.setValue(same - 0.5)
        super().draw()

    def hint(self) -> str:
        side, same = self.side, self.same_until()
        if self.first.about.passages != side.about.passages:
            words = "each has read other earlier answers, so that the text is never the same"
        elif same < self.tokens():
            words = f"from token {same} on not the same text any more: shaded"
        else:
            words = f"the same text for {same:,} tokens so far"
        return f"{side.title} less {self.first.title}: {words}"

    def describe(self, column: int, row: int) -> str:
        """The numbers of one cell, a token and a layer."""
        one, other = int(self.first.counts[column, row]), int(self.side.counts[column, row])
        is_same = column < self.same_until()
        words = f"“{self.text_of(column)}”" if is_same else "not the same text"
        return (
            f"Layer {row}, token {self.shown.first_number + column}: {_signed(other - one)} "
            f"({self.side.name} {other}, {self.first.name} {one}) {words}"
        )

    def numbers(self) -> Numbers:
        side, same = self.side, self.same_until()
        return Numbers(
            ("Token", "Text", "Same text"),
            tuple(f"Layer {layer}" for layer in range(self.shown.layers)),
            self.differences(),
            lambda token: (
                side.first_number + token,
                side.texts[token],
                "yes" if token < same else "no",
            ),
        )

    def take_theme(self) -> None:
        super().take_theme()
        colors = self.theme.colors
        ink = QColor(colors.text)
        ink.setAlpha(_SHADE)
        self._shade.fill(QBrush(ink, Qt.BrushStyle.BDiagPattern))
        self._border.setPen(pg.mkPen(colors.text, width=1.4, style=Qt.PenStyle.DashLine))
        self._take_span()

    def _take_span(self) -> None:
        if not self._span:
            return
        table = difference_table(self.theme.colors.surface, self.theme.colors.is_dark)
        self.take_colors(table)
        ends = (0.0, _signed(-self._span)), (1.0, _signed(self._span)), (0.5, "0")
        self._legend.show_table(
            table[1:], ends, "Colour of a cell: experts more (+) or fewer (−) than side A"
        )


def difference_table(surface: QColor, is_dark: bool, least: float = 0.15) -> np.ndarray:
    """(256, 4) uint8 RGBA: of 1 to 255 the middle, 128, is no difference.

    least: how strong the smallest difference is, from 0 to 1, so that it stands out of the ground.
    """
    ends = np.array([_rgb(QColor(shades[is_dark])) for shades in (_FEWER, _MORE)])
    place = (np.arange(256) - _MIDDLE) / (_MIDDLE - 1)
    end = np.where(place[:, None] < 0, ends[0], ends[1])
    middle = np.array(_rgb(surface))
    strength = np.where(place == 0, 0, least + (1 - least) * np.abs(place))[:, None].clip(0, 1)
    table = np.full((256, 4), 255, np.uint8)
    table[:, :3] = np.rint(middle + (end - middle) * strength)
    return table


def _rgb(color: QColor) -> tuple[int, int, int]:
    return color.red(), color.green(), color.blue()


def _signed(number: int) -> str:
    if number == 0:
        return "0"
    return f"{'+' if number > 0 else '−'}{abs(number)}"
