"""One named number: a muted label above its value."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QVBoxLayout, QWidget

NONE_YET = "–"


class Figure(QWidget):
    """Shows a value with its name; the tooltip says exactly what the value means."""

    def __init__(
        self, name: str, meaning: str, *, role: str = "value", parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.name = name
        self._label = QLabel(name)
        self._label.setProperty("role", "muted")
        self._value = QLabel(NONE_YET)
        self._value.setProperty("role", role)
        self._value.setTextFormat(Qt.TextFormat.PlainText)
        self._value.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._value.setToolTip(meaning)
        self.setToolTip(meaning)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self._label)
        layout.addWidget(self._value)
        self.show_value(None)

    @property
    def text(self) -> str:
        """The value as shown."""
        return self._value.text()

    def rename(self, name: str) -> None:
        """Show `name` above the value from now on."""
        if name != self.name:
            self.name = name
            self._label.setText(name)
            self._value.setAccessibleName(f"{name}: {self.text}")

    def show_value(self, text: str | None) -> None:
        """Show `text`; None where there is no number yet."""
        shown = NONE_YET if text is None else text
        if shown != self._value.text() or not self._value.accessibleName():
            self._value.setText(shown)
            self._value.setAccessibleName(f"{self.name}: {shown}")
