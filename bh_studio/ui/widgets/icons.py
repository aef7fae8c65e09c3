"""The program's own icons, drawn in the colours of the theme."""

from __future__ import annotations

from functools import cache

from PySide6.QtCore import QByteArray, QRectF, Qt
from PySide6.QtGui import QColor, QIcon, QPainter, QPixmap
from PySide6.QtSvg import QSvgRenderer

from bh_studio.paths import resource

_SIZES = (16, 24, 32, 48)


@cache
def _source(name: str) -> str:
    return resource(f"icons/{name}.svg").read_text(encoding="utf-8")


def icon(name: str, color: QColor, disabled: QColor | None = None) -> QIcon:
    """The icon `name`, its lines in `color`, and in `disabled` where the control is disabled."""
    result = QIcon()
    tones = {color.name(): [QIcon.Mode.Normal]}
    tones.setdefault((disabled or color).name(), []).append(QIcon.Mode.Disabled)
    for tone, modes in tones.items():
        renderer = QSvgRenderer(QByteArray(_source(name).replace("currentColor", tone).encode()))
        for size in _SIZES:
            pixmap = QPixmap(size, size)
            pixmap.fill(Qt.GlobalColor.transparent)
            painter = QPainter(pixmap)
            renderer.render(painter, QRectF(0, 0, size, size))
            painter.end()
            for mode in modes:
                result.addPixmap(pixmap, mode)
    return result


def window_icon() -> QIcon:
    """The program's icon."""
    result = QIcon()
    renderer = QSvgRenderer(QByteArray(_source("bh-studio").encode()))
    for size in (16, 32, 48, 64, 128, 256):
        pixmap = QPixmap(size, size)
        pixmap.fill(Qt.GlobalColor.transparent)
        painter = QPainter(pixmap)
        renderer.render(painter, QRectF(0, 0, size, size))
        painter.end()
        result.addPixmap(pixmap)
    return result
