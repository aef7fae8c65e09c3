"""The folder that keeps every run, whether a person saved it or not: its places, what is there."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

import msgspec

from bh_studio.engine.errors import InputError
from bh_studio.engine.files.bounded import read_bytes
from bh_studio.engine.files.lock import locked
from bh_studio.engine.records.runs.lines import EVENTS, HEADER, EndLine, RunEnd
from bh_studio.engine.records.runs.reader import (
    MOST_EVENT_BYTES,
    changed_at,
    read_end,
    read_header,
)
from bh_studio.engine.records.session import SUFFIX
from bh_studio.engine.records.session_file import load_session
from bh_studio.engine.rules.parameters import RuleParameters

# As many as a person looks through; the files of the others are as good as these.
_MOST = 1000

# Whoever has changed a file; a time may lie where no clock shows one.
_UNREADABLE = (OSError, OverflowError, ValueError)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A run that is kept. path: its folder, or the `.bhsession` that earlier versions wrote.

    started_at: ISO 8601. model: its name. sides: as Session has them. end: how it ended; None while
    it goes on.
    """

    path: Path
    started_at: str
    prompt: str
    model: str
    sides: tuple[RuleParameters | None, ...]
    end: RunEnd | None


def new_run_folder(history: Path) -> Path:
    """Where in `history` a run is kept that begins now; the folder is not made."""
    now = datetime.now().astimezone()
    name = f"{now:%Y-%m-%dT%H-%M-%S}_{secrets.token_hex(4)}"
    return history / f"{now:%Y}" / f"{now:%m}" / name


def kept_runs(history: Path, former: Path) -> tuple[KeptRun, ...]:
    """The runs in `history` and the session files in `former`, the newest first, at most 1,000.

    What cannot be read is left out, and said in the log. Runs whose program was killed say so in
    their folders from then on.
    """
    folders = sorted(history.glob("*/*/*"), key=lambda path: path.name, reverse=True)
    files = sorted(former.glob(f"*{SUFFIX}"), reverse=True)
    found = [*islice(_runs(folders), _MOST), *islice(_sessions(files), _MOST)]
    found.sort(key=lambda run: datetime.fromisoformat(run.started_at).timestamp(), reverse=True)
    return tuple(found[:_MOST])


def take_cut_off(history: Path) -> tuple[KeptRun, ...]:
    """The runs in `history` whose program was killed, the newest first, each found only once.

    From then on their folders say how they ended.
    """
    events = history.glob(f"*/*/*/.{EVENTS}.lock")
    folders = sorted((path.parent for path in events), key=lambda path: path.name, reverse=True)
    return tuple(_runs([folder for folder in folders if _mark_cut_off(folder)]))


def _runs(folders: list[Path]) -> Iterator[KeptRun]:
    for folder in folders:
        try:
            if not (folder / HEADER).is_file():
                continue
            header, end = read_header(folder), read_end(folder)
            started = _checked_time(header.started_at)
        except _UNREADABLE as error:
            _log.warning("The run in %s is not listed: %s", folder, error)
            continue
        how = end.how if end else None
        if how is None and _mark_cut_off(folder) is not None:
            how = RunEnd.CUT_OFF
        yield KeptRun(folder, started, header.prompt, header.model.name, header.sides, how)


def _sessions(files: list[Path]) -> Iterator[KeptRun]:
    for path in files:
        try:
            session = load_session(path)
            started = _checked_time(session.started_at)
        except _UNREADABLE as error:
            _log.warning("%s is not listed: %s", path, error)
            continue
        name = session.model.name
        yield KeptRun(path, started, session.prompt, name, session.sides, RunEnd.COMPLETE)


def _checked_time(time: str) -> str:
    """`time` if it is one that a clock here can show. Raises ValueError, OverflowError."""
    datetime.fromisoformat(time).astimezone()
    return time


def _mark_cut_off(folder: Path) -> int | None:
    """Say in `folder` that its run was cut off, if it was: nobody writes it, and it has no end.

    How many bytes had been said by then; None for another run, and where nobody can know.
    """
    path = folder / EVENTS
    try:
        with locked(path, seconds=0) as is_mine:
            # What a link leads to may be anything, and is not for us to change.
            if not is_mine or path.is_symlink() or not path.is_file() or read_end(folder):
                return None
            # The last line may have been cut short too.
            whole = read_bytes(path, MOST_EVENT_BYTES, "a run").rfind(b"\n") + 1
            end = EndLine(RunEnd.CUT_OFF, changed_at(folder))
            with path.open("rb+") as file:
                file.truncate(whole)
                file.seek(whole)
                file.write(msgspec.json.encode(end) + b"\n")
            return whole
    except (InputError, *_UNREADABLE) as error:
        _log.info("The run in %s is not looked at: %s", folder, error)
        return None
