"""Files that are written at once or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from bh_studio.engine.files.beside import beside

# What tells whether there is any room on the disk: a block.
_LITTLE = bytes(4096)
# ".NAME.", where it is written, by which process, anything, ".tmp".
_SIGNATURE = re.compile(r"\.([0-9a-f]{8})([0-9a-f]{8})[0-9a-f]{8}\.tmp")
_SIGNATURE_CHARACTERS = 29
# How far the clock of a file server may be off.
_CLOCK_SECONDS = 3600


def write_atomically(path: Path, data: bytes) -> None:
    """Replace what `path` holds by `data`; see written_atomically."""
    written_atomically(path, lambda file: file.write(data))


def written_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Replace what `path` holds by what `write` writes into the file that it is given.

    A crash leaves the old or the new, never half of it, and so does what `write` raises. A link
    stays, and what it leads to is replaced. A file keeps its mode and, as far as that is allowed,
    its owner. Raises OSError as open() would, also for a file that is write-protected and for what
    is no regular file.
    """
    with _written_beside(path, write) as (temporary, target):
        temporary.replace(target)


def check_writable(path: Path) -> None:
    """Raise the OSError that write_atomically would, as far as it can be known before.

    Changes nothing and leaves nothing.
    """
    with _written_beside(path, lambda file: file.write(_LITTLE)):
        pass


@contextmanager
def _written_beside(path: Path, write: Callable[[BinaryIO], object]) -> Iterator[tuple[Path, Path]]:
    """What `write` writes, on the disk under a name of its own, and where it belongs.

    The name goes with the block, and so do those that writers of the same file left who are dead.
    """
    former = _former(path)
    target = Path(os.path.realpath(path))
    # Beside the target, so that the final rename stays on one file system.
    signature = f".{_machine()}{os.getpid():08x}{secrets.token_hex(4)}.tmp"
    temporary = beside(target, ".", signature)
    _remove_leftovers(target.parent, temporary.name[:-_SIGNATURE_CHARACTERS])
    try:
        with temporary.open("xb") as file:
            if former is not None:
                _take_over(former, temporary)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        yield temporary, target
    finally:
        temporary.unlink(missing_ok=True)


def _former(path: Path) -> os.stat_result | None:
    """What is at `path`, or where it leads to; None for nothing. Raises OSError as open() would."""
    try:
        former = path.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(former.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(former.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    # Nothing is refused to a superuser, who has protected the file all the same.
    if not (former.st_mode & 0o222 and os.access(path, os.W_OK)):
        raise PermissionError(errno.EACCES, "The file is write-protected", str(path))
    return former


def _take_over(former: os.stat_result, temporary: Path) -> None:
    """Give `temporary` the owner, where that is allowed, and the mode of `former`."""
    mine = temporary.stat()
    if (mine.st_uid, mine.st_gid) != (former.st_uid, former.st_gid):
        with suppress(OSError):
            os.chown(temporary, former.st_uid, former.st_gid)
    if mine.st_mode != former.st_mode:
        temporary.chmod(stat.S_IMODE(former.st_mode))


def _machine() -> str:
    """What tells apart places where the same number is another process."""
    try:
        processes = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        processes = ""
    return hashlib.sha256(f"{platform.node()} {processes}".encode()).hexdigest()[:8]


def _remove_leftovers(folder: Path, start: str) -> None:
    """Remove what writers of this machine who are dead left in `folder` under names with `start`.

    What cannot be removed costs nobody anything.
    """
    with suppress(OSError):
        for name in os.listdir(folder):
            signature = _SIGNATURE.fullmatch(name.removeprefix(start))
            if name.startswith(start) and signature and signature[1] == _machine():
                file = folder / name
                if _is_left(file, int(signature[2], 16)):
                    file.unlink(missing_ok=True)


def _is_left(file: Path, process: int) -> bool:
    """Whether `process`, which wrote `file`, is dead; its number may be another's by now."""
    # Not at the top, for there is hardly ever one: the start of the program would wait for it.
    import psutil

    try:
        began = float(psutil.Process(process).create_time())
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False
    return began > file.stat().st_mtime + _CLOCK_SECONDS
