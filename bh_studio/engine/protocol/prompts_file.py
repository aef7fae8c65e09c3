"""Many prompts from one file: .txt (one a line), .csv (a column "prompt") or .jsonl.

A row that holds no usable prompt is set apart with its reason; only a file that cannot be read as a
whole is an error. Knows no model, so it cannot tell which prompts are too long.
"""

from __future__ import annotations

import csv
import hashlib
import io
import string
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bh_studio.engine.errors import EngineError
from bh_studio.engine.files.bounded import read_bytes
from bh_studio.engine.files.plain_json import JsonError, check_encodable, parsed
from bh_studio.engine.files.text import MOST_BYTES, decoded_in_part, is_text
from bh_studio.engine.records.rows import PROMPTS_FIELD, FilePrompt, SkippedRow
from bh_studio.engine.units import counted

Rows = Iterator[FilePrompt | SkippedRow]


@dataclass(frozen=True, slots=True)
class PromptsFile:
    """All rows of a file. sha256: of its bytes. field: where in it the prompts stand."""

    name: str
    sha256: str
    field: str
    prompts: tuple[FilePrompt, ...]
    skipped: tuple[SkippedRow, ...]


def read_prompts(path: Path, field: str | None = None) -> PromptsFile:
    """Read `path`. Raises EngineError if it cannot be read or holds no prompt at all.

    field: the column or field of the prompts; None: PROMPTS_FIELD, or the only column. A list of
    strings in it gives the first.
    """
    data = read_bytes(path, MOST_BYTES, "a prompts file")
    text = decoded_in_part(data, str(path))
    prompts: list[FilePrompt] = []
    skipped: list[SkippedRow] = []
    try:
        for row in _READERS[path.suffix.lower()](text, field):
            if isinstance(row, FilePrompt):
                prompts.append(row)
            else:
                skipped.append(row)
    except EngineError as error:
        raise EngineError(f"{path} {error.message}", error.advice) from error
    if not prompts:
        found = f": none of its rows can be used ({len(skipped)})" if skipped else ""
        reasons = "".join(f" Line {row.line}: {row.reason}" for row in skipped[:3])
        raise EngineError(f"{path} holds no prompts{found}.{reasons}")
    sha256 = hashlib.sha256(data).hexdigest()
    where = PROMPTS_FIELD if field is None else field
    return PromptsFile(path.name, sha256, where, tuple(prompts), tuple(skipped))


def _text_rows(text: str, field: str | None) -> Rows:
    if field is not None:
        raise EngineError("has no fields, for each line is a prompt.", "Leave --prompts-field out.")
    for number, line in _lines(text):
        yield _row(number, line, {}) if is_text(line) else SkippedRow(number, _NOT_TEXT)


def _json_rows(text: str, field: str | None) -> Rows:
    name = PROMPTS_FIELD if field is None else field
    for number, line in _lines(text):
        if not is_text(line):
            yield SkippedRow(number, _NOT_TEXT)
            continue
        try:
            value = parsed(line)
            # Rows hold what else stands there, so it must be possible to write it again.
            check_encodable(value)
        except JsonError:
            yield SkippedRow(number, "It is not valid JSON.")
            continue
        values = {name: value} if isinstance(value, str) else value
        asked = values.get(name) if isinstance(values, dict) else None
        if isinstance(asked, str):
            del values[name]
            yield _row(number, asked, values)
        elif isinstance(asked, list) and asked and all(isinstance(turn, str) for turn in asked):
            # The other turns stay among the fields.
            yield _row(number, asked[0], values)
        elif isinstance(values, dict) and name not in values:
            yield SkippedRow(number, f'It has no "{name}"; --prompts-field names another field.')
        else:
            yield SkippedRow(
                number, f'It is neither a string nor an object with a string "{name}".'
            )


def _csv_rows(text: str, field: str | None) -> Rows:
    # One bad row must not spoil the others, so what is no text is found row by row.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = _numbered_rows(reader)
    with _cells_of_any_length(text):
        _, _, names = next(rows, (0, 0, None))
        if names is None:
            return
        column = _prompt_column(names, field)
        for first, last, cells in rows:
            reason = ""
            if len(cells) != len(names):
                columns = counted(len(cells), "column")
                reason = f"It has {columns}, the first row {len(names)}."
            elif not all(map(is_text, cells)):
                reason = _NOT_TEXT
            elif not cells[column].strip():
                reason = _EMPTY
            if not reason:
                values = dict(zip(names, cells, strict=True))
                yield FilePrompt(first, values.pop(names[column]), values)
                continue
            yield SkippedRow(first, reason)
            for number in range(first + 1, last + 1):
                yield SkippedRow(number, f"It belongs to the row that begins in line {first}.")


def _numbered_rows(reader: Any) -> Iterator[tuple[int, int, list[str]]]:
    """First line, last line and cells of each row that is not blank.

    Raises EngineError for quotes that do not match: what is a row after them, nobody can know.
    """
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            last = reader.line_num
            until = f" (it breaks in line {last})" if last > first else ""
            raise EngineError(
                f"has a stray or unclosed quote in the row that begins in line {first}{until}, so "
                "it cannot be told where rows end.",
                "A cell that begins with a quote has to end with one, and a quote inside it is "
                "written twice.",
            ) from None
        if cells:
            yield first, reader.line_num, cells


@contextmanager
def _cells_of_any_length(text: str) -> Iterator[None]:
    """csv has one limit for the whole process; nobody else's cells are refused for this."""
    former = csv.field_size_limit()
    csv.field_size_limit(max(former, len(text)))
    try:
        yield
    finally:
        csv.field_size_limit(former)


def _prompt_column(names: list[str], field: str | None) -> int:
    if not all(map(is_text, names)):
        raise EngineError("has a first row with bytes that are no text.")
    if len(set(names)) < len(names):
        raise EngineError("has two columns of the same name.")
    name = PROMPTS_FIELD if field is None else field
    if name in names:
        return names.index(name)
    if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
        raise EngineError("has no commas in its first row; separate the columns with commas.")
    if len(names) == 1 and field is None:
        return 0
    raise EngineError(
        f'has no column "{name}"; its columns are {", ".join(names)}.',
        "Name the one that holds the prompts with --prompts-field.",
    )


def _row(number: int, prompt: str, fields: dict[str, Any]) -> FilePrompt | SkippedRow:
    if not prompt.strip():
        return SkippedRow(number, _EMPTY)
    return FilePrompt(number, prompt, fields)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Number and content of each line that is not blank."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip(string.whitespace):
            yield number, line.removesuffix("\r")


_NOT_TEXT = "It has bytes that are no text."
_EMPTY = "The prompt is empty."
_READERS: dict[str, Callable[[str, str | None], Rows]] = {
    ".txt": _text_rows,
    ".csv": _csv_rows,
    ".jsonl": _json_rows,
}
# What a prompts file may be called, in small letters.
ENDINGS = tuple(_READERS)
