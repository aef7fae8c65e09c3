"""Rectangles of a plot whose hatching is as wide as it is on the screen, in files too."""

from __future__ import annotations

from collections.abc import Sequence

import pyqtgraph as pg
from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QBrush, QPainter
from PySide6.QtWidgets import QStyleOptionGraphicsItem, QWidget


class FilledRects(pg.GraphicsObject):
    """Drawn in pixels: what is drawn in a plot's numbers has its hatching stretched with it.

    rects: in the plot's numbers. brushes: one for all, or one each.
    """

    def __init__(self, *, outlined: bool) -> None:
        super().__init__()
        self.rects: tuple[QRectF, ...] = ()
        self.brushes: tuple[QBrush, ...] = ()
        self._outlined = outlined
        self._bounds = QRectF()

    def show_rects(self, rects: Sequence[QRectF]) -> None:
        """Draw these from now on."""
        self.prepareGeometryChange()
        self.rects = tuple(rects)
        self._bounds = QRectF()
        for rect in self.rects:
            self._bounds |= rect
        self.update()

    def fill(self, *brushes: QBrush) -> None:
        """Fill them with one brush, or each with its own."""
        if brushes != self.brushes:
            self.brushes = brushes
            self.update()

    def boundingRect(self) -> QRectF:
        return self._bounds

    def paint(
        self,
        painter: QPainter,
        _option: QStyleOptionGraphicsItem,
        _widget: QWidget | None = None,
    ) -> None:
        """Draw them in pixels."""
        place = painter.worldTransform()
        painter.resetTransform()
        painter.setPen(Qt.PenStyle.NoPen)
        brushes = self.brushes * len(self.rects) if len(self.brushes) == 1 else self.brushes
        for rect, brush in zip(self.rects, brushes, strict=False):
            if self._outlined:
                painter.setPen(pg.mkPen(brush.color()))
            painter.setBrush(brush)
            painter.drawRect(place.mapRect(rect))
