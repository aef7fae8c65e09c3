"""Bars of all sides beside each other, a group at each whole number."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QRectF

from bh_studio.engine.rules.sides import MOST_SIDES
from bh_studio.ui.charts.chart import Cell, Chart
from bh_studio.ui.charts.shown import ShownSide
from bh_studio.ui.state.selection import Place
from bh_studio.ui.widgets.side_looks import side_look

_GROUP = 0.84
_NOTHING = np.zeros(1)


class GroupedBars(Chart):
    """Built once; a frame changes heights only. A cell is one bar: its group and its side."""

    def build(self) -> None:
        self._bars = tuple(pg.BarGraphItem(x=[0], height=[0], width=1) for _ in range(MOST_SIDES))
        for bars in self._bars:
            bars.setVisible(False)
            self.plot.addItem(bars)
        self._looks: list[tuple[object, ...]] = [()] * MOST_SIDES

    def heights(self, side: ShownSide) -> np.ndarray:
        """(group,) how high the bars of a side are."""
        raise NotImplementedError

    def top(self) -> float:
        """The highest number on the left axis, the same for all sides."""
        raise NotImplementedError

    @property
    def drawn_heights(self) -> tuple[tuple[float, ...], ...]:
        """(side, group) the bars as drawn."""
        sides = self.shown.written
        return tuple(tuple(map(float, self._bars[side.number].opts["height"])) for side in sides)

    def draw(self) -> None:
        written = self.shown.written
        groups, _ = self.grid()
        self.plot.setRange(xRange=(-0.6, groups - 0.4), yRange=(0, self.top()), padding=0)
        numbers = {side.number for side in written}
        for number, bars in enumerate(self._bars):
            bars.setVisible(number in numbers)
        for place, side in enumerate(written):
            bars = self._bars[side.number]
            self._paint(side)
            x = np.arange(groups) + self.offset(place)
            bars.setOpts(x=x, height=self.heights(side), width=self._width)

    def grid(self) -> Cell:
        raise NotImplementedError

    def cell_at(self, x: float, y: float) -> Cell:
        group = round(x)
        row = int((x - group + _GROUP / 2) / self._width)
        return group, min(max(row, 0), len(self.shown.written) - 1)

    def outline(self, column: int, row: int) -> QRectF:
        return QRectF(column + self.offset(row) - self._width / 2, 0, self._width, self.top())

    def group_outline(self, group: int) -> QRectF:
        """Where a group is in the plot."""
        return QRectF(group - 0.5, 0, 1, self.top())

    def offset(self, row: int) -> float:
        """How far the middle of a bar is from that of its group."""
        return (row + 0.5) * self._width - _GROUP / 2

    def selected_outline(self, place: Place) -> QRectF | None:
        raise NotImplementedError

    def take_theme(self) -> None:
        super().take_theme()
        self._looks = [()] * MOST_SIDES
        if not self.problem:
            self.draw()

    @property
    def _width(self) -> float:
        return _GROUP / max(1, len(self.shown.written))

    def _paint(self, side: ShownSide) -> None:
        # Qt makes a pen and a brush of what it is given each time, and paints all bars again.
        look = (side.is_own, self.theme.colors)
        if look != self._looks[side.number]:
            self._looks[side.number] = look
            paint = side_look(side.number, *look)
            self._bars[side.number].setOpts(brush=paint.brush, pen=pg.mkPen(paint.color))
