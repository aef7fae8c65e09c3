"""What the commands that make many rows have in common: their options, header and end.

Knows no command; what a row is, only they know.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from bh_studio.cli.terminal.progress import Progress
from bh_studio.cli.terminal.streams import EXIT_INTERRUPTED, EXIT_USAGE, CommandError, say
from bh_studio.engine.protocol.events import TokenGenerated
from bh_studio.engine.records.journal import ResultFile
from bh_studio.engine.units import counted

if TYPE_CHECKING:
    from bh_studio.engine.loading import LoadedModel


class _Row(Protocol):
    def to_json(self) -> dict[str, Any]: ...


_R = TypeVar("_R", bound=_Row)

SCHEMA_VERSION = 1
ENDINGS = (".json", ".csv")


def add_restart_option(parser: argparse.ArgumentParser) -> None:
    """Add --restart."""
    parser.add_argument(
        "--restart",
        action="store_true",
        help="do not take over what an earlier run left at --out; replace it",
    )


@contextmanager
def open_result(arguments: argparse.Namespace, description: dict[str, Any]) -> Iterator[ResultFile]:
    """The result at --out, if what is there was made with the settings of `description`.

    Says what is kept if the block ends with an error. Raises CommandError for --restart alone,
    InputError if what is there was made with other settings or is no result at all.
    """
    if arguments.restart and arguments.out is None:
        raise CommandError("--restart needs --out.", EXIT_USAGE)
    result = ResultFile(arguments.out, arguments.restart)
    result.check(description)
    with result:
        try:
            yield result
        except BaseException:
            if result.unfinished_rows:
                kept = counted(result.unfinished_rows, "finished row")
                say(f"Kept {kept}; the same command goes on from there.")
            raise


def write_result(
    result: ResultFile, out: Path | None, formats: Mapping[str, Callable[[], bytes]]
) -> None:
    """Write the finished result at --out, by its ending one of `formats`, and say so."""
    if result.finish(formats):
        say(f"Saved {out}")


def header(description: dict[str, Any], loaded: LoadedModel) -> dict[str, Any]:
    """What a result says of itself: the settings in `description`, the model and the machine."""
    from bh_studio.engine.experiments.environment import describe_environment

    return {
        "schema_version": SCHEMA_VERSION,
        **description,
        "model": asdict(loaded.info),
        "environment": describe_environment(),
        "started_at": _now(),
    }


def collect(
    events: Iterable[TokenGenerated | _R],
    rows: list[_R],
    result: ResultFile,
    progress: Progress,
    show: Callable[[_R], bool],
) -> None:
    """Add the rows among `events` to `rows`, each kept and shown as soon as it is there.

    show: whether it is worth going on.
    """
    try:
        for event in events:
            if isinstance(event, TokenGenerated):
                progress.tokens(event.index + 1)
                continue
            result.add(event.to_json())
            rows.append(event)
            progress.row_finished()
            if not show(event):
                return
    finally:
        progress.clear()


def document(result: ResultFile, is_complete: bool, **content: Any) -> dict[str, Any]:
    """The whole result, ready for json.dump."""
    finished_at = result.header.get("finished_at", _now())
    return {**result.header, "finished_at": finished_at, "complete": is_complete, **content}


def json_file(whole: dict[str, Any]) -> bytes:
    """A document as people and scripts read it."""
    return json.dumps(whole, ensure_ascii=False, indent=1, allow_nan=False).encode()


def say_taken_over(out: Path | None, done: int, total: int, what: str) -> None:
    """Say what an earlier run has done already."""
    if done == total:
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


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
