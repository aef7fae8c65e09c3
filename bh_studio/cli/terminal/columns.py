"""Texts on a terminal, and several of them side by side, printed line by line as they arrive.

Knows neither engine nor Qt. Lines are only ever appended, so it works in a pipe too.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import accumulate, takewhile
from typing import TextIO

_GAP = " | "
# Columns of a terminal: of more than two texts beside each other, and of any text.
_READABLE, _NARROWEST = 28, 16


class ColumnPrinter:
    """Prints growing texts in columns of equal width, as many beside each other as are readable.

    The titles appear with the first text; a row when all columns beside each other have filled
    theirs, or have ended. The columns that have no room there follow when those have ended.
    """

    def __init__(self, out: TextIO, width: int, titles: Sequence[str]) -> None:
        self._out = out
        across = _across(width, len(titles))
        self._width = max(_NARROWEST, (width - len(_GAP) * (across - 1)) // across)
        self._columns = [_Column(self._width, title) for title in titles]
        # The last of them is what is printed now.
        self._groups = [
            self._columns[first : first + across]
            for first in reversed(range(0, len(titles), across))
        ]
        self._has_titles = False

    def add(self, column: int, text: str) -> None:
        """Append `text` to a column, by number."""
        self._columns[column].add(text)
        self._print_ready()

    def end(self, column: int) -> None:
        """Say that a column has ended, so that the others no longer wait for it."""
        self._columns[column].end()
        self._print_ready()

    def _print_ready(self) -> None:
        while self._groups:
            columns = self._groups[-1]
            if not self._has_titles:
                self._row([shorten(column.title, self._width) for column in columns])
                self._row(["-" * self._width for _ in columns])
                self._has_titles = True
            while all(c.has_line_or_ended for c in columns) and any(c.lines for c in columns):
                self._row([column.pop() for column in columns])
            if not all(column.has_ended for column in columns):
                break
            self._groups.pop()
            self._has_titles = False
            if self._groups:
                self._out.write("\n")
        self._out.flush()

    def _row(self, cells: Sequence[str]) -> None:
        padded = [cell + " " * (self._width - display_width(cell)) for cell in cells]
        self._out.write(_GAP.join(padded).rstrip() + "\n")


def _across(width: int, columns: int) -> int:
    """How many of `columns` stand beside each other: two of any width, more where all have room."""
    has_room = (width + len(_GAP)) // columns >= _READABLE + len(_GAP)
    return columns if has_room else min(2, columns)


class _Column:
    """Wraps one growing text at spaces to a fixed width."""

    def __init__(self, width: int, title: str = "") -> None:
        self.title = title
        self.has_ended = False
        self.lines: list[str] = []
        self._width = width
        self._open = ""
        self._open_width = 0

    @property
    def has_line_or_ended(self) -> bool:
        return bool(self.lines) or self.has_ended

    def add(self, text: str) -> None:
        for character in text.replace("\t", "    "):
            if character == "\n":
                self._break(self._open, "")
            elif character.isprintable():
                self._append(character)
            else:
                # Control characters of a model's output must not reach the terminal.
                self._append(visible(character))

    def end(self) -> None:
        if self._open:
            self._break(self._open, "")
        self.has_ended = True

    def pop(self) -> str:
        return self.lines.pop(0) if self.lines else ""

    def _append(self, character: str) -> None:
        width = display_width(character)
        if self._open_width + width <= self._width:
            self._open += character
            self._open_width += width
            return
        head, space, word = self._open.rpartition(" ")
        if character == " ":
            self._break(self._open, "")
        elif space and head.strip():
            self._break(head, word + character)
        else:
            self._break(self._open, character)

    def _break(self, line: str, rest: str) -> None:
        self.lines.append(line)
        self._open, self._open_width = rest, display_width(rest)


def wrap(text: str, width: int) -> list[str]:
    """`text` as lines of at most `width` columns, with nothing that would upset a terminal."""
    column = _Column(width)
    column.add(text)
    column.end()
    return column.lines


def shorten(text: str, width: int) -> str:
    """`text` as one line of at most `width` columns, an ellipsis at its end if it was cut."""
    line = " ".join(text.split())
    safe = "".join(c if c.isprintable() else visible(c) for c in line)
    if display_width(safe) <= width:
        return safe
    widths = accumulate(map(display_width, safe))
    kept = sum(1 for _ in takewhile(lambda found: found < width, widths))
    return safe[:kept].rstrip() + "…"


def display_width(text: str) -> int:
    """Columns that `text` takes on a terminal: two for wide characters, none for combining ones."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def visible(character: str) -> str:
    """What stands for a `character` that cannot be printed."""
    return f"\\x{ord(character):02x}" if ord(character) < 256 else "\N{REPLACEMENT CHARACTER}"
