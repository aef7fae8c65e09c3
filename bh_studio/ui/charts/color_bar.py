"""A strip of colours with numbers beside it: what the colours of a picture mean."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QLinearGradient, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from bh_studio.ui.widgets.theme import GAP_TINY, Theme

_STRIP = 12
_LENGTH = 220
_STOPS = 24

# Where on the strip, from 0 to 1, and what is written there.
Mark = tuple[float, str]


class ColorBar(QWidget):
    """A subclass says which colours and which marks. caption: what is above an upright strip."""

    def __init__(
        self,
        theme: Theme,
        caption: str,
        orientation: Qt.Orientation = Qt.Orientation.Vertical,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.theme = theme
        self._caption = caption
        self._vertical = orientation is Qt.Orientation.Vertical
        fixed, free = QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Expanding
        self.setSizePolicy(fixed, free if self._vertical else fixed)
        theme.changed.connect(self.updateGeometry)
        theme.changed.connect(self.update)

    def color_at(self, place: float) -> QColor:
        """The colour at a place of the strip, from 0 to 1."""
        raise NotImplementedError

    def marks_for(self, at_most: int) -> Sequence[Mark]:
        """What is written beside the strip, at most so many."""
        raise NotImplementedError

    def widest(self) -> str:
        """The longest that is written beside the strip."""
        return "64"

    def sizeHint(self) -> QSize:
        metrics = self.fontMetrics()
        if self._vertical:
            beside = _STRIP + GAP_TINY + metrics.horizontalAdvance(self.widest())
            return QSize(max(metrics.horizontalAdvance(self._caption), beside) + 2, 90)
        return QSize(_LENGTH, _STRIP + metrics.height() + 2)

    def minimumSizeHint(self) -> QSize:
        hint = self.sizeHint()
        return QSize(hint.width(), 2 * self.fontMetrics().height()) if self._vertical else hint

    def paintEvent(self, _event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        strip = self._strip()
        gradient = QLinearGradient(
            *(
                (strip.bottomLeft(), strip.topLeft())
                if self._vertical
                else (strip.topLeft(), strip.topRight())
            )
        )
        for stop in range(_STOPS + 1):
            gradient.setColorAt(stop / _STOPS, self.color_at(stop / _STOPS))
        colors = self.theme.colors
        painter.setPen(colors.line)
        painter.setBrush(gradient)
        painter.drawRoundedRect(strip, 3, 3)
        painter.setPen(colors.muted)
        if self._vertical:
            painter.drawText(QPointF(0.5, self.fontMetrics().ascent()), self._caption)
        for place, text in self.fitting_marks():
            self._write(painter, strip, place, text)

    def fitting_marks(self) -> Sequence[Mark]:
        """What is written beside the strip, as much as there is room for."""
        metrics, strip = self.fontMetrics(), self._strip()
        if self._vertical:
            fitting = strip.height() / (metrics.height() * 0.9)
        else:
            fitting = strip.width() / (metrics.horizontalAdvance(self.widest()) * 1.5)
        marks = sorted(self.marks_for(max(2, min(9, int(fitting) + 1))))
        kept = [*marks[:1], *marks[-1:]]
        for mark in marks[1:-1]:
            if min(abs(mark[0] - other[0]) for other in kept) * fitting >= 1:
                kept.append(mark)
        return sorted(kept)

    def _strip(self) -> QRectF:
        metrics = self.fontMetrics()
        if self._vertical:
            half = metrics.height() / 2
            caption = metrics.height()
            return QRectF(0.5, caption + half, _STRIP, self.height() - caption - 2 * half - 1)
        half = metrics.horizontalAdvance(self.widest()) / 2
        return QRectF(half, 0.5, self.width() - 2 * half - 1, _STRIP)

    def _write(self, painter: QPainter, strip: QRectF, place: float, text: str) -> None:
        metrics = self.fontMetrics()
        if self._vertical:
            y = strip.bottom() - place * strip.height()
            at = QPointF(strip.right() + GAP_TINY, y + metrics.ascent() / 2 - 1)
        else:
            x = strip.left() + place * strip.width()
            at = QPointF(
                x - metrics.horizontalAdvance(text) / 2, strip.bottom() + 1 + metrics.ascent()
            )
        painter.drawText(at, text)
