"""An experiment as it happens: its events become progress, rows and notices; Ctrl+C stops it.

Knows no command; what a row looks like, only they know.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bh_studio.cli.loading import Loaded
from bh_studio.cli.terminal.interrupt import stop_on_interrupt
from bh_studio.cli.terminal.notices import Notices
from bh_studio.cli.terminal.progress import Progress as ProgressLine
from bh_studio.cli.terminal.streams import print_result, say
from bh_studio.engine.errors import CancelToken
from bh_studio.engine.protocol.events import (
    Activity,
    Event,
    Finished,
    Notice,
    Progress,
    RowReady,
    TokenGenerated,
)
from bh_studio.engine.protocol.experiments import Batch, Experiment, Sweep
from bh_studio.engine.protocol.requests import RunKept
from bh_studio.engine.records.journal import Journal


class Answered(NamedTuple):
    """What came of an experiment that answers prompts.

    progress: how far it is. is_wanted: whether anybody still reads what it prints, or keeps it.
    """

    result: Any
    progress: Progress
    is_wanted: bool


def answer_all(
    arguments: argparse.Namespace,
    loaded: Loaded,
    definition: Sweep | Batch,
    journal: Journal,
    head: str,
    show: Callable[[Mapping[str, dict[str, Any]]], bool],
) -> Answered:
    """Have every prompt answered, from where `journal` is, with progress.

    head: titles of what `show` prints. show: prints rows, by key, as soon as they are there, those
    that were taken over first; whether anybody still reads them. Raises what Host.answer raises.
    """
    cancel, is_wanted = CancelToken(), True
    line: ProgressLine | None = None
    progress = Progress("", 0, 0)
    try:
        with stop_on_interrupt(cancel):
            for event in _events(loaded, definition, journal, cancel):
                rows: Mapping[str, dict[str, Any]] = {}
                if isinstance(event, Finished):
                    return Answered(event.document, progress, is_wanted)
                if isinstance(event, Progress):
                    progress = event
                if line is None:
                    _say_taken_over(arguments.out, progress, progress.stage)
                    line = ProgressLine(progress.total, progress.done, progress.stage)
                    if not arguments.json:
                        print_result(head)
                    rows = dict(journal.rows)
                elif isinstance(event, TokenGenerated):
                    line.tokens(event.index + 1)
                elif isinstance(event, RowReady):
                    line.row_finished()
                    rows = {event.key: event.row}
                if rows and not show(rows) and arguments.out is None:
                    is_wanted = False
                    cancel.cancel()
    finally:
        if line is not None:
            line.clear()
    raise AssertionError("An experiment always ends with Finished.")


def read_to_end(
    arguments: argparse.Namespace, loaded: Loaded, definition: Experiment, journal: Journal
) -> Any:
    """What comes of an experiment that reads texts, from where `journal` is, with its progress.

    Raises Cancelled after Ctrl+C where nothing can be said yet, and what Host.answer raises.
    """
    cancel, has_read = CancelToken(), False
    lines: dict[str, ProgressLine] = {}
    try:
        with stop_on_interrupt(cancel):
            for event in _events(loaded, definition, journal, cancel):
                if isinstance(event, Finished):
                    return event.document
                has_read = has_read or isinstance(event, RowReady)
                if not isinstance(event, Progress):
                    continue
                if event.stage not in lines:
                    line = ProgressLine(1, 0, f"window passes ({event.stage})")
                    lines[event.stage] = line
                    if not has_read:
                        line.clear()
                        _say_taken_over(arguments.out, event, "window passes")
                lines[event.stage].fraction(event.done, event.total)
    finally:
        for line in lines.values():
            line.clear()
    raise AssertionError("An experiment always ends with Finished.")


def _events(
    loaded: Loaded, definition: Experiment, journal: Journal, cancel: CancelToken
) -> Iterator[Event]:
    """What happens while `definition` runs from where `journal` is; notices are said."""
    notices = Notices()
    for event in loaded.answer(RunKept(definition, journal), cancel):
        if isinstance(event, Notice):
            notices.say(event)
        elif isinstance(event, Activity):
            say(event.text)
        else:
            yield event


def _say_taken_over(out: Path | None, progress: Progress, what: str) -> None:
    """Say what earlier runs have done already."""
    if progress.done and progress.done == progress.total:
        say(f"{out} has all {progress.total} {what} already.")
    elif progress.done:
        say(f"{progress.done} of {progress.total} {what} taken over from {out}.")
