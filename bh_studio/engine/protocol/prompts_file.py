"""Many prompts from one file: .txt (one a line), .csv (a column "prompt") or .jsonl.

A row that holds no usable prompt is set apart with its reason; only a file that cannot be read as a
whole is an error. Knows no model, so it cannot tell which prompts are too long.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from bh_studio.engine.errors import EngineError
from bh_studio.engine.records.rows import FilePrompt, SkippedRow
from bh_studio.engine.units import counted


@dataclass(frozen=True, slots=True)
class PromptsFile:
    """All rows of a file. sha256: of its bytes."""

    name: str
    sha256: str
    prompts: tuple[FilePrompt, ...]
    skipped: tuple[SkippedRow, ...]


def read_prompts(path: Path) -> PromptsFile:
    """Read `path`. Raises EngineError if it cannot be read or holds no prompt at all."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EngineError(f"{path} could not be read: {error.strerror}.") from error
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise EngineError(f"{path} is in UTF-16; save it as UTF-8.")
    prompts: list[FilePrompt] = []
    skipped: list[SkippedRow] = []
    try:
        for row in _READERS[path.suffix](data.removeprefix(codecs.BOM_UTF8)):
            if isinstance(row, FilePrompt):
                prompts.append(row)
            else:
                skipped.append(row)
    except EngineError as error:
        raise EngineError(f"{path} {error}") from error
    if not prompts:
        found = f": none of its rows can be used ({len(skipped)})" if skipped else ""
        reasons = "".join(f" Line {row.line}: {row.reason}" for row in skipped[:3])
        raise EngineError(f"{path} holds no prompts{found}.{reasons}")
    sha256 = hashlib.sha256(data).hexdigest()
    return PromptsFile(path.name, sha256, tuple(prompts), tuple(skipped))


def _text_rows(data: bytes) -> Iterator[FilePrompt | SkippedRow]:
    for number, line in _lines(data):
        try:
            yield FilePrompt(number, line.decode())
        except UnicodeDecodeError:
            yield SkippedRow(number, _NOT_UTF8)


def _json_rows(data: bytes) -> Iterator[FilePrompt | SkippedRow]:
    for number, line in _lines(data):
        try:
            value = json.loads(line.decode(), parse_constant=_refuse_constant)
            # What cannot be written again, such as 1e999 or half a surrogate pair, is no JSON here.
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeDecodeError:
            yield SkippedRow(number, _NOT_UTF8)
            continue
        except (ValueError, RecursionError):
            yield SkippedRow(number, "It is not valid JSON.")
            continue
        values = {"prompt": value} if isinstance(value, str) else value
        if not isinstance(values, dict) or not isinstance(values.get("prompt"), str):
            yield SkippedRow(number, 'It is neither a string nor an object with a string "prompt".')
            continue
        yield _row(number, values.pop("prompt"), values)


def _csv_rows(data: bytes) -> Iterator[FilePrompt | SkippedRow]:
    # One bad row must not spoil the others: its bytes become lone surrogates, found row by row.
    text = data.decode(errors="surrogateescape")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        names = next(reader, None)
    except csv.Error as error:
        raise EngineError(f"has a first row that is not valid CSV: {error}.") from error
    if not names:
        return
    column = _prompt_column(names)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield SkippedRow(number, f"It is not valid CSV: {error}.")
            continue
        if not cells:  # a blank line
            continue
        if len(cells) != len(names):
            yield SkippedRow(
                number, f"It has {counted(len(cells), 'column')}, the first row {len(names)}."
            )
        elif not all(map(_is_unicode, cells)):
            yield SkippedRow(number, _NOT_UTF8)
        else:
            values = dict(zip(names, cells, strict=True))
            yield _row(number, values.pop(column), values)


def _prompt_column(names: list[str]) -> str:
    if not all(map(_is_unicode, names)):
        raise EngineError("has a first row that is not valid UTF-8.")
    if len(set(names)) < len(names):
        raise EngineError("has two columns of the same name.")
    if "prompt" in names:
        return "prompt"
    if len(names) > 1:
        raise EngineError(f'has no column "prompt"; its columns are {", ".join(names)}.')
    if ";" in names[0] or "\t" in names[0]:
        raise EngineError("has no commas in its first row; separate the columns with commas.")
    return names[0]


def _row(number: int, prompt: str, fields: dict[str, Any]) -> FilePrompt | SkippedRow:
    if not prompt.strip():
        return SkippedRow(number, "The prompt is empty.")
    return FilePrompt(number, prompt, fields)


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each line that is not blank."""
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            yield number, line.removesuffix(b"\r")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_NOT_UTF8 = "It is not valid UTF-8."
_READERS: dict[str, Callable[[bytes], Iterator[FilePrompt | SkippedRow]]] = {
    ".txt": _text_rows,
    ".csv": _csv_rows,
    ".jsonl": _json_rows,
}
# What a prompts file may be called.
ENDINGS = tuple(_READERS)
