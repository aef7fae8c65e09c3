"""What is marked in an answer: the token that is looked at, and what was searched for."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from PySide6.QtCore import QPoint
from PySide6.QtGui import QColor, QTextCursor
from PySide6.QtWidgets import QPlainTextEdit, QTextEdit

from bh_studio.ui.widgets.theme import Theme

# Start and end in a document, in UTF-16 units.
Span = tuple[int, int]


class TextMarks:
    """Lays marks over the text of `view`. Of the matches only those in sight are laid: a view looks
    at each of them for every line that it draws, and moves each with every token that comes."""

    def __init__(self, view: QPlainTextEdit, theme: Theme) -> None:
        self._view = view
        self._theme = theme
        self._token: Span | None = None
        self._found: Sequence[Span] = ()
        self._current: Span | None = None

    def show_token(self, span: Span | None) -> None:
        """Mark a token in place of the one before; None for none."""
        self._token = span
        self._draw()

    def show_found(self, found: Sequence[Span], current: Span | None) -> None:
        """Mark all of `found`, which are in order, and `current` most of all."""
        self._found, self._current = found, current
        self._draw()

    def forget(self) -> None:
        """Mark nothing: another text comes."""
        self._token, self._found, self._current = None, (), None
        self._draw()

    def follow_view(self) -> None:
        """Mark what has come into sight."""
        if self._found:
            self._draw()

    def _draw(self) -> None:
        colors = self._theme.colors
        in_sight = self._found_in_sight()
        # What comes later lies over what comes before.
        marks = [self._mark(span, colors.found, colors.text) for span in in_sight]
        if self._token is not None:
            marks.append(self._mark(self._token, colors.accent, colors.on_accent))
        if self._current is not None and self._current in in_sight:
            marks.append(self._mark(self._current, colors.text, colors.surface))
        self._view.setExtraSelections(marks)

    def _found_in_sight(self) -> Sequence[Span]:
        if not self._found:
            return ()
        view, corner = self._view, self._view.viewport().rect().bottomRight()
        top = view.cursorForPosition(QPoint(0, 0)).position()
        bottom = view.cursorForPosition(corner).position()
        first = bisect.bisect_left(self._found, top, key=lambda span: span[1])
        return self._found[first : bisect.bisect_right(self._found, (bottom, bottom))]

    def _mark(self, span: Span, ground: QColor, ink: QColor) -> QTextEdit.ExtraSelection:
        mark = QTextEdit.ExtraSelection()
        mark.cursor = QTextCursor(self._view.document())
        mark.cursor.setKeepPositionOnInsert(True)
        mark.cursor.setPosition(span[0])
        mark.cursor.setPosition(span[1], QTextCursor.MoveMode.KeepAnchor)
        mark.format.setBackground(ground)
        mark.format.setForeground(ink)
        return mark
