"""The bar below the answers in which one says what to find in them."""

from __future__ import annotations

from PySide6.QtCore import QEvent, Qt, Signal, Slot
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QToolButton,
    QWidget,
)

from bh_studio.ui.widgets.icons import icon
from bh_studio.ui.widgets.theme import GAP, GAP_SMALL, GAP_TINY, Theme

_ENTER = (Qt.Key.Key_Return, Qt.Key.Key_Enter)


class FindBar(QFrame):
    """Asks and tells; finds nothing by itself.

    asked: for something else than before. stepped: to the next match with 1, to the previous one
    with -1. closed: nothing is to be found any more.
    """

    asked = Signal()
    stepped = Signal(int)
    closed = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self.setProperty("role", "card")
        self.field = QLineEdit()
        self.field.setPlaceholderText("Find in the answers of all sides")
        self.field.setToolTip(
            "What to find. Enter goes on to the next, Shift+Enter back to the previous one."
        )
        self.field.setAccessibleName("Find in the answers")
        self.field.textChanged.connect(self.asked)
        self.count = QLabel()
        self.count.setProperty("role", "muted")
        self.count.setAccessibleName("What was found")
        self.previous_button = self._button("Previous", "Go to the previous match (Shift+Enter)")
        self.next_button = self._button("Next", "Go to the next match (Enter)")
        self.previous_button.clicked.connect(self._step_back)
        self.next_button.clicked.connect(self._step_on)
        self.match_case = QCheckBox("Match case")
        self.match_case.setToolTip("Take capital and small letters for different ones")
        self.match_case.toggled.connect(self.asked)
        self.close_button = QToolButton()
        self.close_button.setProperty("role", "tool")
        self.close_button.setToolTip("Close this bar (Esc)")
        self.close_button.setAccessibleName("Close the bar for finding")
        self.close_button.clicked.connect(self.dismiss)
        row = QHBoxLayout(self)
        row.setContentsMargins(GAP, GAP_TINY, GAP_TINY, GAP_TINY)
        row.setSpacing(GAP_SMALL)
        row.addWidget(self.field, 1)
        for widget in (
            self.count, self.previous_button, self.next_button, self.match_case, self.close_button
        ):  # fmt: skip
            row.addWidget(widget)
        theme.changed.connect(self._take_theme)
        self._take_theme()
        self.hide()

    @property
    def wanted(self) -> str:
        """What to find; empty for nothing."""
        return "" if self.isHidden() else self.field.text()

    def open(self) -> None:
        """Let a person type what to find; what was typed before is there to be replaced."""
        self.show()
        self.field.setFocus()
        self.field.selectAll()
        self.asked.emit()

    @Slot()
    def dismiss(self) -> None:
        """Close the bar."""
        self.hide()
        self.closed.emit()

    def show_count(self, words: str, *, has_any: bool) -> None:
        """Say how much was found."""
        self.count.setText(words)
        self.previous_button.setEnabled(has_any)
        self.next_button.setEnabled(has_any)

    def event(self, event: QEvent) -> bool:
        if (
            event.type() is QEvent.Type.ShortcutOverride
            and isinstance(event, QKeyEvent)
            and event.key() == Qt.Key.Key_Escape
        ):
            # Whoever closes the bar does not mean to end the run.
            event.accept()
            return True
        return super().event(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape:
            self.dismiss()
        elif event.key() in _ENTER and self.field.hasFocus():
            is_back = event.modifiers() & Qt.KeyboardModifier.ShiftModifier
            self.stepped.emit(-1 if is_back else 1)
        else:
            super().keyPressEvent(event)

    def _button(self, words: str, meaning: str) -> QPushButton:
        button = QPushButton(words)
        button.setProperty("role", "link")
        button.setToolTip(meaning)
        button.setAccessibleName(f"{words} match")
        return button

    @Slot()
    def _step_back(self) -> None:
        self.stepped.emit(-1)

    @Slot()
    def _step_on(self) -> None:
        self.stepped.emit(1)

    @Slot()
    def _take_theme(self) -> None:
        self.close_button.setIcon(icon("dismiss", self._theme.colors.text))
