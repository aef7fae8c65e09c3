"""The program's own icons, drawn in the colours of the theme."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, lru_cache

from PySide6.QtCore import QByteArray, QRectF, Qt
from PySide6.QtGui import QColor, QIcon, QPainter, QPixmap
from PySide6.QtSvg import QSvgRenderer

from bh_studio.paths import resource

_SIZES = (16, 24, 32, 48)
_WINDOW_SIZES = (16, 32, 48, 64, 128, 256)


@cache
def _source(name: str) -> str:
    return resource(f"icons/{name}.svg").read_text(encoding="utf-8")


def icon(name: str, color: QColor, disabled: QColor | None = None) -> QIcon:
    """The icon `name`, its lines in `color`, and in `disabled` where the control is disabled."""
    return _icon(name, color.name(), (disabled or color).name())


# Many controls have the same one, and the window is built in one theme at a time.
@lru_cache(maxsize=64)
def _icon(name: str, color: str, disabled: str) -> QIcon:
    result = QIcon()
    for pixmap in _pixmaps(_source(name).replace("currentColor", color), _SIZES):
        result.addPixmap(pixmap, QIcon.Mode.Normal)
        if disabled == color:
            result.addPixmap(pixmap, QIcon.Mode.Disabled)
    if disabled != color:
        for pixmap in _pixmaps(_source(name).replace("currentColor", disabled), _SIZES):
            result.addPixmap(pixmap, QIcon.Mode.Disabled)
    return result


def window_icon() -> QIcon:
    """The program's icon."""
    result = QIcon()
    for pixmap in _pixmaps(_source("bh-studio"), _WINDOW_SIZES):
        result.addPixmap(pixmap)
    return result


def _pixmaps(source: str, sizes: Iterable[int]) -> list[QPixmap]:
    renderer = QSvgRenderer(QByteArray(source.encode()))
    pixmaps = []
    for size in sizes:
        pixmap = QPixmap(size, size)
        pixmap.fill(Qt.GlobalColor.transparent)
        painter = QPainter(pixmap)
        renderer.render(painter, QRectF(0, 0, size, size))
        painter.end()
        pixmaps.append(pixmap)
    return pixmaps
