"""What the prompt is for: each side writes on from it, or all sides read it as it is."""

from __future__ import annotations

from PySide6.QtCore import Signal, Slot
from PySide6.QtWidgets import QButtonGroup, QPushButton, QVBoxLayout, QWidget

from bh_studio.ui.widgets.theme import GAP_TINY


class ModeSwitch(QWidget):
    """Two buttons, one of which is down. changed: whether all sides read the same text now."""

    changed = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.write_button = _button(
            "Write on", "Each side writes its own text on from the prompt (Ctrl+Shift+M changes)"
        )
        self.read_button = _button(
            "Same text",
            "All sides read one given text, and nothing is generated: what each makes of every "
            "token is compared (Ctrl+Shift+M changes)",
        )
        self.write_button.setChecked(True)
        # The one that is down cannot be let up; another one has to be pressed.
        self._group = QButtonGroup(self)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(GAP_TINY)
        for button in (self.write_button, self.read_button):
            self._group.addButton(button)
            column.addWidget(button)
        column.addStretch(1)
        self.read_button.toggled.connect(self.changed)

    @property
    def is_same_text(self) -> bool:
        """Whether all sides are to read the same text."""
        return self.read_button.isChecked()

    @Slot(bool)
    def choose(self, is_same_text: bool) -> None:
        """Have all sides read the same text, or each write one."""
        (self.read_button if is_same_text else self.write_button).setChecked(True)


def _button(text: str, meaning: str) -> QPushButton:
    button = QPushButton(text)
    button.setProperty("role", "mode")
    button.setCheckable(True)
    button.setToolTip(meaning)
    button.setAccessibleName(text)
    button.setAccessibleDescription(meaning)
    return button
