"""Disks that are full, write-protected or gone: a sentence, the result printed, nothing spoilt.

As root with file systems of its own, which are mounted and unmounted here; as anyone else with a
limit on the size of files for the full disk, and with permissions.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bh_studio.engine.records.journal import rows_path
from tools.interruptions.commands import content, kept_rows
from tools.interruptions.programs import Ended, Place, Running
from tools.interruptions.trials import Faulty, Found, Ground, Reference, check_sentence

_DISK = "disk"
_PAGE = 4096
_FAILED, _REFUSED = 1, 2
# Of capset, as linux/capability.h has it.
_CAPABILITIES_VERSION = 0x20080522
_FORMER = b"What was here before.\n"
Kind = Callable[["_Trial"], str]


class _Trial:
    """One command with its --out on a disk of its own."""

    def __init__(self, place: Place, reference: Reference, drawn: random.Random) -> None:
        self.place = place
        self.reference = reference
        self.drawn = drawn
        self.disk = place.work / _DISK
        self.out = self.disk / reference.command.out

    def start(self, first: Callable[[], None] | None = None) -> Running:
        """Start the command."""
        command = self.reference.command
        out = f"{_DISK}/{command.out}"
        return Running(
            [*command.arguments, "--out", out], self.place, program=command.program,
            given=command.given, first=first,
        )  # fmt: skip

    def check_done(self, ended: Ended) -> None:
        """Raise Faulty unless the result is that of an undisturbed run."""
        if ended.code != 0:
            raise Faulty(f"It ended with {ended.code}: {ended.complained[-300:]}")
        if content(self.out) != self.reference.content:
            raise Faulty("It came to another result.")

    def check_refused(self, ended: Ended) -> str:
        """Raise Faulty unless the failure was said, and what was computed printed."""
        if ended.code not in (_FAILED, _REFUSED):
            raise Faulty(f"It ended with {ended.code}: {ended.complained[-300:]}")
        check_sentence(ended)
        if ended.code == _REFUSED:
            return "refused before the work"
        is_of_rows = rows_path(self.out).name in ended.complained
        if not is_of_rows and _lines(ended.said) != _lines(self.reference.said):
            raise Faulty(f"The result was not printed: {ended.said[-300:]!r}")
        return "a row was refused" if is_of_rows else "printed, not written"

    def check_left(self, former: bytes | None = None) -> None:
        """Raise Faulty if something is half written or left beside."""
        rows = rows_path(self.out)
        names = {path.name for path in self.disk.iterdir()} - {self.out.name, rows.name}
        if names:
            raise Faulty(f"It left {', '.join(sorted(names))}.")
        if former is not None and self.out.read_bytes() != former:
            raise Faulty("What was there before is gone.")
        if former is None and self.out.exists() and content(self.out) != self.reference.content:
            raise Faulty("The result is half written.")
        if self.reference.command.keeps_rows:
            kept_rows(self.out)


def refused(ground: Ground, number: int) -> Found:
    """One kind of disk after the other, and one command after the other."""
    names = list(_KINDS)
    name = names[number % len(names)]
    reference = ground.references[number // len(names) % len(ground.references)]
    found = Found("disks", number, name, reference.command.name)
    place = ground.place_for(reference.command, f"disks {number}")
    (place.work / _DISK).mkdir()
    trial = _Trial(place, reference, ground.drawn("disks", number))
    try:
        found.outcome = _KINDS[name](trial)
    except (Faulty, ValueError) as fault:
        found.outcome = "fault"
        found.faults.append(str(fault))
    return found


def _full(trial: _Trial) -> str:
    """Room for less, or for hardly more, than the command writes; then there is more."""
    most = (trial.reference.folder / trial.out.name).stat().st_size
    with contextlib.suppress(OSError):
        most += rows_path(trial.reference.folder / trial.out.name).stat().st_size
    pages = trial.drawn.randint(1, 3 + int(2 * most / _PAGE))
    if not _can_mount():
        return _limited(trial, pages * _PAGE)
    with _mounted(trial.disk, pages):
        ended = trial.start().end()
        if ended.code == 0:
            trial.check_done(ended)
            return "there was room"
        outcome = trial.check_refused(ended)
        trial.check_left()
        subprocess.run(["mount", "-o", "remount,size=64m", trial.disk], check=True)
        trial.check_done(trial.start().end())
    return f"{outcome}, then done"


def _limited(trial: _Trial, size: int) -> str:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    ended = trial.start(limit).end()
    if ended.code == 0:
        trial.check_done(ended)
        return "there was room"
    outcome = trial.check_refused(ended)
    trial.check_left()
    trial.check_done(trial.start().end())
    return f"{outcome}, then done"


def _read_only(trial: _Trial) -> str:
    """A disk that is write-protected before the command begins, or in the middle of it."""
    with _mounted(trial.disk, 4 * _PAGE) if _can_mount() else _closed(trial.disk):
        if not _can_mount() or trial.drawn.random() < 0.5:
            _protect(trial.disk)
            ended = trial.start().end()
        else:
            running = trial.start()
            running.after(trial.drawn.random() * trial.reference.seconds)
            # The system refuses it while a file is open for writing, as the rows' file is.
            _protect(trial.disk)
            ended = running.end()
        if ended.code == 0:
            trial.check_done(ended)
            return "done before"
        outcome = trial.check_refused(ended)
        if _can_mount():
            subprocess.run(["mount", "-o", "remount,rw", trial.disk], check=True)
        _check_lock_only(trial)
        return outcome


def _protected_file(trial: _Trial) -> str:
    """A file of that name that may not be written, which holds for root too."""
    trial.out.write_bytes(_FORMER)
    trial.out.chmod(0o444)
    outcome = trial.check_refused(trial.start().end())
    trial.check_left(_FORMER)
    return outcome


def _anothers_folder(trial: _Trial) -> str:
    """A folder in which only somebody else may write."""
    trial.disk.chmod(0o555)
    ended = trial.start(_obey_permissions).end()
    outcome = trial.check_refused(ended)
    trial.check_left()
    return outcome


def _gone(trial: _Trial) -> str:
    """The folder is removed at any moment; it is not made again."""
    running = trial.start()
    running.after(trial.drawn.random() * trial.reference.seconds)
    # At once: what is written while files are removed one by one would keep the folder.
    shutil.rmtree(trial.disk.rename(trial.disk.with_name(f"{_DISK} removed")))
    ended = running.end()
    if ended.code == 0:
        if trial.disk.exists():
            raise Faulty("It made the folder again.")
        if _lines(ended.said) != _lines(trial.reference.said):
            raise Faulty("It ended with 0 and has not printed its result.")
        return "done before"
    outcome = trial.check_refused(ended)
    if trial.disk.exists():
        raise Faulty(f"The folder is there again, with {os.listdir(trial.disk)}.")
    return outcome


_KINDS: dict[str, Kind] = {
    "full": _full,
    "gone": _gone,
    "read-only disk": _read_only,
    "read-only file": _protected_file,
    "another's folder": _anothers_folder,
}


def _check_lock_only(trial: _Trial) -> None:
    """A disk that became read-only keeps what could no longer be removed from it."""
    for path in trial.disk.iterdir():
        is_hidden = path.name.startswith(".") and path.suffix in (".lock", ".tmp")
        if not is_hidden and path not in (trial.out, rows_path(trial.out)):
            raise Faulty(f"It left {path.name}.")


def _obey_permissions() -> None:
    """Have this process obey permissions though it is root's: give up all that sets root apart."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0)
    if os.geteuid() == 0 and ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError("Permissions are not obeyed.")


def _can_mount() -> bool:
    return os.geteuid() == 0 and shutil.which("mount") is not None


@contextmanager
def _mounted(folder: Path, pages: int) -> Iterator[None]:
    size = f"size={pages * _PAGE}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def _closed(folder: Path) -> Iterator[None]:
    yield
    folder.chmod(0o755)


def _protect(folder: Path) -> None:
    if _can_mount():
        subprocess.run(["mount", "-o", "remount,ro", folder], check=False, capture_output=True)
    else:
        folder.chmod(0o555)


def _lines(text: str) -> int:
    return len(text.splitlines())
