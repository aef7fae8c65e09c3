"""Texts from files of people: UTF-8, and no longer than a text can be."""

from __future__ import annotations

from pathlib import Path

from bh_studio.engine.errors import InputError
from bh_studio.engine.files.bounded import read_bytes

# Far more than a person gives to read; what never ends must not fill the memory.
_MOST_BYTES = 2**30


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
