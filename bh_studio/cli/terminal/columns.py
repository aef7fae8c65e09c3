"""Texts on a terminal, and two of them side by side, printed line by line as they arrive.

Knows neither engine nor Qt. Lines are only ever appended, so it works in a pipe too.
"""

from __future__ import annotations

import unicodedata
from itertools import accumulate, takewhile
from typing import TextIO

_GAP = " | "


class ColumnPrinter:
    """Prints a left and a right text in columns of equal width.

    The titles appear with the first text; a row when both columns have filled theirs, or when one
    has ended.
    """

    def __init__(self, out: TextIO, width: int, titles: tuple[str, str]) -> None:
        self._out = out
        self._width = max(16, (width - len(_GAP)) // 2)
        self._columns = (_Column(self._width), _Column(self._width))
        self._titles: tuple[str, str] | None = titles

    def add(self, column: int, text: str) -> None:
        """Append `text` to column 0 or 1."""
        self._columns[column].add(text)
        self._print_ready()

    def end(self, column: int) -> None:
        """Say that a column has ended, so that the other no longer waits for it."""
        self._columns[column].end()
        self._print_ready()

    def _print_ready(self) -> None:
        left, right = self._columns
        if self._titles is not None:
            self._row(*(shorten(title, self._width) for title in self._titles))
            self._row("-" * self._width, "-" * self._width)
            self._titles = None
        while left.has_line_or_ended and right.has_line_or_ended and (left.lines or right.lines):
            self._row(left.pop(), right.pop())
        self._out.flush()

    def _row(self, left: str, right: str) -> None:
        padding = " " * (self._width - display_width(left))
        self._out.write(f"{left}{padding}{_GAP}{right}".rstrip() + "\n")


class _Column:
    """Wraps one growing text at spaces to a fixed width."""

    def __init__(self, width: int) -> None:
        self.lines: list[str] = []
        self._width = width
        self._open = ""
        self._open_width = 0
        self._ended = False

    @property
    def has_line_or_ended(self) -> bool:
        return bool(self.lines) or self._ended

    def add(self, text: str) -> None:
        for character in text.replace("\t", "    "):
            if character == "\n":
                self._break(self._open, "")
            elif character.isprintable():
                self._append(character)
            else:
                # Control characters of a model's output must not reach the terminal.
                self._append(_visible(character))

    def end(self) -> None:
        if self._open:
            self._break(self._open, "")
        self._ended = True

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
    safe = "".join(c if c.isprintable() else _visible(c) for c in line)
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


def _visible(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else "\N{REPLACEMENT CHARACTER}"
