"""A result that grows row by row: every row is on disk at once, and the next run takes it over.

While a command runs, FILE.rows.jsonl lies beside its result FILE: first the header, which says with
which settings the rows were made, then a row a line, each synced to the disk. At the end FILE is
written at once or not at all and the rows' file goes; beside a .csv, which has no place for
settings, it stays. Knows no command and no model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar

from bh_studio.engine.errors import EngineError, InputError
from bh_studio.engine.files.atomic import write_atomically

Row = dict[str, Any]
# Where and when rows were made does not make them others, nor what their prompts file is called.
_NO_SETTINGS = ("started at", "environment", "prompts file name")
# What results leave unsaid that were made before it could be otherwise.
_UNSAID = {"prompt format": "plain text"}
# Of the model, only what decides the rows; it may have moved to another folder.
_MODEL_SETTINGS = ("fingerprint", "null sha256", "dtype", "device", "expert path")
_START_OVER = "Choose another --out, or start over with --restart."
_T = TypeVar("_T")


class ResultFile:
    """The result at `path`; None keeps nothing. restart: forget what an earlier run left there.

    Raises InputError for a file that is no such result or is damaged, EngineError for one that
    cannot be read.
    """

    def __init__(self, path: Path | None, restart: bool = False) -> None:
        self.header: Row = {}
        self._path = path
        self._journal = Path() if path is None else path.with_name(f"{path.name}.rows.jsonl")
        self._file: BinaryIO | None = None
        self._count = 0
        self._former = None if path is None or restart else read_former(path, self._journal)

    @property
    def is_finished(self) -> bool:
        """Whether an earlier run has written the result with all its rows."""
        return self._former is not None and self._former.is_finished

    def check(self, header: Row) -> None:
        """Raise InputError if the rows that are there were made with other settings.

        `header` may lack the model, to find out before it is loaded.
        """
        if self._former is not None and self._path is not None:
            check_settings(self._path, self._former.header, header)

    def begin(self, header: Row, parse: Callable[[list[Row]], _T]) -> _T:
        """The rows that are taken over, as `parse` reads them; from now on rows can be added.

        Raises InputError for other settings, and for rows that `parse` does not understand.
        """
        self.check(header)
        # The former header, for it says when and where the first row was made.
        self.header = self._former.header if self._former else header
        rows = self._former.rows if self._former else []
        try:
            taken = parse(rows)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self._path} has a row that cannot be read.", _START_OVER) from error
        if self._path is not None and not self.is_finished:
            try:
                # Written anew, for the last line may have been cut short.
                write_atomically(self._journal, b"".join(map(_line, (self.header, *rows))))
                self._file, self._count = self._journal.open("ab"), len(rows)
            except OSError as error:
                raise _unwritable(self._journal, error) from error
        return taken

    def add(self, row: Row) -> None:
        """Keep `row`; it is on the disk when this returns."""
        if self._file is None:
            return
        try:
            self._file.write(_line(row))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._count += 1
        except OSError as error:
            raise _unwritable(self._journal, error) from error

    def finish(self, formats: Mapping[str, Callable[[], bytes]]) -> bool:
        """Write the result, by its ending one of `formats`; False if it is there already."""
        if self._file is None or self._path is None:
            return False
        content = formats[self._path.suffix]()
        try:
            is_new = not self._path.exists() or self._path.read_bytes() != content
            if is_new:
                write_atomically(self._path, content)
            self._close()
            if self._path.suffix != ".csv":
                self._journal.unlink()
        except OSError as error:
            raise _unwritable(self._path, error) from error
        return is_new

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is None:
            return
        self._close()
        if self._count == 0:
            self._journal.unlink()

    @property
    def unfinished_rows(self) -> int:
        """Rows that the next run will take over if this one ends now."""
        return 0 if self._file is None else self._count

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _line(value: Row) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _unwritable(path: Path, error: OSError) -> EngineError:
    return EngineError(f"{path} could not be written: {error.strerror}.")


@dataclass(frozen=True, slots=True)
class FormerResult:
    """header: settings, model and more. rows: in the order made. is_finished: these are all."""

    header: Row
    rows: list[Row]
    is_finished: bool


def read_former(result: Path, journal: Path) -> FormerResult | None:
    """The rows in `journal` if there is one, else those of the finished `result`.

    Raises InputError for a file that is no such result or is damaged, EngineError for one that
    cannot be read.
    """
    try:
        if journal.exists():
            return _read_journal(journal)
        return _read_result(result) if result.exists() else None
    except OSError as error:
        raise EngineError(f"{result} could not be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(
            str(error), "Choose another --out, or replace it with --restart."
        ) from error


def check_settings(result: Path, then: Row, now: Row) -> None:
    """Raise InputError, with what differs, unless two headers have the same settings.

    What `now` does not say is not compared.
    """
    former, new = _UNSAID | _settings(then), _settings(json.loads(json.dumps(now)))
    changes = [
        f"{name} ({_short(former.get(name))} then, {_short(value)} now)"
        for name, value in new.items()
        if former.get(name) != value
    ]
    if changes:
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        raise InputError(
            f"{result} has rows made with other settings: {', '.join(changes[:3])}{more}.",
            _START_OVER,
        )


def _read_journal(path: Path) -> FormerResult:
    lines = path.read_bytes().split(b"\n")[:-1]  # the last one was cut short if it is not empty
    values = []
    for number, line in enumerate(lines, start=1):
        value = _parsed(line)
        if not isinstance(value, dict):
            raise ValueError(f"{path} is damaged in line {number}.")
        values.append(value)
    if not values:
        raise ValueError(f"{path} is empty.")
    return FormerResult(values[0], values[1:], is_finished=False)


def _read_result(path: Path) -> FormerResult:
    document = _parsed(path.read_bytes()) if path.suffix == ".json" else None
    rows = document.get("rows") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(rows, list):
        raise ValueError(
            f"{path} exists already and is no result that this command can go on with."
        )
    return FormerResult(document, [*rows, *document.get("skipped", [])], is_finished=True)


def _parsed(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _settings(header: Row) -> dict[str, Any]:
    """What makes the rows what they are, under names that a person understands."""
    settings = {}
    for name, value in _flat(header, ""):
        group, _, field = name.partition(" ")
        is_model_detail = group == "model" and field not in _MODEL_SETTINGS
        if not is_model_detail and not name.startswith(_NO_SETTINGS):
            settings[name] = value
    return settings


def _flat(value: object, name: str) -> Iterator[tuple[str, object]]:
    if not isinstance(value, dict):
        yield name, value
        return
    for key, item in value.items():
        # "parameters" says nothing that its members do not.
        yield from _flat(
            item, name if key == "parameters" else f"{name} {key}".strip().replace("_", " ")
        )


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 24 else f"{text[:23]}…"
