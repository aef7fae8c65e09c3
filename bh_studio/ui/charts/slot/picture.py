"""A chart as a picture for elsewhere: its title, what it shows of which sides, the plot."""

from __future__ import annotations

from PySide6.QtCore import QBuffer, QByteArray, QIODevice, QPoint, QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QFontMetricsF, QImage, QImageWriter, QPainter, QRegion
from PySide6.QtSvg import QSvgGenerator
from PySide6.QtWidgets import QWidget

from bh_studio.ui.charts.cell_map import CellMap
from bh_studio.ui.charts.chart import Chart
from bh_studio.ui.charts.shown import ShownSide
from bh_studio.ui.charts.slot.side_key import paint_swatch
from bh_studio.ui.widgets.theme import GAP, GAP_SMALL

# Twice the pixels of the screen, for print.
_SHARPNESS = 2


def image_of(chart: Chart) -> QImage:
    """The picture in pixels."""
    image = QImage(_size(chart) * _SHARPNESS, QImage.Format.Format_RGB32)
    image.setDevicePixelRatio(_SHARPNESS)
    painter = QPainter(image)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    _paint(chart, painter)
    painter.end()
    return image


def png_of(chart: Chart) -> bytes:
    """The picture as a PNG file."""
    buffer = QBuffer()
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    QImageWriter(buffer, QByteArray(b"png")).write(image_of(chart))
    return bytes(buffer.data().data())


def svg_of(chart: Chart) -> bytes:
    """The picture as an SVG file, as lines and letters.

    WORKAROUND: pyqtgraph's own exporter fails with these versions of Qt and Python.
    """
    buffer = QBuffer()
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    size = _size(chart)
    generator = QSvgGenerator()
    generator.setOutputDevice(buffer)
    generator.setSize(size)
    # As many as the screen has: pyqtgraph lays its axes out for that.
    generator.setResolution(chart.logicalDpiX())
    generator.setViewBox(QRectF(QPointF(), size))
    generator.setTitle(chart.title)
    generator.setDescription(chart.hint())
    painter = QPainter(generator)
    _paint(chart, painter)
    painter.end()
    return bytes(buffer.data().data())


def _sides(chart: Chart) -> tuple[ShownSide, ...]:
    return (chart.side,) if chart.is_of_one_side else chart.overlaid


def _line(chart: Chart) -> float:
    return QFontMetricsF(chart.font()).height() * 1.2


def _hint_height(chart: Chart) -> float:
    """Of the hint in full, in as many lines as that takes."""
    width, wrapped = chart.width(), int(Qt.TextFlag.TextWordWrap)
    box = QFontMetricsF(chart.font()).boundingRect(QRectF(0, 0, width, 1e4), wrapped, chart.hint())
    return box.height() + 0.2 * _line(chart)


def _size(chart: Chart) -> QSize:
    head = (1 + len(_sides(chart))) * _line(chart) + _hint_height(chart)
    height = head + chart.plot.height() + 2 * GAP + GAP_SMALL
    return QSize(chart.width() + 2 * GAP, round(height))


def _paint(chart: Chart, painter: QPainter) -> None:
    size, line = _size(chart), _line(chart)
    colors = chart.theme.colors
    painter.fillRect(QRectF(QPointF(), size), colors.surface)
    width, top = size.width() - 2 * GAP, float(GAP)
    elide = QFontMetricsF(chart.font()).elidedText
    font = chart.font()
    font.setBold(True)
    painter.setFont(font)
    painter.setPen(colors.text)
    painter.drawText(QRectF(GAP, top, width, line), chart.title)
    painter.setFont(chart.font())
    top += line
    painter.setPen(colors.muted)
    hint_height = _hint_height(chart)
    wrapped = int(Qt.TextFlag.TextWordWrap)
    painter.drawText(QRectF(GAP, top, width, hint_height), wrapped, chart.hint())
    top += hint_height
    for side in _sides(chart):
        left = GAP + paint_swatch(painter, side, chart.theme, GAP, top + line / 2) + GAP_SMALL
        painter.setPen(colors.text)
        words = elide(
            f"{side.title}: {side.about.routing}", Qt.TextElideMode.ElideRight, width - left
        )
        painter.drawText(QRectF(left, top, width, line), words)
        top += line
    top += GAP_SMALL
    plot = chart.plot
    with chart.unframed():
        plot.render(painter, QRectF(GAP, top, plot.width(), plot.height()), plot.rect())
    if isinstance(chart, CellMap):
        legend = chart.legend
        painter.save()
        painter.translate(GAP + width - legend.width(), top)
        legend.render(painter, QPoint(), QRegion(), QWidget.RenderFlag.DrawChildren)
        painter.restore()
