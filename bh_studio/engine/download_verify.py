"""Compares a file's bytes with the hash that the hub gives it. Knows no network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from bh_studio.engine.hub_files import HubFile

_CHUNK = 2**20


def is_intact(path: Path, file: HubFile, read: Callable[[int], None]) -> bool:
    """Whether the bytes in `path` are those of `file`, all of them and no others.

    read: told how many bytes were compared. Raises OSError.
    """
    size = path.stat().st_size
    if size != file.size:
        return False
    digest = hashlib.sha256()
    if len(file.etag) == 40:
        # Git's name for a blob; nothing secret depends on it.
        digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            digest.update(view[:count])
            read(count)
    return digest.hexdigest() == file.etag
