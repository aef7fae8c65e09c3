"""How the prompt is taken: as a message to an instruct model, or as the start of a text."""

from __future__ import annotations

from PySide6.QtCore import Signal, Slot
from PySide6.QtWidgets import QVBoxLayout, QWidget

from bh_studio.ui.widgets.exact_text_edit import ExactTextEdit
from bh_studio.ui.widgets.form_rows import describe, label_for, section
from bh_studio.ui.widgets.number_boxes import ChoiceBox
from bh_studio.ui.widgets.theme import GAP, GAP_LARGE, GAP_TINY, Theme

_LINES = 3


class ConversationControls(QWidget):
    """The choice and the system prompt; shown only for a model that can chat."""

    edited = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.format = ChoiceBox({"chat": "Chat", "plain": "Plain text"})
        self.system_editor = ExactTextEdit()
        self.system_editor.setProperty("role", "field")
        self.system_editor.setTabChangesFocus(True)
        self.system_editor.setPlaceholderText("None")
        describe(
            self.system_editor,
            "System prompt",
            "What the model is told before the conversation, from the next message on. "
            "Only for chat; not every model's template knows it.",
        )
        describe(
            self.format,
            "Prompt taken as",
            "Chat: a message, written with the model's own chat template; each side remembers its "
            "own answers. Plain text: the beginning of a text that all sides continue.",
        )
        label = label_for(self.system_editor, "System prompt")
        label.setToolTip(self.system_editor.toolTip())
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, GAP_LARGE)
        layout.setSpacing(GAP_TINY)
        layout.addWidget(section("Prompt"))
        layout.addSpacing(GAP_TINY)
        layout.addWidget(self.format)
        layout.addSpacing(GAP_TINY)
        layout.addWidget(label)
        layout.addWidget(self.system_editor)
        self.format.currentIndexChanged.connect(self._sync)
        self.system_editor.textChanged.connect(self.edited)
        theme.changed.connect(self._take_theme)
        self._take_theme()

    @property
    def is_chat(self) -> bool:
        """Whether a chat is chosen, be it possible or not."""
        return self.format.value == "chat"

    @property
    def system(self) -> str:
        """The system prompt; empty for none."""
        text = self.system_editor.text
        return text if text.strip() else ""

    def show_choice(self, is_chat: bool) -> None:
        """Choose chat or plain text."""
        self.format.set_value("chat" if is_chat else "plain")

    def show_system(self, text: str) -> None:
        """Set the system prompt."""
        self.system_editor.set_text(text)

    @Slot()
    def _sync(self) -> None:
        self.system_editor.setEnabled(self.is_chat)
        self.edited.emit()

    @Slot()
    def _take_theme(self) -> None:
        metrics = self.fontMetrics()
        self.format.setFixedHeight(metrics.height() + GAP)
        self.system_editor.setFixedHeight(_LINES * metrics.lineSpacing() + GAP)
