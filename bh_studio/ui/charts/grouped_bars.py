"""Bars of all sides beside each other, a group at each whole number."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import QRectF

from bh_studio.engine.rules.sides import MOST_SIDES
from bh_studio.ui.charts.chart import Cell, Chart
from bh_studio.ui.charts.drawing.filled_rects import FilledRects
from bh_studio.ui.charts.shown import ShownSide
from bh_studio.ui.widgets.side_looks import side_look

_GROUP = 0.84


class GroupedBars(Chart):
    """Built once; a frame changes heights only. A cell is one bar: its group and its side."""

    def build(self) -> None:
        self._bars = tuple(FilledRects(outlined=True) for _ in range(MOST_SIDES))
        for bars in self._bars:
            bars.setVisible(False)
            self.plot.addItem(bars)

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
        return tuple(tuple(r.height() for r in self._bars[side.number].rects) for side in sides)

    def draw(self) -> None:
        written = self.shown.written
        groups, _ = self.grid()
        self.plot.setRange(xRange=(-0.6, groups - 0.4), yRange=(0, self.top()), padding=0)
        numbers = {side.number for side in written}
        for number, bars in enumerate(self._bars):
            bars.setVisible(number in numbers)
        for place, side in enumerate(written):
            bars, width = self._bars[side.number], self._width
            bars.fill(side_look(side.number, side.is_own, self.theme.colors).brush)
            left = self.offset(place) - width / 2
            bars.show_rects(
                [
                    QRectF(group + left, 0, width, height)
                    for group, height in enumerate(self.heights(side).tolist())
                ]
            )

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

    def take_theme(self) -> None:
        super().take_theme()
        if not self.problem:
            self.draw()

    @property
    def _width(self) -> float:
        return _GROUP / max(1, len(self.shown.written))
