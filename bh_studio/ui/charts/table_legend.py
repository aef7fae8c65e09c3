"""The legend of a picture that is painted with a table of colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QWidget

from bh_studio.ui.charts.color_bar import ColorBar, Mark
from bh_studio.ui.widgets.theme import Theme


class TableLegend(ColorBar):
    """Upright, from the first colour of a table to its last."""

    def __init__(self, theme: Theme, caption: str, parent: QWidget | None = None) -> None:
        super().__init__(theme, caption, parent=parent)
        self._table = np.zeros((1, 4), np.uint8)
        self._marks: tuple[Mark, ...] = ()

    def show_table(self, table: np.ndarray, marks: Sequence[Mark], meaning: str) -> None:
        """Paint `table`, (color, 4) uint8 RGBA, with `marks` beside it: both ends first."""
        self._table, self._marks = table, tuple(marks)
        self.setAccessibleName(f"Colour scale: {meaning}")
        self.setToolTip(meaning)
        self.updateGeometry()
        self.update()

    def color_at(self, place: float) -> QColor:
        return QColor(*self._table[round(place * (len(self._table) - 1))].tolist())

    def marks_for(self, at_most: int) -> tuple[Mark, ...]:
        return self._marks[:at_most]

    def widest(self) -> str:
        return max((text for _, text in self._marks), key=len, default="")
