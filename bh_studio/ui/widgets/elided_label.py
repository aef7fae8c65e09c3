"""A line of plain text, cut with “…” where it does not fit; it never widens its window."""

from __future__ import annotations

import re

from PySide6.QtCore import QEvent, QSize, Qt
from PySide6.QtGui import QFontMetrics, QPainter, QPaintEvent
from PySide6.QtWidgets import QLabel, QSizePolicy, QWidget

_DOTS = "…"
_NUMBER = re.compile(r"[-+−]?\d(?:[\d.,]*\d)?(?:e[-+−]?\d+)?")


def cut(text: str, metrics: QFontMetrics, width: int) -> str:
    """`text` as far as it fits, with dots behind; never the first digits of a number alone, for
    they would be another one."""
    shown = metrics.elidedText(text, Qt.TextElideMode.ElideRight, width)
    if shown == text:
        return text
    kept = len(shown.removesuffix(_DOTS))
    for number in _NUMBER.finditer(text):
        if number.start() < kept < number.end():
            return text[: number.start()].rstrip() + _DOTS
    return shown


class ElidedLabel(QLabel):
    """Paints as much of its text as fits; the tooltip holds the rest.

    takes_room: whether it is as wide as its text where there is room; else a changing text moves
    nothing.
    """

    def __init__(
        self, role: str, parent: QWidget | None = None, *, takes_room: bool = False
    ) -> None:
        super().__init__(parent)
        self._takes_room = takes_room
        self._line_height: int | None = None
        self.setProperty("role", role)
        self.setTextFormat(Qt.TextFormat.PlainText)
        wide = QSizePolicy.Policy.Preferred if takes_room else QSizePolicy.Policy.Expanding
        self.setSizePolicy(wide, QSizePolicy.Policy.Preferred)

    def minimumSizeHint(self) -> QSize:
        return QSize(0, super().minimumSizeHint().height())

    def sizeHint(self) -> QSize:
        if self._takes_room or self.wordWrap():
            return super().sizeHint()
        # Of a line it stays; to measure it anew with every number took a millisecond.
        if self._line_height is None:
            self._line_height = super().sizeHint().height()
        return QSize(0, self._line_height)

    def changeEvent(self, event: QEvent) -> None:
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self._line_height = None
        super().changeEvent(event)

    def fitted(self, width: int) -> str:
        """What of its text is painted on so many pixels."""
        return cut(self.text(), self.fontMetrics(), width)

    def paintEvent(self, event: QPaintEvent) -> None:
        if self.wordWrap() or self.fontMetrics().horizontalAdvance(self.text()) <= self.width():
            super().paintEvent(event)
            return
        painter = QPainter(self)
        painter.setPen(self.palette().color(self.foregroundRole()))
        painter.drawText(self.rect(), int(self.alignment()), self.fitted(self.width()))
