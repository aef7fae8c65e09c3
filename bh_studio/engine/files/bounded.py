"""Whole files of people, read only as far as they may be long."""

from __future__ import annotations

import os
from pathlib import Path

from bh_studio.engine.errors import InputError


def read_bytes(path: Path, most_bytes: int, kind: str) -> bytes:
    """All of `path`, at most `most_bytes`; a file that says it is longer is not read at all.

    kind: what it should be, for the sentence, as in "a text". Raises InputError for what cannot be
    read, is too long or never ends.
    """
    try:
        with path.open("rb") as file:
            is_longer = os.fstat(file.fileno()).st_size > most_bytes
            data = b"" if is_longer else file.read(most_bytes + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if is_longer or len(data) > most_bytes:
        room = f"{most_bytes >> 30} GiB" if most_bytes >> 30 else f"{most_bytes >> 20} MiB"
        raise InputError(f"{path} is longer than the {room} that {kind} may have.")
    return data
