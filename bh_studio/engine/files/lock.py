"""A file that only one process writes at a time; who comes second is told who is first.

The lock is the system's own, on a hidden file beside the one that is written. It ends with the
process that has it, however that ends.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bh_studio.engine.errors import InputError
from bh_studio.engine.files.beside import beside
from bh_studio.engine.files.plain_json import JsonError, decode, encode

# Long enough for a lock that is just being given back.
_MOMENT = 0.1
_MOST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class _Holder:
    """Who has a lock, as its file says. since: with the time zone."""

    process: int
    host: str
    since: datetime


class LockedError(InputError):
    """Another process writes the file. holder: which, in words, such as "another bh-studio"."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(
            f"{path} is being written by {holder}.", "Wait for it, or choose another file."
        )
        self.holder = holder


@contextmanager
def locked(path: Path, seconds: float = _MOMENT) -> Iterator[bool]:
    """Hold the lock of `path`, whatever link leads there; neither need exist. Whether it is held.

    seconds: how long to wait for another process, or another place of this one. Where there can be
    no lock, such as in a folder that cannot be written to or on a file system without them, the
    block runs all the same. Raises LockedError if another still has it.
    """
    # Not at the top: the start of the program would wait for it.
    import filelock

    target = Path(os.path.realpath(path))
    file = beside(target, ".", ".lock")
    lock = filelock.FileLock(file, timeout=seconds, fallback_to_soft=False)
    try:
        # filelock would make a folder that is not there.
        if target.parent.is_dir():
            lock.acquire()
    except filelock.Timeout:
        raise LockedError(path, _holder(file)) from None
    except OSError:
        pass
    if not lock.is_locked:
        yield False
        return
    try:
        # On Windows a file that is locked cannot be written by another handle.
        with suppress(OSError):
            file.write_bytes(_myself())
        yield True
    finally:
        # First, so that nobody can have locked what is removed; who has opened it already sees that
        # it is gone.
        with suppress(OSError):
            file.unlink()
        lock.release()


def _myself() -> bytes:
    return encode(_Holder(os.getpid(), platform.node(), datetime.now().astimezone()))


def _holder(file: Path) -> str:
    """Who has written `file`, as far as that can be known."""
    try:
        with file.open("rb") as stream:
            holder = decode(_Holder, stream.read(_MOST_BYTES))
    except (OSError, JsonError):
        return "another bh-studio"
    since, now = holder.since.astimezone(), datetime.now().astimezone()
    time = f"{since:%H:%M}" if since.date() == now.date() else f"{since:%Y-%m-%d %H:%M}"
    place = "" if holder.host == platform.node() else f" on {holder.host}"
    return f"another bh-studio (process {holder.process}{place}, since {time})"
