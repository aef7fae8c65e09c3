"""What the commands that run an experiment have in common: its journal, its events, its end.

Knows no command; what a row says, only they know.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bh_studio.cli.terminal.interrupt import stop_on_interrupt
from bh_studio.cli.terminal.notices import Notices
from bh_studio.cli.terminal.progress import Progress as ProgressLine
from bh_studio.cli.terminal.streams import EXIT_INTERRUPTED, EXIT_USAGE, CommandError, say
from bh_studio.engine.errors import CancelToken
from bh_studio.engine.protocol.events import (
    ExperimentEvent,
    Finished,
    Notice,
    Progress,
    RowReady,
)
from bh_studio.engine.protocol.experiments import Experiment, kind_of
from bh_studio.engine.records.journal import SCHEMA_VERSION, Journal, with_rows
from bh_studio.engine.units import counted

if TYPE_CHECKING:
    from bh_studio.engine.loading import LoadedModel

ENDINGS = (".json", ".csv")


def add_restart_option(parser: argparse.ArgumentParser) -> None:
    """Add --restart."""
    parser.add_argument(
        "--restart",
        action="store_true",
        help="do not take over what an earlier run left at --out; replace it",
    )


def before_loading(settings: dict[str, Any]) -> dict[str, Any]:
    """`settings` but for what only the model says: whether its prompts are messages."""
    later = ("prompt_format", "system_prompt")
    return {name: value for name, value in settings.items() if name not in later}


@contextmanager
def open_journal(
    arguments: argparse.Namespace, kind: str, settings: dict[str, Any], *, replaces: bool = False
) -> Iterator[Journal]:
    """The journal of --out, if what is there was made with `settings`, which may lack some.

    replaces: a finished result there is written anew.
    Says what is kept if the block ends with an error. Raises CommandError for --restart alone,
    InputError if what is there was made with other settings or is no result at all.
    """
    if arguments.restart and arguments.out is None:
        raise CommandError("--restart needs --out.", EXIT_USAGE)
    journal = Journal(arguments.out, arguments.restart, replaces)
    journal.check(kind, settings)
    with journal:
        try:
            yield journal
        except BaseException:
            if journal.unfinished_rows:
                kept = counted(journal.unfinished_rows, "finished row")
                say(f"Kept {kept}; the same command goes on from there.")
            raise


def begin(journal: Journal, definition: Experiment, loaded: LoadedModel) -> dict[str, Any]:
    """The rows that are there already. Sums are rounded from now on as they were for those.

    Raises InputError if they were made with other settings or another model, EngineError if this
    machine cannot compute as that one did.
    """
    from bh_studio.engine.experiments.environment import (
        describe_computation,
        describe_environment,
        use_computation,
    )

    header = {
        "schema_version": SCHEMA_VERSION,
        "kind": kind_of(definition),
        "settings": definition.settings(),
        "model": asdict(loaded.info),
        "computation": describe_computation(),
        "environment": describe_environment(),
        "started_at": _now(),
    }
    rows = journal.begin(header)
    computation = journal.header.get("computation")
    if rows and computation is not None and not journal.is_finished:
        use_computation(computation)
    return rows


def carried_out(
    loaded: LoadedModel,
    definition: Experiment,
    journal: Journal,
    cancel: CancelToken,
) -> Iterator[ExperimentEvent]:
    """What happens while `definition` runs from where `journal` is; every row is kept first."""
    from bh_studio.engine.experiments.runner import run

    notices = Notices()
    for event in run(loaded, definition, dict(journal.rows), cancel):
        if isinstance(event, RowReady):
            journal.add(event.key, event.row)
        if isinstance(event, Notice):
            notices.say(event)
            continue
        yield event


def read_to_end(
    arguments: argparse.Namespace, loaded: LoadedModel, definition: Experiment, journal: Journal
) -> Any:
    """What comes of an experiment that reads texts, from where `journal` is, with its progress.

    Raises Cancelled after Ctrl+C where nothing can be said yet, and what `begin` raises.
    """
    goes_on, cancel = bool(begin(journal, definition, loaded)), CancelToken()
    lines: dict[str, ProgressLine] = {}
    try:
        with stop_on_interrupt(cancel):
            for event in carried_out(loaded, definition, journal, cancel):
                if isinstance(event, Finished):
                    return event.document
                if not isinstance(event, Progress):
                    continue
                if event.stage not in lines:
                    lines[event.stage] = ProgressLine(1, 0, f"window passes ({event.stage})")
                    if goes_on and event.done:
                        say_taken_over(arguments.out, event.done, event.total, "window passes")
                lines[event.stage].fraction(event.done, event.total)
    finally:
        for line in lines.values():
            line.clear()
    raise AssertionError("An experiment always ends with Finished.")


def document(journal: Journal, complete: bool, content: dict[str, Any]) -> dict[str, Any]:
    """The whole result, ready for json.dump; what the header says of the run holds."""
    finished_at = journal.header.get("finished_at", _now())
    return {**content, **journal.header, "finished_at": finished_at, "complete": complete}


def write_result(
    journal: Journal, out: Path | None, whole: dict[str, Any], to_csv: Callable[[], bytes]
) -> None:
    """Write the complete result at --out, and say so. whole: with its rows by key under "rows"."""
    if out is None:
        return
    if out.suffix == ".csv":
        is_new = journal.finish(to_csv(), holds_rows=False)
    else:
        rows = {row["key"]: row for row in whole["rows"]}
        rest = {name: value for name, value in whole.items() if name != "rows"}
        is_new = journal.finish(with_rows(rest, rows), holds_rows=True)
    if is_new:
        say(f"Saved {out}")


def keyed(journal: Journal) -> list[dict[str, Any]]:
    """The rows of the journal, each with its key."""
    return [{"key": key, **row} for key, row in journal.rows.items()]


def json_text(whole: dict[str, Any]) -> str:
    """A document on one line, as --json prints it."""
    return json.dumps(whole, allow_nan=False)


def say_taken_over(out: Path | None, done: int, total: int, what: str) -> None:
    """Say what an earlier run has done already."""
    if done and done == total:
        say(f"{out} has all {total} {what} already.")
    elif done:
        say(f"{done} of {total} {what} taken over from {out}.")


def stopped(out: Path | None, done: int, total: int, what: str) -> int:
    """Say what an interrupted run has done, and how to go on; the exit code."""
    kept = "They are kept; the same command goes on from there."
    lost = "With --out they would have been kept."
    advice = "" if done == 0 else kept if out else lost
    say(f"Stopped after {done} of {total} {what}. {advice}".rstrip())
    return EXIT_INTERRUPTED


def say_interrupted(out: Path | None) -> int:
    """Say what becomes of what an interrupted run has read; the exit code."""
    kept = "What was read is kept; the same command goes on from there."
    say(f"Stopped. {kept if out else 'With --out what was read would have been kept.'}")
    return EXIT_INTERRUPTED


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
