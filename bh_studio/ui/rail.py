"""The rail at the left of the window: one button a place, of which one is pressed."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import QSize, Qt, Slot
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QFrame, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from bh_studio.ui.widgets.icons import icon
from bh_studio.ui.widgets.theme import GAP, GAP_TINY, Theme

# At the system's size of text.
_WIDTH, _ICON = 64, 24


class Rail(QFrame):
    """Shows `places`, actions of which one is checked, by the names of their icons."""

    def __init__(
        self, places: Mapping[str, QAction], theme: Theme, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._theme = theme
        self._places = places
        self.setProperty("role", "rail")
        self.setAccessibleName("Places")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, GAP, 0, GAP)
        layout.setSpacing(GAP_TINY)
        self.buttons = {name: _button(action) for name, action in places.items()}
        for button in self.buttons.values():
            layout.addWidget(button)
        layout.addStretch(1)
        theme.changed.connect(self._take_theme)
        self._take_theme()

    @Slot()
    def _take_theme(self) -> None:
        scale = self._theme.text_percent / 100
        for name, action in self._places.items():
            action.setIcon(icon(name, self._theme.colors.text))
            # Measured before it is shown, it would have the size of other text.
            self.buttons[name].ensurePolished()
            self.buttons[name].setIconSize(QSize(round(_ICON * scale), round(_ICON * scale)))
        words = max(
            button.fontMetrics().horizontalAdvance(button.text())
            for button in self.buttons.values()
        )
        # The system's font may be a wide one.
        self.setFixedWidth(max(round(_WIDTH * scale), words + 2 * GAP_TINY))


def _button(action: QAction) -> QToolButton:
    button = QToolButton()
    button.setProperty("role", "place")
    button.setDefaultAction(action)
    button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextUnderIcon)
    button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    button.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    button.setAccessibleName(action.iconText())
    return button
