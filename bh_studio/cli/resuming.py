"""Where the result of an experiment is kept: what commands say of it before and after they run one.

Knows no command. What is kept of an experiment and how, the engine knows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bh_studio.cli.options import check_ending, write_and_show
from bh_studio.cli.terminal.streams import (
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    CommandError,
    print_result,
    say,
)
from bh_studio.engine.errors import InputError
from bh_studio.engine.protocol.events import Progress
from bh_studio.engine.protocol.experiments import Experiment, kind_of
from bh_studio.engine.records.journal import Journal
from bh_studio.engine.records.result_document import Result, file_of, result_document
from bh_studio.engine.units import counted

ENDINGS = (".json", ".csv")


def add_restart_option(parser: argparse.ArgumentParser) -> None:
    """Add --restart."""
    parser.add_argument(
        "--restart",
        action="store_true",
        help="do not take over what an earlier run left at --out; replace it",
    )


@contextmanager
def open_journal(
    arguments: argparse.Namespace,
    definition: Experiment,
    endings: tuple[str, ...] = ENDINGS,
    *,
    replaces: bool = False,
) -> Iterator[Journal]:
    """The journal of --out, if what is there was made with the settings that `definition` has yet.

    endings: that its result may have. replaces: a finished result there is written anew.
    Says what is kept if the block ends with an error. Raises CommandError for --restart alone and
    another ending, InputError if what is there was made with other settings or is no result at all.
    """
    if arguments.restart and arguments.out is None:
        raise CommandError("--restart needs --out.", EXIT_USAGE)
    check_ending(arguments.out, endings)
    journal = Journal(arguments.out, arguments.restart, replaces)
    journal.check(kind_of(definition), definition.settings())
    with journal:
        try:
            yield journal
        except InputError:
            # It will be refused the next time too.
            raise
        except BaseException:
            if journal.unfinished_rows:
                kept = counted(journal.unfinished_rows, "finished row")
                say(f"Kept {kept}; the same command goes on from there.")
            raise


def write_and_print(
    arguments: argparse.Namespace,
    journal: Journal,
    result: Result,
    to_text: Callable[[], str],
    to_csv: Callable[[], bytes] | None = None,
) -> None:
    """Write `result` at --out if it is complete, and print it, even if the disk refuses it.

    to_text, to_csv: what is printed without --json, and what a .csv holds. Raises EngineError for
    what the disk refuses.
    """
    document = result_document(journal, result)

    def show() -> None:
        print_result(json.dumps(document, allow_nan=False) if arguments.json else to_text())

    write_and_show(
        arguments.out if result.is_complete else None,
        lambda out: write_result(journal, out, document, to_csv),
        show,
    )


def write_result(
    journal: Journal, out: Path, document: dict[str, Any], to_csv: Callable[[], bytes] | None
) -> None:
    """Write the whole `document`, or the table that a .csv holds, at `out`, and say so."""
    if to_csv is not None and out.suffix == ".csv":
        is_new = journal.finish(to_csv(), holds_rows=False)
    else:
        is_new = journal.finish(file_of(document), holds_rows=True)
    if is_new:
        say(f"Saved {out}")


def stopped(out: Path | None, progress: Progress) -> int:
    """Say what an interrupted run has done, and how to go on; the exit code."""
    kept = "They are kept; the same command goes on from there."
    lost = "With --out they would have been kept."
    advice = "" if progress.done == 0 else kept if out else lost
    say(f"Stopped after {progress.done} of {progress.total} {progress.stage}. {advice}".rstrip())
    return EXIT_INTERRUPTED


def say_interrupted(out: Path | None) -> int:
    """Say what becomes of what an interrupted run has read; the exit code."""
    kept = "What was read is kept; the same command goes on from there."
    say(f"Stopped. {kept if out else 'With --out what was read would have been kept.'}")
    return EXIT_INTERRUPTED
