"""Texts of people, from files and from pipes: what was given, character for character.

They are UTF-8, with or without a mark before them, or UTF-16 by its mark. The mark is no part of
the text; all else is, ends of lines as they are.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bh_studio.engine.errors import InputError
from bh_studio.engine.files.bounded import read_bytes

# Far more than a person gives to read; what never ends must not fill the memory.
MOST_BYTES = 2**30
_UTF_8, _UTF_16 = "utf-8-sig", "utf-16"
_END_OF_LINE = re.compile(r"\r\n|\r|\n")
# Puts half a surrogate pair, which no text has, in place of what is none.
_IN_PART = "bh_studio.in_part"


def read_text(path: Path, most_bytes: int = MOST_BYTES) -> str:
    """The text in `path`, which may have so many bytes.

    Raises InputError with a sentence for what cannot be read, is too long or is no such text.
    """
    return decoded(read_bytes(path, most_bytes, "a text"), str(path))


def decoded(data: bytes, name: str) -> str:
    """The text that `data` is. Raises InputError, in which it is called `name`, if it is none."""
    encoding = _encoding(data, name)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = len(_END_OF_LINE.split(error.object[: error.start].decode(encoding)))
        called = "UTF-16" if encoding == _UTF_16 else "UTF-8"
        raise InputError(
            f"{name} is not {called} text: the first byte that is none is in line {line}.",
            "Save it as UTF-8.",
        ) from None


def decoded_in_part(data: bytes, name: str) -> str:
    """The same of what may be spoilt in places; is_text tells which parts are not.

    Raises InputError only for what cannot be such a text as a whole.
    """
    return data.decode(_encoding(data, name), _IN_PART)


def lines_in_part(stream: BinaryIO, name: str) -> Iterator[str]:
    """The lines of `stream` without their ends, each as soon as it is there.

    What is no text is as decoded_in_part has it. Raises what that raises.
    """
    data = stream.readline()
    encoding = _encoding(data, name)
    decoder = codecs.getincrementaldecoder(encoding)(_IN_PART)
    line, count = "", 0
    while data:
        count += len(data)
        line += decoder.decode(data)
        if encoding == _UTF_16 and count % 2:
            # The second half of the end of a line, which comes before the next line does.
            data = stream.read(1)
            continue
        *whole, line = line.split("\n")
        yield from (part.removesuffix("\r") for part in whole)
        data = stream.readline()
    line += decoder.decode(b"", final=True)
    if line:
        yield line


def is_text(text: str) -> bool:
    """Whether all of `text` can be written."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _encoding(data: bytes, name: str) -> str:
    """How `data` is read, by its mark. Raises InputError for UTF-32."""
    if data.startswith(codecs.BOM_UTF32_LE):  # which begins as UTF-16 does
        raise InputError(f"{name} is in UTF-32.", "Save it as UTF-8.")
    is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return _UTF_16 if is_wide else _UTF_8


def _in_part(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\udcff", error.end


codecs.register_error(_IN_PART, _in_part)
