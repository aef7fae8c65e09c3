"""How much the kept runs take, and the oldest of them where that is more than a person wants.

Nothing is removed here that was not asked for.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bh_studio.engine.files.lock import LockedError, locked
from bh_studio.engine.records.runs.lines import EVENTS, HEADER

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HistorySize:
    """bytes: of all kept runs. surplus: how many of the oldest make up what is over the limit."""

    bytes: int
    surplus: int


def history_size(history: Path, most_bytes: int) -> HistorySize:
    """What the runs in `history` take, of which `most_bytes` are wanted."""
    sizes = [_bytes_of(folder) for folder in _oldest_first(history)]
    left = total = sum(sizes)
    surplus = 0
    while left > most_bytes:
        left -= sizes[surplus]
        surplus += 1
    return HistorySize(total, surplus)


def remove_oldest(history: Path, runs: int) -> int:
    """Remove the oldest `runs` in `history`, but for what is being written; how many that were.

    Raises OSError if the disk refuses.
    """
    removed = 0
    for folder in _oldest_first(history)[:runs]:
        try:
            with locked(folder / EVENTS, seconds=0):
                # First, for a folder without it is no run any more, whatever happens then.
                (folder / HEADER).unlink()
        except (LockedError, FileNotFoundError) as error:
            _log.info("The run in %s is left: %s", folder, error)
            continue
        shutil.rmtree(folder)
        removed += 1
    return removed


def _oldest_first(history: Path) -> list[Path]:
    """The folders of runs; their names begin with the time. A link leads elsewhere."""
    return sorted(_folders(history), key=lambda folder: folder.name)


def _folders(history: Path) -> Iterator[Path]:
    for folder in history.glob("*/*/*"):
        if not folder.is_symlink() and (folder / HEADER).is_file():
            yield folder


def _bytes_of(folder: Path) -> int:
    total = 0
    for path in folder.iterdir():
        try:
            total += path.lstat().st_size
        except OSError:
            continue
    return total
