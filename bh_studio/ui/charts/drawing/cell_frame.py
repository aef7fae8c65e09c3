"""A frame around cells of a plot, seen however small they are and on whatever colour."""

from __future__ import annotations

import pyqtgraph as pg
from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QPainter
from PySide6.QtWidgets import QStyleOptionGraphicsItem, QWidget

# In pixels: the least that it is wide and high, and its line with the border around that.
_LEAST, _LINE, _BORDERED = 9, 2, 4


class CellFrame(pg.GraphicsObject):
    """rect: what it is around, in the plot's numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.rect = QRectF()
        self._ink = self._ground = QColor()
        self.setZValue(10)
        self.setVisible(False)

    def surround(self, rect: QRectF | None) -> None:
        """Be around `rect`, or nowhere."""
        self.setVisible(rect is not None)
        if rect is not None and rect != self.rect:
            self.prepareGeometryChange()
            self.rect = rect
            self.update()

    def take_colors(self, ink: QColor, ground: QColor) -> None:
        """Draw in `ink`, bordered by `ground`."""
        self._ink, self._ground = ink, ground
        self.update()

    def viewTransformChanged(self) -> None:  # noqa: N802 - pyqtgraph's name
        """What it is around is larger or smaller now."""
        self.prepareGeometryChange()
        super().viewTransformChanged()

    def boundingRect(self) -> QRectF:
        width, height = self.pixelWidth() or 0, self.pixelHeight() or 0
        reach = _LEAST + _BORDERED
        return self.rect.adjusted(-reach * width, -reach * height, reach * width, reach * height)

    def paint(
        self,
        painter: QPainter,
        _option: QStyleOptionGraphicsItem,
        _widget: QWidget | None = None,
    ) -> None:
        """Draw it in pixels."""
        seen = painter.worldTransform().mapRect(self.rect)
        more = max(0.0, _LEAST - seen.width()) / 2, max(0.0, _LEAST - seen.height()) / 2
        seen.adjust(-more[0], -more[1], *more)
        painter.resetTransform()
        painter.setBrush(Qt.BrushStyle.NoBrush)
        for color, width in ((self._ground, _BORDERED), (self._ink, _LINE)):
            painter.setPen(pg.mkPen(color, width=width))
            painter.drawRect(seen)
