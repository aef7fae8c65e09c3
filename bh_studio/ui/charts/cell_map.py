"""A picture of cells with fixed levels, changed in place, and the legend of its colours."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QWidget

from bh_studio.ui.charts.chart import Chart

# A picture that is less wide than so many legends keeps the room for itself.
_TIMES_LEGEND = 3.5


class CellMap(Chart):
    """A subclass gives the cells, the table of their colours and the legend."""

    is_of_one_side = True

    def build(self) -> None:
        self._image = pg.ImageItem(axisOrder="col-major")
        self.plot.addItem(self._image)
        self.legend = self.new_legend()
        self.beside.addWidget(self.legend)

    def new_legend(self) -> QWidget:
        """What says what the colours mean."""
        raise NotImplementedError

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        # What it says is in the read-out too.
        self.legend.setVisible(self.width() >= _TIMES_LEGEND * self.legend.sizeHint().width())

    @property
    def shown_cells(self) -> np.ndarray:
        """(column, row) as drawn."""
        return np.asarray(self._image.image)

    def paint_cells(self, cells: np.ndarray) -> None:
        """Draw `cells`, (column, row) uint8, each the number of a colour."""
        self._image.setImage(cells, autoLevels=False, levels=(0, 255))
        self._image.setPos(-0.5, -0.5)

    def take_colors(self, table: np.ndarray) -> None:
        """Draw with `table`, (256, 4) uint8 RGBA, from now on."""
        self._image.setLookupTable(table)
