"""Files of people, no longer than they can be, and the texts in them: UTF-8."""

from __future__ import annotations

from pathlib import Path

from bh_studio.engine.errors import InputError
from bh_studio.engine.files.bounded import read_bytes

# Far more than a person gives to read; what never ends must not fill the memory.
_MOST_BYTES = 2**30


def read_bytes(path: Path, most_bytes: int, what: str) -> bytes:
    """All of `path`. what: it is, with its article, for the sentence.

    Raises InputError with a sentence for what cannot be read or is longer than `most_bytes`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > most_bytes:
        room = f"{most_bytes >> 30} GiB" if most_bytes >> 30 else f"{most_bytes >> 20} MiB"
        raise InputError(f"{path} is longer than the {room} that {what} may have.")
    return data


def read_text(path: Path) -> str:
    """The text in `path`, each end of a line as "\\n".

    Raises InputError with a sentence for what cannot be read, is too long or is not UTF-8.
    """
    data = read_bytes(path, _MOST_BYTES, "a text")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text.") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")
