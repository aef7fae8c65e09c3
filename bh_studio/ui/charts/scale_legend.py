"""The legend of the expert scale: a strip of colour with numbers. One widget for both its uses."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QLinearGradient, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from bh_studio.ui.state.expert_scale import ExpertScale
from bh_studio.ui.widgets.theme import GAP_TINY, Theme

_STRIP = 12
_LENGTH = 220
_STOPS = 24
_CAPTION = "Experts"


class ScaleLegend(QWidget):
    """Paints an ExpertScale from its low to its high end, with the counts beside it.

    softened: show the tints used behind text instead of the full colours of the charts.
    """

    def __init__(
        self,
        theme: Theme,
        *,
        softened: bool,
        orientation: Qt.Orientation = Qt.Orientation.Horizontal,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._theme = theme
        self._softened = softened
        self._vertical = orientation is Qt.Orientation.Vertical
        self._scale = ExpertScale()
        fixed, free = QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Expanding
        self.setSizePolicy(fixed, free if self._vertical else fixed)
        self._describe()
        theme.changed.connect(self.updateGeometry)
        theme.changed.connect(self.update)

    @property
    def marks(self) -> tuple[int, ...]:
        """The counts that are written beside the strip, as many as there is room for."""
        metrics = self.fontMetrics()
        if self._vertical:
            fitting = self._strip().height() / (metrics.height() * 0.9)
        else:
            fitting = self._strip().width() / (metrics.horizontalAdvance("64") * 1.5)
        return self._scale.marks(max(2, min(9, int(fitting) + 1)))

    def set_scale(self, scale: ExpertScale) -> None:
        """Show another scale."""
        if scale != self._scale:
            self._scale = scale
            self._describe()
            self.update()

    def sizeHint(self) -> QSize:
        metrics = self.fontMetrics()
        if self._vertical:
            return QSize(metrics.horizontalAdvance(_CAPTION) + 2, 90)
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
        scale, colors = self._scale, self._theme.colors
        for stop in range(_STOPS + 1):
            count = scale.low + (scale.high - scale.low) * stop / _STOPS
            gradient.setColorAt(
                stop / _STOPS,
                scale.tint(count, colors.surface) if self._softened else scale.color(count),
            )
        painter.setPen(colors.line)
        painter.setBrush(gradient)
        painter.drawRoundedRect(strip, 3, 3)
        painter.setPen(colors.muted)
        if self._vertical:
            painter.drawText(QPointF(0.5, self.fontMetrics().ascent()), _CAPTION)
        for count in self.marks:
            self._write(painter, strip, count)

    def _strip(self) -> QRectF:
        metrics = self.fontMetrics()
        if self._vertical:
            half = metrics.height() / 2
            caption = metrics.height()
            return QRectF(0.5, caption + half, _STRIP, self.height() - caption - 2 * half - 1)
        half = metrics.horizontalAdvance("64") / 2
        return QRectF(half, 0.5, self.width() - 2 * half - 1, _STRIP)

    def _write(self, painter: QPainter, strip: QRectF, count: int) -> None:
        place = self._scale.position(count)
        metrics = self.fontMetrics()
        width = metrics.horizontalAdvance(str(count))
        if self._vertical:
            y = strip.bottom() - place * strip.height()
            at = QPointF(strip.right() + GAP_TINY, y + metrics.ascent() / 2 - 1)
        else:
            x = strip.left() + place * strip.width()
            at = QPointF(x - width / 2, strip.bottom() + 1 + metrics.ascent())
        painter.drawText(at, str(count))

    def _describe(self) -> None:
        what = "Background of a token" if self._softened else "Colour of a cell"
        text = (
            f"{what}: {'mean experts over its layers' if self._softened else 'experts used'}, "
            f"from {self._scale.low} to {self._scale.high}"
        )
        self.setAccessibleName("Colour scale of expert counts")
        self.setAccessibleDescription(text)
        self.setToolTip(text + ". The scale keeps still during a run.")
