"""The files that a session can be saved to from the terminal, by their ending."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bh_studio.cli.output_file import write_output
from bh_studio.engine.session import Session
from bh_studio.engine.session_file import SUFFIX, export_csv, export_json, save_session

SESSION_WRITERS: dict[str, Callable[[Session, Path], None]] = {
    SUFFIX: save_session,
    ".json": export_json,
    ".csv": export_csv,
}


def write_session(session: Session, path: Path) -> None:
    """Write `session` to `path`, whose ending is one of SESSION_WRITERS.

    Raises CommandError with a sentence if the disk refuses.
    """
    write_output(lambda target: SESSION_WRITERS[target.suffix](session, target), path)
