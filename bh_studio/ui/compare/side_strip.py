"""What stands for the settings where there is no room for them: the letters of the sides."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import QPoint, QRect, QSize, Qt, Signal, Slot
from PySide6.QtGui import QIcon, QPainter, QPixmap
from PySide6.QtWidgets import QSizePolicy, QToolButton, QVBoxLayout, QWidget

from bh_studio.engine.rules import format_rule
from bh_studio.engine.rules.sides import MOST_SIDES, side_letter
from bh_studio.ui.compare.side_list import SideList
from bh_studio.ui.widgets.form_rows import describe
from bh_studio.ui.widgets.side_looks import SideLook, side_look
from bh_studio.ui.widgets.theme import GAP_TINY, Theme
from bh_studio.ui.widgets.visible_text import plain_tooltip

# At the system's size of text.
_WIDTH = 44
_SWATCH = QSize(22, 10)
# Pixels of a picture for one of the window: screens have up to two.
_SHARP = 2


class SideStrip(QWidget):
    """One button a side of `sides`, under its colour. chosen: whose settings are wanted."""

    chosen = Signal(int)

    def __init__(self, sides: SideList, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._sides, self._theme = sides, theme
        self.buttons = tuple(_button(side_letter(side)) for side in range(MOST_SIDES))
        self.add_button = _button("+")
        describe(self.add_button, "Add a side", "Compare with one more rule, and show its settings")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(GAP_TINY)
        for side, button in enumerate(self.buttons):
            describe(button, f"Side {button.text()}", f"Side {button.text()}, which is not there")
            button.clicked.connect(partial(self.chosen.emit, side))
            layout.addWidget(button)
        layout.addWidget(self.add_button)
        layout.addStretch(1)
        self.add_button.clicked.connect(self._add)
        sides.chosen.connect(self._sync)
        sides.changed.connect(self._sync)
        theme.changed.connect(self._sync)
        self._sync()

    @Slot()
    def _add(self) -> None:
        self._sides.add()
        self.chosen.emit(self._sides.current)

    @Slot()
    def _sync(self) -> None:
        colors = self._theme.colors
        self.setFixedWidth(round(_WIDTH * self._theme.text_percent / 100))
        rules = self._sides.sides
        for side, button in enumerate(self.buttons):
            button.setVisible(side < len(rules))
            if side < len(rules):
                rule = rules[side]
                words = "model's own" if rule is None else format_rule(rule)
                button.setIcon(_swatch(side_look(side, rule is None, colors)))
                name = f"Side {button.text()}, {words}"
                describe(button, name, plain_tooltip(f"{name}: show its settings (F9)"))
        self.add_button.setVisible(len(rules) < MOST_SIDES)


def _button(text: str) -> QToolButton:
    button = QToolButton()
    button.setProperty("role", "tool")
    button.setText(text)
    button.setIconSize(_SWATCH)
    button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextUnderIcon)
    button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    button.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    return button


def _swatch(look: SideLook) -> QIcon:
    picture = QPixmap(_SWATCH * _SHARP)
    picture.setDevicePixelRatio(_SHARP)
    picture.fill(Qt.GlobalColor.transparent)
    painter = QPainter(picture)
    area = QRect(QPoint(0, 0), _SWATCH)
    painter.fillRect(area, look.brush)
    painter.setPen(look.color)
    painter.drawRect(area.adjusted(0, 0, -1, -1))
    painter.end()
    return QIcon(picture)
