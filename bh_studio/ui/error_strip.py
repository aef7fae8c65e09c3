"""What went wrong, above the answers: message, advice, details, a way out. Never modal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from PySide6.QtCore import Qt, Slot
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from bh_studio.engine.protocol.events import Failed
from bh_studio.ui.widgets.announcement import announce
from bh_studio.ui.widgets.icons import icon
from bh_studio.ui.widgets.theme import GAP, GAP_SMALL, GAP_TINY, Theme


class Cause(Enum):
    """What has to go well before a failure is no matter any more."""

    MODEL = auto()
    RUN = auto()
    WRITING = auto()
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class Remedy:
    """Something to do about a failure, offered as a button. apply: called in the GUI thread."""

    words: str
    meaning: str
    apply: Callable[[], None]


class ErrorStrip(QFrame):
    """Shows the latest failure until it is dismissed, or its cause is settled."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._failure: Failed | None = None
        self._remedy: Remedy | None = None
        self._cause = Cause.OTHER
        self.setProperty("role", "alarm")
        self.setAccessibleName("Error")
        self._message = self._line("section")
        self._advice = self._line("")
        self._details = QPlainTextEdit()
        self._details.setReadOnly(True)
        self._details.setAccessibleName("Details of the error")
        self._details.setToolTip("The technical details, for a report")
        self._details.setFixedHeight(140)
        self._details.hide()
        self.remedy_button = QPushButton()
        self.remedy_button.setProperty("role", "plain")
        self.remedy_button.setToolTip("What may help")
        self.remedy_button.clicked.connect(self._apply_remedy)
        self.details_button = QPushButton("Details")
        self.details_button.setProperty("role", "link")
        self.details_button.setCheckable(True)
        self.details_button.setToolTip("Show the technical details")
        self.details_button.toggled.connect(self._details.setVisible)
        self.copy_button = QPushButton("Copy")
        self.copy_button.setProperty("role", "link")
        self.copy_button.setToolTip("Copy the message and its details to the clipboard")
        self.copy_button.clicked.connect(self.copy)
        self.dismiss_button = QToolButton()
        self.dismiss_button.setProperty("role", "tool")
        self.dismiss_button.setToolTip("Dismiss this message (Esc)")
        self.dismiss_button.clicked.connect(self.dismiss)
        for button, name in (
            (self.remedy_button, "Do what may help"),
            (self.details_button, "Details of the error"),
            (self.copy_button, "Copy the error"),
            (self.dismiss_button, "Dismiss the error"),
        ):
            button.setAccessibleName(name)
        self._lay_out()
        theme.changed.connect(self._take_theme)
        self._take_theme()
        self.hide()

    @property
    def failure(self) -> Failed | None:
        """What is shown now."""
        return self._failure

    @Slot(object)
    def show_failure(
        self, failure: Failed, remedy: Remedy | None = None, cause: Cause = Cause.OTHER
    ) -> None:
        """Show `failure` in place of an older one, with a button for its `remedy`."""
        self._failure = failure
        self._remedy = remedy
        self._cause = cause
        self.remedy_button.setVisible(remedy is not None)
        if remedy is not None:
            self.remedy_button.setText(remedy.words)
            self.remedy_button.setToolTip(remedy.meaning)
        self._message.setText(failure.message)
        self._advice.setText(failure.advice)
        self._advice.setVisible(bool(failure.advice))
        self._details.setPlainText(failure.details)
        self.details_button.setChecked(False)
        self.details_button.setVisible(bool(failure.details))
        self.show()
        announce(self, f"{failure.message} {failure.advice}".rstrip(), is_urgent=True)

    @Slot()
    def dismiss(self) -> None:
        """Take the message away."""
        self._failure = None
        self._remedy = None
        self.hide()

    def settle(self, *causes: Cause) -> None:
        """Take the message away if it is of one of `causes`."""
        if self._failure is not None and self._cause in causes:
            self.dismiss()

    @Slot()
    def withdraw_remedy(self) -> None:
        """Take the message away if it offers something to do, for that is no longer right."""
        if self._remedy is not None:
            self.dismiss()

    @Slot()
    def _apply_remedy(self) -> None:
        remedy = self._remedy
        self.dismiss()
        if remedy is not None:
            remedy.apply()

    @Slot()
    def copy(self) -> None:
        """Put everything about the failure on the clipboard."""
        if self._failure is not None:
            parts = (self._failure.message, self._failure.advice, self._failure.details)
            QGuiApplication.clipboard().setText("\n\n".join(part for part in parts if part))

    def _line(self, role: str) -> QLabel:
        label = QLabel()
        label.setProperty("role", role)
        label.setTextFormat(Qt.TextFormat.PlainText)
        label.setWordWrap(True)
        label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        return label

    def _lay_out(self) -> None:
        self._sign = QLabel()
        words = QVBoxLayout()
        words.setSpacing(GAP_TINY)
        words.addWidget(self._message)
        words.addWidget(self._advice)
        row = QHBoxLayout()
        row.setSpacing(GAP_SMALL)
        row.addWidget(self._sign, 0, Qt.AlignmentFlag.AlignTop)
        row.addLayout(words, 1)
        for button in (
            self.remedy_button, self.details_button, self.copy_button, self.dismiss_button
        ):  # fmt: skip
            row.addWidget(button, 0, Qt.AlignmentFlag.AlignTop)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(GAP, GAP_SMALL, GAP_SMALL, GAP_SMALL)
        layout.setSpacing(GAP_SMALL)
        layout.addLayout(row)
        layout.addWidget(self._details)

    @Slot()
    def _take_theme(self) -> None:
        colors = self._theme.colors
        self._sign.setPixmap(icon("warning", colors.alarm).pixmap(18, 18))
        self.dismiss_button.setIcon(icon("dismiss", colors.text))
