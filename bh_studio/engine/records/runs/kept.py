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

from bh_studio.engine.files.lock import LockedError, locked
from bh_studio.engine.records.runs.lines import EVENTS, HEADER, EndLine, RunEnd
from bh_studio.engine.records.runs.reader import changed_at, read_end, read_header
from bh_studio.engine.records.session import SUFFIX, SessionError
from bh_studio.engine.records.session_file import load_session
from bh_studio.engine.rules.parameters import RuleParameters

# As many as a person looks through; the files of the others are as good as these.
_MOST = 1000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A run that is kept. path: its folder, or the `.bhsession` that earlier versions wrote.

    started_at: ISO 8601. model: its name. end: how it ended; None while it goes on.
    """

    path: Path
    started_at: str
    prompt: str
    model: str
    rule: RuleParameters
    end: RunEnd | None


def new_run_folder(history: Path) -> Path:
    """Where in `history` a run is kept that begins now; the folder is not made."""
    now = datetime.now().astimezone()
    name = f"{now:%Y-%m-%dT%H-%M-%S}_{secrets.token_hex(4)}"
    return history / f"{now:%Y}" / f"{now:%m}" / name


def kept_runs(history: Path, former: Path) -> tuple[KeptRun, ...]:
    """The runs in `history` and the session files in `former`, the newest first, at most 1,000.

    What cannot be read is left out, and said in the log.
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
    return tuple(_runs([folder for folder in folders if _marks_cut_off(folder)]))


def _runs(folders: list[Path]) -> Iterator[KeptRun]:
    for folder in folders:
        if not (folder / HEADER).is_file():
            continue
        try:
            header, end = read_header(folder), read_end(folder)
            started = _checked_time(header.started_at)
        except (OSError, ValueError) as error:
            _log.warning("The run in %s is not listed: %s", folder, error)
            continue
        (rule,) = (side for side in header.sides if side is not None)
        how = end.how if end else None
        yield KeptRun(folder, started, header.prompt, header.model.name, rule, how)


def _sessions(files: list[Path]) -> Iterator[KeptRun]:
    for path in files:
        try:
            session = load_session(path)
            started = _checked_time(session.started_at)
        except (OSError, SessionError, ValueError) as error:
            _log.warning("%s is not listed: %s", path, error)
            continue
        name = session.model.name
        yield KeptRun(path, started, session.prompt, name, session.rule, RunEnd.COMPLETE)


def _checked_time(time: str) -> str:
    datetime.fromisoformat(time)
    return time


def _marks_cut_off(folder: Path) -> bool:
    """Whether the run in `folder` was cut off, which is said in it from now on."""
    path = folder / EVENTS
    try:
        with locked(path, seconds=0):
            if not path.is_file() or read_end(folder) is not None:
                return False
            end = EndLine(RunEnd.CUT_OFF, changed_at(folder))
            with path.open("rb+") as file:
                # The last line may have been cut short too.
                whole = file.read().rfind(b"\n") + 1
                file.seek(whole)
                file.truncate()
                file.write(msgspec.json.encode(end) + b"\n")
            return whole > 0
    except (LockedError, OSError) as error:
        _log.info("The run in %s is not looked at: %s", folder, error)
        return False
