"""How often min_k and max_k, not the rule, decided in each layer of a side."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QBrush

from bh_studio.engine.records.counts import limit_shares
from bh_studio.ui.charts.chart import Cell, Chart
from bh_studio.ui.charts.drawing.filled_rects import FilledRects
from bh_studio.ui.charts.numbers import Numbers
from bh_studio.ui.state.selection import Place

_WIDTH = 0.72
_TOP = 104.0
# Beyond this share, the limit is the rule.
_LOUD = 0.5
_LIMITS = ("min_k", "max_k")


class LimitChart(Chart):
    """Stacks both limits; a bar turns to the alarm colour where its limit decides more than half.

    A cell is one layer and one limit.
    """

    title = "Limits by layer"
    meaning = (
        "Bars will show in which share of the tokens min_k or max_k, not the rule, decides how "
        "many experts run."
    )
    bottom_name, left_name = "Layer", "Share of tokens, %"
    is_of_one_side = True

    def build(self) -> None:
        self._bars = tuple(FilledRects(outlined=True) for _ in _LIMITS)
        for bars in self._bars:
            self.plot.addItem(bars)
        self._half = pg.InfiniteLine(50, angle=0)
        self.plot.addItem(self._half)

    def obstacle(self) -> str:
        side = self.side
        if not side.tokens:
            return self.meaning
        if not side.about.can_be_limited:
            own = "the model's own routing" if side.is_own else "its rule"
            return f"Side {side.name} has no limits: {own} always uses what it says."
        return ""

    @property
    def shares(self) -> tuple[np.ndarray, np.ndarray]:
        """(layer,) each: where min_k and where max_k decided, as drawn."""
        return self._shares

    def draw(self) -> None:
        self._shares = limit_shares(self.side.counts, self.side.raw_counts)
        self.plot.setRange(xRange=(-0.6, self.shown.layers - 0.4), yRange=(0, _TOP), padding=0)
        for limit, bars in enumerate(self._bars):
            bars.show_rects([self.outline(layer, limit) for layer in range(self.shown.layers)])
        self._paint()

    @property
    def loud(self) -> tuple[tuple[bool, ...], ...]:
        """(limit, layer) whether it decides more than half."""
        return tuple(tuple((share > _LOUD).tolist()) for share in self.shares)

    def grid(self) -> Cell:
        return self.shown.layers, len(_LIMITS)

    def cell_at(self, x: float, y: float) -> Cell:
        layer = round(x)
        least, _ = self.shares
        inside = 0 <= layer < len(least)
        return layer, int(inside and y > 100 * least[layer])

    def outline(self, column: int, row: int) -> QRectF:
        shares = self.shares
        under = 100 * shares[0][column] if row else 0.0
        return QRectF(column - _WIDTH / 2, under, _WIDTH, 100 * shares[row][column])

    def hint(self) -> str:
        loud = sum(map(any, zip(*self.loud, strict=True)))
        words = f"a limit decides more than half in {loud} of {self.shown.layers} layers"
        return f"{self.side.title}: {words}"

    def describe(self, column: int, row: int) -> str:
        """The numbers of a layer."""
        least, most = self.shares
        rule = self.side.about.rule
        assert rule is not None
        return (
            f"Layer {column}: min_k {rule.min_k} decided {100 * least[column]:.1f} %, "
            f"max_k {rule.max_k} {100 * most[column]:.1f} % of {self.side.tokens:,} tokens"
        )

    def choose(self, column: int, row: int) -> None:
        place = self.selection.place
        token = self.side.tokens - 1 if place is None else place.token
        self.selection.select(self.side.number, token, column)

    def selected_outline(self, place: Place) -> QRectF | None:
        return None if place.layer is None else QRectF(place.layer - 0.5, 0, 1, _TOP)

    def numbers(self) -> Numbers:
        names = tuple(f"{self.side.name} {limit}" for limit in _LIMITS)
        return Numbers(("Layer",), names, np.array(self.shares).T)

    def take_theme(self) -> None:
        super().take_theme()
        colors = self.theme.colors
        self._half.setPen(pg.mkPen(colors.muted, style=Qt.PenStyle.DashLine))
        if not self.problem:
            self._paint()

    def _paint(self) -> None:
        colors = self.theme.colors
        patterns = Qt.BrushStyle.SolidPattern, Qt.BrushStyle.BDiagPattern
        for bars, pattern, loud in zip(self._bars, patterns, self.loud, strict=True):
            inks = [colors.alarm if is_loud else colors.accent for is_loud in loud]
            bars.fill(*(QBrush(ink, pattern) for ink in inks))
