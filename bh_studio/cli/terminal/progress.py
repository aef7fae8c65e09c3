"""How far a long command is, on standard error: "3 of 12".

On a terminal one line that changes and goes before a row is printed; elsewhere a line a row.
"""

from __future__ import annotations

import sys

from bh_studio.cli.terminal.streams import say

_CLEAR = "\r\x1b[K"


class Progress:
    """Counts rows up to `total`, from `done` on; `what` is what is counted."""

    def __init__(self, total: int, done: int, what: str) -> None:
        self._total, self._done, self._what = total, done, what
        self._is_terminal = sys.stderr.isatty()

    def tokens(self, count: int) -> None:
        """Say that the row under way has `count` tokens; on a terminal only."""
        if self._is_terminal:
            text = f"{self._done + 1} of {self._total} {self._what}, token {count}"
            print(f"{_CLEAR}{text}", end="", file=sys.stderr, flush=True)

    def row_finished(self) -> None:
        """Count one row more; the terminal's line is free for it."""
        self._done += 1
        if self._is_terminal:
            self.clear()
        else:
            say(f"{self._done} of {self._total} {self._what}")

    def fraction(self, done: int, total: int) -> None:
        """Say that `done` of `total` are done; on a terminal only, where the line changes."""
        if self._is_terminal:
            text = f"{done} of {total} {self._what}, {done / total:.0%}"
            print(f"{_CLEAR}{text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave no unfinished line behind."""
        if self._is_terminal:
            print(_CLEAR, end="", file=sys.stderr, flush=True)


class StageProgress:
    """The steps of something long, on a terminal one line that changes; elsewhere nothing."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()

    def show(self, stage: str, fraction: float | None) -> None:
        """Say what is going on; fraction: 0 to 1, or None where the length is not known."""
        if self._is_terminal:
            share = "" if fraction is None else f" {fraction:.0%}"
            print(f"{_CLEAR}{stage}{share}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the line away."""
        if self._is_terminal:
            print(_CLEAR, end="", file=sys.stderr, flush=True)
