"""A sentence with a sign in front where it is bad news. Plain text, wrapped."""

from __future__ import annotations

from PySide6.QtCore import Qt, Slot
from PySide6.QtWidgets import QHBoxLayout, QLabel, QWidget

from bh_studio.ui.widgets.icons import icon
from bh_studio.ui.widgets.theme import GAP_SMALL, Theme, set_role
from bh_studio.ui.widgets.visible_text import visible


class Notice(QWidget):
    """Takes no room while it has nothing to say."""

    def __init__(self, theme: Theme, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._is_alarm = False
        self._sign = QLabel()
        self._sign.setAccessibleName("Attention")
        self._words = QLabel()
        self._words.setTextFormat(Qt.TextFormat.PlainText)
        self._words.setWordWrap(True)
        self._words.setAccessibleName(name)
        self._words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(GAP_SMALL)
        row.addWidget(self._sign, 0, Qt.AlignmentFlag.AlignTop)
        row.addWidget(self._words, 1)
        theme.changed.connect(self._take_theme)
        self._take_theme()
        self.say("")

    @property
    def text(self) -> str:
        """What it says."""
        return self._words.text()

    @property
    def is_alarm(self) -> bool:
        """Whether it is bad news."""
        return self._is_alarm

    def say(self, text: str, *, is_alarm: bool = False) -> None:
        """Say `text`; nothing if it is empty."""
        text = visible(text)
        self._is_alarm = is_alarm
        set_role(self._words, "problem" if is_alarm else "")
        if text != self._words.text():
            self._words.setText(text)
        self._sign.setVisible(is_alarm and bool(text))
        self.setVisible(bool(text))

    @Slot()
    def _take_theme(self) -> None:
        size = self.fontMetrics().height()
        self._sign.setPixmap(icon("warning", self._theme.colors.alarm).pixmap(size, size))
