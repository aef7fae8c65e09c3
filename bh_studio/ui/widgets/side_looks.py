"""How each side looks wherever several are drawn together. Knows no run."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import Qt
from PySide6.QtGui import QBrush, QColor, QPen

from bh_studio.ui.widgets.theme import Colors

# Apart for every kind of colour vision, and each at least 3.4 to 1 on the ground of a card.
_LIGHT = tuple(map(QColor, ("#4b1fa0", "#1690cc", "#b35a00", "#6d0a3a")))
_DARK = tuple(map(QColor, ("#9a5cf5", "#4fd2ee", "#e58a2e", "#ffe0b0")))
# The model's own routing is what the others are seen against, and keeps quiet.
_OWN_LIGHT, _OWN_DARK = QColor("#7d8792"), QColor("#858f9a")
# What tells them apart in print, and to who sees no colours.
_PATTERNS = (
    Qt.BrushStyle.SolidPattern, Qt.BrushStyle.SolidPattern,
    Qt.BrushStyle.BDiagPattern, Qt.BrushStyle.DiagCrossPattern,
)  # fmt: skip
_LINES = (
    Qt.PenStyle.SolidLine, Qt.PenStyle.DashLine, Qt.PenStyle.DotLine, Qt.PenStyle.DashDotLine,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SideLook:
    """color: of all that is drawn of a side. pattern: of its areas. line: of its curves."""

    color: QColor
    pattern: Qt.BrushStyle
    line: Qt.PenStyle

    @property
    def brush(self) -> QBrush:
        """What its areas are filled with."""
        return QBrush(self.color, self.pattern)

    def pen(self, width: float = 1.0) -> QPen:
        """What its curves are drawn with; it keeps its width whatever the scale of a plot."""
        pen = QPen(self.color, width, self.line)
        pen.setCosmetic(True)
        return pen


def side_look(side: int, is_own: bool, colors: Colors) -> SideLook:
    """The look of a side, by its number. is_own: whether it has the model's own routing."""
    if is_own:
        color = _OWN_DARK if colors.is_dark else _OWN_LIGHT
    else:
        color = (_DARK if colors.is_dark else _LIGHT)[side]
    return SideLook(color, _PATTERNS[side], _LINES[side])
