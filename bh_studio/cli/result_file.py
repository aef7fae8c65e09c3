"""A result that grows row by row: every row is on disk at once, and the next run takes it over.

While a command runs, FILE.rows.jsonl lies beside its result FILE: first the header, which says with
which settings the rows were made, then a row a line, each synced to the disk. At the end FILE is
written at once or not at all and the rows' file goes; beside a .csv, which has no place for
settings, it stays. Knows no command and no model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

from bh_studio.cli.former_result import Row, check_settings, read_former
from bh_studio.cli.table import counted
from bh_studio.cli.terminal import EXIT_USAGE, CommandError, say
from bh_studio.engine.session_file import write_atomically

_T = TypeVar("_T")


class ResultFile:
    """The result at `path`; None keeps nothing. restart: forget what an earlier run left there.

    Raises CommandError for a file that is no such result or is damaged.
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
        """Raise CommandError if the rows that are there were made with other settings.

        `header` may lack the model, to find out before it is loaded.
        """
        if self._former is not None and self._path is not None:
            check_settings(self._path, self._former.header, header)

    def begin(self, header: Row, parse: Callable[[list[Row]], _T]) -> _T:
        """The rows that are taken over, as `parse` reads them; from now on rows can be added.

        Raises CommandError for other settings, and for rows that `parse` does not understand.
        """
        self.check(header)
        # The former header, for it says when and where the first row was made.
        self.header = self._former.header if self._former else header
        rows = self._former.rows if self._former else []
        try:
            taken = parse(rows)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CommandError(
                f"{self._path} has a row that cannot be read. Choose another --out, or start over "
                "with --restart.",
                EXIT_USAGE,
            ) from error
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

    def finish(self, formats: Mapping[str, Callable[[], bytes]]) -> None:
        """Write the result, by its ending one of `formats`. Says so unless it is there already."""
        if self._file is None or self._path is None:
            return
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
        if is_new:
            say(f"Saved {self._path}")

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
        elif kind is not None:
            kept = counted(self._count, "finished row")
            say(f"Kept {kept}; the same command goes on from there.")

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _line(value: Row) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _unwritable(path: Path, error: OSError) -> CommandError:
    return CommandError(f"{path} could not be written: {error.strerror}.")
