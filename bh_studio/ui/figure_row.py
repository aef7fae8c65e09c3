"""Named numbers in columns, on as many lines as the width asks for."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QEvent
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QGridLayout, QSizePolicy, QWidget

from bh_studio.ui.theme import GAP, GAP_TINY


class FigureRow(QWidget):
    """Breaks its figures into lines instead of forcing the window to be wide."""

    def __init__(self, figures: Sequence[QWidget], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._figures = list(figures)
        self._columns = 0
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(GAP)
        self._grid.setVerticalSpacing(GAP_TINY)
        # The width decides the lines, so the lines must not decide the width.
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._arrange(len(self._figures))

    @property
    def columns(self) -> int:
        """Figures on a line now."""
        return self._columns

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() is QEvent.Type.FontChange:
            self._fit()

    def event(self, event: QEvent) -> bool:
        # A figure's text may have become wider or narrower.
        if event.type() is QEvent.Type.LayoutRequest:
            self._fit()
        return super().event(event)

    def _fit(self) -> None:
        count = len(self._figures)
        for lines in range(1, count + 1):
            columns = -(-count // lines)
            if lines == count or self._needed_width(columns) <= self.width():
                self._arrange(columns)
                return

    def _needed_width(self, columns: int) -> int:
        widths = [figure.sizeHint().width() for figure in self._figures]
        widest = [max(widths[column::columns]) for column in range(columns)]
        return sum(widest) + GAP * (columns - 1)

    def _arrange(self, columns: int) -> None:
        if columns == self._columns:
            return
        for column in range(len(self._figures)):
            self._grid.setColumnStretch(column, 1 if column < columns else 0)
        for number, figure in enumerate(self._figures):
            self._grid.addWidget(figure, number // columns, number % columns)
        self._columns = columns
        self._grid.invalidate()
        self.updateGeometry()
