"""What a person opens, by what is in it: a session, or what the sides made of a text.

Knows no thread and no job.
"""

from __future__ import annotations

from pathlib import Path

from bh_studio.engine.errors import InputError
from bh_studio.engine.files.plain_json import JsonError, check_encodable
from bh_studio.engine.protocol.events import ResultRead, SessionRead
from bh_studio.engine.reading import Result, read
from bh_studio.engine.records.runs.reader import open_session
from bh_studio.engine.records.same_text.result import SameTextResult

# White space before a document, and its first character.
_HEAD_BYTES = 64
# Four sides of fifty thousand tokens. Read, it takes about five times as much, and can take twenty
# times.
_MOST_BYTES = 32 * 2**20


def opened(path: Path) -> SessionRead | ResultRead:
    """What is in `path`, a file or the folder of a run.

    Raises InputError and SessionError with a sentence for what cannot be shown, OSError if it
    cannot be opened.
    """
    return _result(path) if _is_json(path) else SessionRead(open_session(path))


def _result(path: Path) -> ResultRead:
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(
            f"{path.name} is longer than the {_MOST_BYTES >> 20} MiB that a result may have here.",
            "bh_studio.read reads it in a notebook.",
        )
    found = read(path)
    record = found.record if isinstance(found, Result) else None
    if not isinstance(found, Result) or not isinstance(record, SameTextResult):
        raise InputError(
            f"{path.name} holds something else than a text that all sides read.",
            "bh_studio.read reads it in a notebook.",
        )
    try:
        # What is opened can be saved again.
        check_encodable(found.document)
    except JsonError as error:
        raise InputError(f"{path.name} is damaged: {error}") from None
    return ResultRead(record, found.document)


def _is_json(path: Path) -> bool:
    """Whether `path` is a file that begins as a JSON object does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES).lstrip().startswith(b"{")
