"""Which colour, pattern and line is which side, where several are drawn."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from bh_studio.ui.charts.shown import ShownSide
from bh_studio.ui.widgets.side_looks import side_look
from bh_studio.ui.widgets.theme import GAP_SMALL, GAP_TINY, Theme
from bh_studio.ui.widgets.visible_text import plain_tooltip

_SWATCH = 22


class SideKey(QWidget):
    """A swatch and the letter of each side; its tooltip says what they are."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._sides: tuple[ShownSide, ...] = ()
        self._words = ""
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Preferred)
        theme.changed.connect(self.updateGeometry)
        theme.changed.connect(self.update)

    def show_sides(self, sides: Sequence[ShownSide]) -> None:
        """Name these sides."""
        words = "\n".join(f"{side.title}: {side.about.routing}" for side in sides)
        if words == self._words and len(sides) == len(self._sides):
            return
        self._sides, self._words = tuple(sides), words
        self.setAccessibleName(f"Sides: {words}")
        self.setToolTip(plain_tooltip(words))
        self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        metrics = self.fontMetrics()
        width = sum(
            _SWATCH + GAP_TINY + metrics.horizontalAdvance(side.name) + GAP_SMALL
            for side in self._sides
        )
        return QSize(max(0, width - GAP_SMALL), metrics.height())

    def minimumSizeHint(self) -> QSize:
        return self.sizeHint()

    def paintEvent(self, _event: QPaintEvent) -> None:
        painter = QPainter(self)
        x, height = 0.0, self.height()
        for side in self._sides:
            x += paint_swatch(painter, side, self._theme, x, height / 2) + GAP_TINY
            width = self.fontMetrics().horizontalAdvance(side.name)
            painter.setPen(self._theme.colors.text)
            box = QRectF(x, 0, width + 1, height)
            painter.drawText(box, int(Qt.AlignmentFlag.AlignVCenter), side.name)
            x += width + GAP_SMALL


def paint_swatch(
    painter: QPainter, side: ShownSide, theme: Theme, left: float, middle: float
) -> float:
    """Paint how a side looks, its area over its line, from `left` on; how wide that is."""
    look = side_look(side.number, side.is_own, theme.colors)
    painter.fillRect(QRectF(left, middle - 6, _SWATCH, 7), look.brush)
    painter.setPen(look.pen(2))
    painter.drawLine(QPointF(left, middle + 5), QPointF(left + _SWATCH, middle + 5))
    return _SWATCH
