"""A result that grows row by row: every row is on disk at once, and the next run takes it over.

While an experiment runs, FILE.rows.jsonl (shorter if that is too long a name) lies beside its
result FILE: first the header, which says with which settings, model and computation the rows were
made, then a row a line under its key, each synced to the disk. Rows may come in any order. At the
end FILE is written at once or not at all and the rows' file goes; beside a file that has no place
for rows, such as a .csv, it stays. Knows no experiment, no command and no model.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from bh_studio.engine.errors import DAMAGE, EngineError, InputError
from bh_studio.engine.files.atomic import check_writable, write_atomically
from bh_studio.engine.files.beside import beside
from bh_studio.engine.files.bounded import read_bytes
from bh_studio.engine.files.plain_json import JsonError, check_encodable, convert, parsed
from bh_studio.engine.records.journal_versions import newest_version, upgraded

Row = dict[str, Any]
# A result may have as many in `reading`; a journal of router logits has more.
_MOST_BYTES = 4 * 2**30
# Of the model, only what decides the rows; it may have moved to another folder.
_MODEL_SETTINGS = ("fingerprint", "null_sha256", "dtype", "device", "expert_path")
# Of a result, what it says of how its rows were made.
_OF_ROWS = (
    "schema_version", "kind", "settings", "model", "computation", "environment", "started_at",
)  # fmt: skip
_PRODUCT = re.compile(r" \([^()]*\)$")
_SHORT = 24
_START_OVER = "Choose another --out, or start over with --restart."


def rows_path(result: Path) -> Path:
    """Where the rows of `result` lie while it is not finished."""
    return beside(result, "", ".rows.jsonl")


@dataclass(frozen=True, slots=True)
class Former:
    """What an earlier run left. is_finished: the result itself, with all its rows; one that says
    it is not complete, as the window saves it of a text that was stopped, is gone on with."""

    header: Row
    rows: dict[str, Row]
    is_finished: bool


class Journal:
    """The rows of the result at `path`; None keeps nothing.

    restart: forget what an earlier run left there. replaces: a finished result is written anew, not
    gone on with, for it does not hold its rows. rows: by key, what was taken over and added.
    header: settings, model, computation, environment and time of the run that made the first row.

    Raises InputError for a file that is no such result or is damaged, EngineError for one that
    cannot be read.
    """

    def __init__(self, path: Path | None, restart: bool = False, replaces: bool = False) -> None:
        self.header: Row = {}
        self.rows: dict[str, Row] = {}
        self._path = path
        self._journal = Path() if path is None else rows_path(path)
        self._file: BinaryIO | None = None
        self._former = None
        if path is not None and not restart:
            self._former = _former(path, self._journal, replaces)

    def refusal(self, reason: str) -> InputError:
        """What to raise where rows that are there are none of this experiment."""
        return _refusal(self._path, reason)

    @property
    def is_finished(self) -> bool:
        """Whether an earlier run has written the result with all its rows."""
        return self._former is not None and self._former.is_finished

    def check(self, kind: str, settings: Row) -> None:
        """Raise InputError if the rows that are there are of another kind or other settings.

        Can be asked before a model is loaded; what `settings` does not say is not compared. Raises
        InputError too if no row could be kept.
        """
        if self._former is not None:
            former = self._former.header
            now = {"kind": kind, "settings": settings}
            self._compare({name: former.get(name) for name in now}, now, partly=True)
        if self._path is not None and not self.is_finished:
            try:
                check_writable(self._journal)
            except OSError as error:
                raise InputError(
                    f"{self._journal} cannot be written: {error.strerror}.", "Choose another --out."
                ) from error

    def begin(self, header: Row) -> dict[str, Row]:
        """The rows that are taken over; from now on rows can be added.

        header: of this run. Raises InputError if the rows that are there were made with other
        settings or another model, EngineError if the disk refuses.
        """
        if self._former is not None:
            self._compare(_compared(self._former.header), _compared(header))
        # The former header, for it says when and where the first row was made.
        self.header = self._former.header if self._former else header
        self.rows = dict(self._former.rows) if self._former else {}
        if self._path is not None and not self.is_finished:
            lines = [self.header, *({"key": key, **row} for key, row in self.rows.items())]
            try:
                # Written anew, for the last line may have been cut short.
                write_atomically(self._journal, b"".join(map(_line, lines)))
                self._file = self._journal.open("ab")
            except OSError as error:
                raise _unwritable(self._journal, error) from error
        return dict(self.rows)

    def add(self, key: str, row: Row) -> None:
        """Keep `row`; it is on the disk when this returns. Raises EngineError if that refuses."""
        if self._file is not None:
            try:
                self._file.write(_line({"key": key, **row}))
                self._file.flush()
                os.fsync(self._file.fileno())
            except OSError as error:
                raise _unwritable(self._journal, error) from error
        self.rows[key] = row

    def finish(self, content: bytes, *, holds_rows: bool) -> bool:
        """Write the result; False if an earlier run has.

        holds_rows: whether `content` is what `with_rows` gave, so that the journal can go. Raises
        EngineError if the disk refuses.
        """
        if self._file is None or self._path is None:
            return False
        try:
            is_new = not self._path.exists() or self._path.read_bytes() != content
            if is_new:
                write_atomically(self._path, content)
            self._close()
            if holds_rows:
                self._journal.unlink()
        except OSError as error:
            raise _unwritable(self._path, error) from error
        return is_new

    @property
    def unfinished_rows(self) -> int:
        """Rows that the next run will take over if this one ends now."""
        # Whoever removes the folder removes them too.
        return len(self.rows) if self._file is not None and self._journal.exists() else 0

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
        # What a full disk has refused is refused again; the block has told it.
        with contextlib.suppress(OSError):
            self._close()
        if not self.rows:
            self._journal.unlink(missing_ok=True)

    def _compare(self, then: Row, now: Row, partly: bool = False) -> None:
        """Refuse `now` if it differs from `then`; partly: in what it says, it may lack some."""
        former, new = dict(_flat(then, "")), dict(_flat(json.loads(json.dumps(now)), ""))
        changes = [
            f"{name} ({_differing(former.get(name), new.get(name))})"
            for name in (new if partly else {**new, **former})
            if former.get(name) != new.get(name)
        ]
        if changes:
            more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
            raise InputError(
                f"{self._path} has rows made with other settings: {', '.join(changes[:3])}{more}.",
                _START_OVER,
            )

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def with_rows(document: Row, rows: Mapping[str, Row]) -> bytes:
    """A result file that the next run can go on from: `document`, and the rows a line each."""
    head = json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False)
    lines = [
        "\n  " + json.dumps({"key": key, **row}, ensure_ascii=False, allow_nan=False)
        for key, row in rows.items()
    ]
    return f'{head[:-2]},\n "rows": [{",".join(lines)}\n ]\n}}\n'.encode()


def _former(result: Path, journal: Path, replaces: bool) -> Former | None:
    """The rows in `journal` if there is one, else those of the finished `result`."""
    try:
        if journal.exists():
            header, rows = _read_journal(journal)
            is_finished = False
        elif result.exists() and not replaces:
            header, rows = _read_result(result)
            is_finished = header.get("complete") is not False
            if not is_finished:
                # The rest is said anew of all its rows.
                header = {name: header[name] for name in _OF_ROWS if name in header}
        else:
            return None
    except OSError as error:
        raise EngineError(f"{result} could not be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(
            str(error), "Choose another --out, or replace it with --restart."
        ) from error
    try:
        # They are written again.
        check_encodable([header, rows])
        header, keyed = upgraded(header, rows)
        for name in ("settings", "model"):
            convert(dict[str, Any], header[name], name)
        kind = convert(str, header["kind"], "kind")
        header = {**header, "schema_version": newest_version(kind)}
    except JsonError as error:
        raise _refusal(result, str(error)) from error
    except DAMAGE as error:
        raise InputError(f"{result} has a row that cannot be read.", _START_OVER) from error
    return Former(header, keyed, is_finished)


def _refusal(result: Path | None, reason: str) -> InputError:
    return InputError(f"{result} is not a result of this command: {reason}", _START_OVER)


def _read_journal(path: Path) -> tuple[Row, list[Row]]:
    # The last one was cut short if it is not empty.
    lines = read_bytes(path, _MOST_BYTES, "a journal").split(b"\n")[:-1]
    values = []
    for number, line in enumerate(lines, start=1):
        value = _parsed(line)
        if not isinstance(value, dict):
            raise ValueError(f"{path} is damaged in line {number}.")
        values.append(value)
    if not values:
        raise ValueError(f"{path} is empty.")
    return values[0], values[1:]


def _read_result(path: Path) -> tuple[Row, list[Row]]:
    is_json = path.suffix == ".json"
    document = _parsed(read_bytes(path, _MOST_BYTES, "a result")) if is_json else None
    rows = document.get("rows") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(rows, list):
        raise ValueError(
            f"{path} exists already and is no result that this command can go on with."
        )
    return {name: value for name, value in document.items() if name != "rows"}, rows


def _parsed(data: bytes) -> object:
    try:
        return parsed(data)
    except JsonError:
        return None


def _compared(header: Row) -> Row:
    """What of a header makes the rows what they are."""
    model = {name: header["model"].get(name) for name in _MODEL_SETTINGS}
    # The row product that was fastest when the model was loaded is part of the computation, which
    # whoever goes on takes over.
    model["expert_path"] = _PRODUCT.sub("", str(model["expert_path"]))
    return {"kind": header["kind"], "settings": header["settings"], "model": model}


def _flat(value: object, name: str) -> Iterator[tuple[str, object]]:
    """Values under names that a person understands."""
    if not isinstance(value, dict):
        yield name, value
        return
    for key, item in value.items():
        # "settings" says nothing that its members do not.
        own = name if key == "settings" else f"{name} {key}".strip().replace("_", " ")
        yield from _flat(item, own)


def _differing(then: object, now: object) -> str:
    """Two values in a few characters each, from about where they differ."""
    texts = [value if isinstance(value, str) else json.dumps(value) for value in (then, now)]
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False)))
    start = 0 if same < _SHORT - 1 else same - _SHORT // 3
    then_text, now_text = (_short(text, start) for text in texts)
    return f"{then_text} then, {now_text} now"


def _short(text: str, start: int) -> str:
    head, rest = "…" if start else "", text[start:]
    return head + (rest if len(rest) <= _SHORT else f"{rest[: _SHORT - 1]}…")


def _line(value: Row) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _unwritable(path: Path, error: OSError) -> EngineError:
    return EngineError(f"{path} could not be written: {error.strerror}.")
