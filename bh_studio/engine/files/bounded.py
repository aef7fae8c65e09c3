"""Whole files of people, read only as far as they may be long, and waited for only so long."""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bh_studio.engine.errors import InputError

# A pipe may be slow, but one that nobody writes to is not waited for without end.
_PATIENCE_SECONDS = 10
_AT_ONCE = 2**20


def read_bytes(path: Path, most_bytes: int, kind: str) -> bytes:
    """All of `path`, at most `most_bytes`; a file that says it is longer is not read at all.

    kind: what it should be, for the sentence, as in "a text". Raises InputError for what cannot be
    read, is too long or never ends, and for a pipe or a device through which nothing comes.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                data = _arriving(file.fileno(), most_bytes, path)
            else:
                size, is_longer = status.st_size, status.st_size > most_bytes
                # As much as is there, for what is asked for is allocated at once.
                pieces = [] if is_longer else _pieces(file, max(size, _AT_ONCE), most_bytes + 1)
                data = b"".join(pieces)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if max(len(data), status.st_size) > most_bytes:
        room = f"{most_bytes >> 30} GiB" if most_bytes >> 30 else f"{most_bytes >> 20} MiB"
        raise InputError(f"{path} is longer than the {room} that {kind} may have.")
    return data


def read_last_bytes(path: Path, most_bytes: int) -> bytes:
    """The last `most_bytes` of `path`, or all of it. Raises OSError, also for what is no file."""
    with open(path, "rb", opener=_open_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        file.seek(max(0, status.st_size - most_bytes))
        return file.read(most_bytes)


def _open_at_once(path: str, flags: int) -> int:
    # Otherwise to open a pipe is to wait until somebody writes to it.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _arriving(descriptor: int, most_bytes: int, path: Path) -> bytes:
    """What comes through a pipe or a device, until its end or beyond `most_bytes`."""
    data = bytearray()
    while len(data) <= most_bytes:
        if not select.select([descriptor], [], [], _PATIENCE_SECONDS)[0]:
            raise InputError(
                f"{path} is no file but a pipe or a device, and nothing has come through it for "
                f"{_PATIENCE_SECONDS} seconds.",
                "Name a file.",
            )
        part = os.read(descriptor, _AT_ONCE)
        if not part:
            break
        data += part
    return bytes(data)


def _pieces(file: BinaryIO, size: int, most_bytes: int) -> Iterator[bytes]:
    """What `file` holds up to `most_bytes`, in pieces of `size` and one more."""
    while most_bytes and (piece := file.read(min(size + 1, most_bytes))):
        yield piece
        most_bytes -= len(piece)
