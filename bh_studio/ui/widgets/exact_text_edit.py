"""A box for text that is read exactly as it was typed, pasted or set."""

from __future__ import annotations

import re
from collections.abc import Iterator

from PySide6.QtCore import QMimeData, Slot
from PySide6.QtGui import (
    QKeyEvent,
    QKeySequence,
    QTextBlock,
    QTextCharFormat,
    QTextCursor,
    QTextFormat,
)
from PySide6.QtWidgets import QPlainTextEdit, QWidget

from bh_studio.ui.widgets.copied_text import CopiedText
from bh_studio.ui.widgets.visible_text import visible

# What a document takes for the end of a line or for a mark of its own, and what is lost on the way
# to it: byte order marks and halves of surrogate pairs. Everything else it holds as it is.
_UNHELD = re.compile("([\r\u2029\ufdd0\ufdd1\ufeff\ufffe\ud800-\udfff])")
_STAND_INS = frozenset(visible("\r\u2029\ufdd0"))
# The type of an object says which character a stand-in is for: Qt keeps it through undo and redo,
# and never hands it on to what is typed beside it.
_FIRST_TYPE = QTextFormat.ObjectTypes.UserObject.value


class ExactTextEdit(QPlainTextEdit):
    """Plain text whose every character is kept; those that no document can hold have stand-ins.

    Positions in the document are UTF-16 units of `text`.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._text: str | None = ""
        # Before anyone else can listen, so that whoever does finds the new text.
        self.textChanged.connect(self._forget_text)

    @property
    def text(self) -> str:
        """What is in the box, character for character."""
        if self._text is None:
            self._text = self._read()
        return self._text

    def set_text(self, text: str) -> None:
        """Replace what is in the box; Ctrl+Z brings it back."""
        if text != self.text:
            cursor = self.textCursor()
            cursor.select(QTextCursor.SelectionType.Document)
            _insert(cursor, text)

    def createMimeDataFromSelection(self) -> QMimeData:  # noqa: N802
        """The selected characters as they are in `text`."""
        cursor = self.textCursor()
        return CopiedText(self.text, cursor.selectionStart(), cursor.selectionEnd())

    def insertFromMimeData(self, source: QMimeData) -> None:  # noqa: N802
        if not self.isReadOnly() and source.hasText():
            _insert(self.textCursor(), source.text())
            self.ensureCursorVisible()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.matches(QKeySequence.StandardKey.InsertLineSeparator) and not self.isReadOnly():
            # Qt would put U+2028 there, and nobody who types Shift+Return means that character.
            self.textCursor().insertText("\n")
            self.ensureCursorVisible()
            event.accept()
            return
        super().keyPressEvent(event)

    @Slot()
    def _forget_text(self) -> None:
        self._text = None

    def _read(self) -> str:
        document = self.document()
        raw = document.toRawText()
        if _STAND_INS.isdisjoint(raw):
            return raw.replace("\u2029", "\n")
        lines = []
        block = document.begin()
        while block.isValid():
            lines.append("".join(_pieces(block)))
            block = block.next()
        return "\n".join(lines)


def _insert(cursor: QTextCursor, text: str) -> None:
    """Put `text` in the place of the selection of `cursor`, as one step to undo."""
    cursor.beginEditBlock()
    cursor.removeSelectedText()
    for piece in _UNHELD.split(text):
        look = QTextCharFormat()
        if _UNHELD.fullmatch(piece):
            look.setObjectType(_FIRST_TYPE + ord(piece))
        cursor.insertText(visible(piece) if look.objectType() else piece, look)
    cursor.endEditBlock()


def _pieces(block: QTextBlock) -> Iterator[str]:
    """The text of one line of a document, stand-ins replaced by what they stand for."""
    place = block.begin()
    while not place.atEnd():
        fragment = place.fragment()
        kind = fragment.charFormat().objectType() - _FIRST_TYPE
        yield fragment.text() if kind <= 0 else chr(kind) * fragment.length()
        place += 1
