"""Texts from files of people: UTF-8, and no longer than a text can be."""

from __future__ import annotations

from pathlib import Path

from bh_studio.engine.errors import InputError

# Far more than a person gives to read; what never ends must not fill the memory.
_MOST_BYTES = 2**30


def read_text(path: Path) -> str:
    """The text in `path`, each end of a line as "\\n".

    Raises InputError with a sentence for what cannot be read, is too long or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > _MOST_BYTES:
        raise InputError(f"{path} is longer than the {_MOST_BYTES >> 30} GiB that a text may have.")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text.") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")
