"""Text on its way to the clipboard, character for character."""

from __future__ import annotations

from PySide6.QtCore import QMimeData
from PySide6.QtGui import QClipboard, QGuiApplication


class CopiedText(QMimeData):
    """A part of `text` that lies between two positions of a document, in UTF-16 units."""

    def __init__(self, text: str, start: int, end: int) -> None:
        super().__init__()
        units = text.encode("utf-16-le", "surrogatepass")[2 * start : 2 * end]
        self.setText(units.decode("utf-16-le", "replace"))


def release_copied_text() -> None:
    """Leave what was copied on the clipboard in an object that outlives Python; call at the end."""
    # WORKAROUND: the clipboard deletes what it was given after Python has ended, and the destructor
    # of an object made in Python ends the program with a crash then.
    clipboard = QGuiApplication.clipboard()
    for mode in (QClipboard.Mode.Clipboard, QClipboard.Mode.Selection):
        if isinstance(clipboard.mimeData(mode), CopiedText):
            clipboard.setText(clipboard.text(mode), mode)
