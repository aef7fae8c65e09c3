"""Where the prompt is typed, or the text that all sides read, with Run and Stop."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, QSize, Qt, Signal, Slot
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import (
    QBoxLayout,
    QHBoxLayout,
    QMenu,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from bh_studio.engine.protocol.texts import Text
from bh_studio.ui.compare.reading.mode_switch import ModeSwitch
from bh_studio.ui.widgets.exact_text_edit import ExactTextEdit
from bh_studio.ui.widgets.icons import icon
from bh_studio.ui.widgets.theme import GAP_SMALL, Theme

# The editor is as high as its text, within these.
_LEAST_LINES, _MOST_LINES = 2, 6
# Below this width the buttons stand one below the other.
_NARROW_LETTERS = 70
# What the style sheet puts around it, and a pixel that keeps the scroll bar away.
_PADDING = 6
_PLAIN = "Type the beginning of a text; all sides will continue it."
_PLAIN_MEANING = "The text that all sides continue. Ctrl+Return runs it."
_FIRST_MESSAGE = "Type a message; all sides will answer it."
_NEXT_MESSAGE = "Type the next message; each side remembers its own answers."
_TEXT = "Type or open a text; all sides will read it, and nothing is generated."
_TEXT_MEANING = "The text that all sides read as it is. Ctrl+Return has them read it."
_RUN_MEANING = "Answer the prompt with all sides (Ctrl+Return)"
_READ_MEANING = "Have all sides read the text; nothing is generated (Ctrl+Return)"
_MESSAGE_MEANING = "The message that all sides answer. Ctrl+Return sends it."
_TYPED = "Typed text"
# Openings in the manner of the books that the embedded model has read.
EXAMPLES = (
    "The old house stood at the edge of the wood, and nobody had lived in it since",
    "“You are late,” said the captain, without looking up from the map.",
    "It was on a cold morning in November that the letter arrived",
)
CHAT_EXAMPLES = (
    "Explain to a friend in three sentences what a p-value is.",
    "Write the first lines of a story about a lighthouse.",
    "What should I pack for three days in the mountains?",
)


class PromptBar(QWidget):
    """The prompt editor, what it is for, and the two buttons of a run.

    open_wanted: a text from a file is wanted in the editor.
    """

    edited = Signal()
    open_wanted = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._opened: Text | None = None
        self.mode = ModeSwitch()
        self.mode.changed.connect(self._take_mode)
        self.editor = ExactTextEdit()
        self.editor.setProperty("role", "prompt")
        self.editor.setPlaceholderText(_PLAIN)
        self.editor.setTabChangesFocus(True)
        self.editor.setAccessibleName("Prompt")
        self.editor.setToolTip(_PLAIN_MEANING)
        self.editor.textChanged.connect(self.edited)
        # Told when lines break elsewhere too, which is after the editor has another width.
        self.editor.document().documentLayout().documentSizeChanged.connect(self._fit_text)
        self.editor.textChanged.connect(self._place_examples)
        self.run_button = QPushButton("Run")
        self.run_button.setProperty("role", "primary")
        self.run_button.setAccessibleName("Run")
        self.run_button.setToolTip(_RUN_MEANING)
        self.stop_button = QPushButton("Stop")
        self.stop_button.setProperty("role", "plain")
        self.stop_button.setAccessibleName("Stop")
        self.stop_button.setToolTip("End the run and keep what is there (Esc)")
        self.new_button = QPushButton("New")
        self.new_button.setProperty("role", "plain")
        self.new_button.setAccessibleName("New conversation")
        self.new_button.setToolTip("Start a new conversation; the turns so far are kept (Ctrl+N)")
        self.new_button.hide()
        self.open_button = QPushButton("Open…")
        self.open_button.setProperty("role", "plain")
        self.open_button.setAccessibleName("Open a text")
        self.open_button.setToolTip("Take the text from a file")
        self.open_button.clicked.connect(self.open_wanted)
        self.open_button.hide()
        for button in (self.run_button, self.stop_button):
            button.setIconSize(QSize(14, 14))
        self._build_examples()
        self._lay_out()
        theme.changed.connect(self._take_theme)
        self._take_theme()

    @property
    def prompt(self) -> str:
        return self.editor.text

    def set_prompt(self, text: str) -> None:
        """Replace the prompt; Ctrl+Z in the editor brings the old one back."""
        self.editor.set_text(text)

    @property
    def text(self) -> Text:
        """The text to read, under the name of its file while it is as that has it."""
        opened = self._opened
        return opened if opened and opened.content == self.prompt else Text(_TYPED, self.prompt)

    def set_text(self, text: Text) -> None:
        """Have all sides read `text`, in place of what is in the editor."""
        self._opened = text
        self.mode.choose(True)
        self.set_prompt(text.content)

    @Slot(str)
    def drop(self, text: str) -> None:
        """Empty the editor if `text` is still what it holds; Ctrl+Z brings it back."""
        if self.prompt == text:
            self.set_prompt("")

    @Slot(str)
    def bring_back(self, text: str) -> None:
        """Show `text` again, unless something else has been typed since."""
        if not self.prompt:
            self.set_prompt(text)

    def show_obstacle(self, obstacle: str) -> None:
        """Say why Run rests, a sentence; empty if it does not."""
        if obstacle and self.run_button.hasFocus():
            # It would go to whatever stands next, and so would the next key.
            self.editor.setFocus()
        self.run_button.setEnabled(not obstacle)
        meaning = _READ_MEANING if self.mode.is_same_text else _RUN_MEANING
        self.run_button.setToolTip(obstacle or meaning)

    def show_chat(self, is_chat: bool, has_turns: bool) -> None:
        """Say what the editor is for: a text to read or to continue, a first message, or the next
        one."""
        if self.mode.is_same_text:
            words, meaning = _TEXT, _TEXT_MEANING
        elif is_chat:
            words, meaning = _NEXT_MESSAGE if has_turns else _FIRST_MESSAGE, _MESSAGE_MEANING
        else:
            words, meaning = _PLAIN, _PLAIN_MEANING
        self.editor.setPlaceholderText(words)
        self.editor.setToolTip(meaning)
        if is_chat == self.new_button.isHidden():
            self.new_button.setVisible(is_chat)
            self._offer(CHAT_EXAMPLES if is_chat else EXAMPLES)

    @Slot(bool)
    def _take_mode(self, is_same_text: bool) -> None:
        self.run_button.setText("Read" if is_same_text else "Run")
        self.run_button.setAccessibleName(self.run_button.text())
        self.editor.setAccessibleName("Text to read" if is_same_text else "Prompt")
        self._give_room()
        self.edited.emit()

    def _offer(self, examples: tuple[str, ...]) -> None:
        menu = self.examples.menu()
        menu.clear()
        for text in examples:
            action = menu.addAction(text if len(text) < 60 else text[:57] + "…")
            action.setData(text)
            action.setToolTip("Take this as the prompt")

    def _build_examples(self) -> None:
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        menu.triggered.connect(self._take_example)
        self.examples = QToolButton()
        self.examples.setProperty("role", "tool")
        self.examples.setText("Examples")
        self.examples.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.examples.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.examples.setMenu(menu)
        self.examples.setToolTip("Prompts to try; Ctrl+Z in the prompt takes one back")
        self.examples.setAccessibleName("Example prompts")
        self._offer(EXAMPLES)

    def _lay_out(self) -> None:
        self._buttons = QBoxLayout(QBoxLayout.Direction.LeftToRight)
        self._buttons.setSpacing(GAP_SMALL)
        for button in (self.run_button, self.stop_button, self.open_button, self.new_button):
            self._buttons.addWidget(button, 0, Qt.AlignmentFlag.AlignTop)
        buttons = QVBoxLayout()
        buttons.addLayout(self._buttons)
        buttons.addStretch(1)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(GAP_SMALL)
        row.addWidget(self.mode, 0, Qt.AlignmentFlag.AlignTop)
        row.addWidget(self.editor, 1)
        row.addLayout(buttons)
        self.examples.setParent(self.editor)
        self.editor.installEventFilter(self)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._give_room()

    def _give_room(self) -> None:
        """Leave the text the width that the buttons have one below the other, where it is narrow;
        a text is opened in the menu then."""
        is_narrow = self.width() < _NARROW_LETTERS * self.fontMetrics().averageCharWidth()
        way = QBoxLayout.Direction
        self._buttons.setDirection(way.TopToBottom if is_narrow else way.LeftToRight)
        self.open_button.setVisible(self.mode.is_same_text and not is_narrow)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.editor and event.type() is QEvent.Type.Resize:
            self._place_examples()
        return False

    @Slot()
    def _fit_text(self) -> None:
        """Make the editor as high as its text asks for."""
        # The height of a plain document is its number of lines, broken ones included.
        wanted = round(self.editor.document().size().height())
        lines = min(max(wanted, _LEAST_LINES), _MOST_LINES)
        self.editor.ensurePolished()
        margin = round(self.editor.document().documentMargin()) + _PADDING
        height = lines * self.editor.fontMetrics().lineSpacing() + 2 * margin
        if height != self.editor.height():
            self.editor.setFixedHeight(height)

    @Slot()
    def _place_examples(self) -> None:
        """Keep the examples in the corner of an empty editor."""
        self.examples.setVisible(not self.prompt)
        self.examples.adjustSize()
        self.examples.move(
            self.editor.width() - self.examples.width() - GAP_SMALL,
            self.editor.height() - self.examples.height() - GAP_SMALL,
        )

    @Slot(object)
    def _take_example(self, action: object) -> None:
        self.set_prompt(action.data())  # type: ignore[attr-defined]
        self.editor.setFocus()

    @Slot()
    def _take_theme(self) -> None:
        colors = self._theme.colors
        self.run_button.setIcon(icon("run", colors.on_accent, colors.muted))
        self.stop_button.setIcon(icon("stop", colors.alarm, colors.faint))
        self.examples.setIcon(icon("examples", colors.accent))
        self._fit_text()
        self._give_room()
        self._place_examples()
