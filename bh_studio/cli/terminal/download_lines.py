"""How far a download is, on standard error.

On a terminal one line that changes; elsewhere a line for every tenth.
"""

from __future__ import annotations

import sys

from bh_studio.cli.terminal.streams import say, terminal_width
from bh_studio.engine.hub.events import (
    DownloadEvent,
    DownloadPlanned,
    DownloadProgress,
    DownloadRetrying,
    DownloadStalled,
    FileDamaged,
    VerifyProgress,
)
from bh_studio.engine.units import format_bytes

_CLEAR = "\r\x1b[K"
_STEPS = 10


class DownloadLines:
    """Shows events. shows_plan: also say what will be fetched."""

    def __init__(self, *, shows_plan: bool) -> None:
        self._shows_plan = shows_plan
        self._is_terminal = sys.stderr.isatty()
        self._step: tuple[str, int] | None = None

    def show(self, event: DownloadEvent) -> None:
        """Show `event`, if it is one to show on the way."""
        if isinstance(event, DownloadProgress):
            self._progress("Fetching", event.done, event.total, _pace(event))
        elif isinstance(event, VerifyProgress):
            self._progress("Verifying", event.done, event.total, "")
        elif isinstance(event, DownloadPlanned) and self._shows_plan:
            self._say(_plan_line(event))
        elif isinstance(event, DownloadStalled):
            self._say(f"Nothing has come for {event.seconds:.0f} seconds; still waiting.")
        elif isinstance(event, DownloadRetrying):
            attempt = f"attempt {event.attempt} of {event.attempts}"
            self._say(f"{event.message} Trying again in {event.seconds:.0f} s ({attempt}).")
        elif isinstance(event, FileDamaged):
            self._say(f"{event.file} is damaged; it is fetched again.")

    def end(self) -> None:
        """Leave the line free for what comes next."""
        if self._is_terminal:
            print(_CLEAR, end="", file=sys.stderr, flush=True)

    def _say(self, text: str) -> None:
        self.end()
        say(text)

    def _progress(self, what: str, done: int, total: int, pace: str) -> None:
        text = f"{what} {_share(done, total)}{pace}"
        if self._is_terminal:
            print(f"{_CLEAR}{text[: terminal_width() - 1]}", end="", file=sys.stderr, flush=True)
            return
        step = (what, done * _STEPS // total if total else _STEPS)
        if step != self._step:
            self._step = step
            say(text)


def _plan_line(plan: DownloadPlanned) -> str:
    if not plan.needed:
        return f"{plan.source}: {format_bytes(plan.total)}, all of it here"
    here = f", {format_bytes(plan.present)} of it here" if plan.present else ""
    return (
        f"{plan.source}: {format_bytes(plan.total)} in {len(plan.files)} files{here}; "
        f"{format_bytes(plan.free)} free in {plan.cache}"
    )


def _share(done: int, total: int) -> str:
    share = done / total if total else 1.0
    return f"{format_bytes(done)} of {format_bytes(total)}, {share:.0%}"


def _pace(event: DownloadProgress) -> str:
    if event.bytes_per_second is None or event.seconds_left is None:
        return ""
    return f", {format_bytes(event.bytes_per_second)}/s, {_duration(event.seconds_left)} left"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
