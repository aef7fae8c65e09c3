"""Writes a run while it goes on, in a thread of its own: who answers never waits for the disk."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from bh_studio.engine.errors import as_sentence
from bh_studio.engine.files.atomic import write_atomically
from bh_studio.engine.files.lock import locked
from bh_studio.engine.files.plain_json import encode
from bh_studio.engine.records.decisions.router_rows import rows_name
from bh_studio.engine.records.runs.lines import (
    EVENTS,
    FORMAT,
    HEADER,
    EndLine,
    Line,
    PromptLine,
    RunHeader,
    TokenLine,
)

_FLUSH_SECONDS = 0.25
_SYNC_SECONDS = 2.0

_log = logging.getLogger(__name__)


class RunWriter:
    """Writes one run into `folder`, which is made.

    What is added is with the system a quarter of a second later, and on the disk two seconds later,
    by a thread that ends with `close`. problem: why nothing is written any more, a sentence; empty
    while all is. Raises OSError if the folder cannot be made.
    """

    def __init__(self, folder: Path, header: RunHeader) -> None:
        self.folder = folder
        self.problem = ""
        folder.mkdir(parents=True)
        self._header = header
        with ExitStack() as held:
            held.enter_context(locked(folder / EVENTS))
            self._file = (folder / EVENTS).open("xb")
            self._lock = held.pop_all()
        self._waiting: list[tuple[Line, np.ndarray | None]] = []
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._write, name="run-writer", daemon=True)
        self._thread.start()

    def add(self, line: Line, router_logits: np.ndarray | None = None) -> None:
        """Have `line` written; returns at once.

        router_logits: (position, layer, expert) float32, of the positions that `line` speaks of.
        """
        if not self.problem:
            with self._changed:
                self._waiting.append((line, router_logits))

    def close(self, end: EndLine) -> None:
        """Write what is left and the end of the run; all is on the disk when this returns."""
        with self._changed:
            self._waiting.append((end, None))
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()
        self._lock.close()

    def _write(self) -> None:
        try:
            # To close them may fail as well, with what is still to be written.
            with self._file as file, ExitStack() as beside:
                self._write_header()
                self._write_lines(file, _LogitsFiles(self.folder, beside))
        except (OSError, ValueError) as error:
            self.problem = as_sentence(error)
            _log.info("The run in %s is not written further: %s", self.folder, error)

    def _write_header(self) -> None:
        document = {"format": FORMAT, "kind": "comparison", **asdict(self._header)}
        write_atomically(self.folder / HEADER, encode(document, indent=1) + b"\n")

    def _write_lines(self, file: BinaryIO, logits: _LogitsFiles) -> None:
        encoder = msgspec.json.Encoder()
        synced, is_synced, is_last = time.monotonic(), True, False
        while not is_last:
            with self._changed:
                if not self._is_closed:
                    self._changed.wait(_FLUSH_SECONDS)
                lines, self._waiting = self._waiting, []
                is_last = self._is_closed
            if lines:
                for line, rows in lines:
                    if rows is not None and isinstance(line, PromptLine | TokenLine):
                        logits.write(line.side, rows)
                # First, so that no line speaks of a position that is not there.
                logits.flush()
                file.write(b"".join(encoder.encode(line) + b"\n" for line, _ in lines))
                file.flush()
                is_synced = False
            if not is_synced and (is_last or time.monotonic() - synced >= _SYNC_SECONDS):
                if not (self.folder / EVENTS).exists():
                    raise FileNotFoundError(errno.ENOENT, "Its folder was removed")
                logits.sync()
                os.fsync(file.fileno())
                synced, is_synced = time.monotonic(), True


class _LogitsFiles:
    """The router logits of each side, in files of `folder` that are open as long as `held` is."""

    def __init__(self, folder: Path, held: ExitStack) -> None:
        self._folder, self._held = folder, held
        self._files: dict[int, BinaryIO] = {}

    def write(self, side: int, rows: np.ndarray) -> None:
        """Write the next positions of a side."""
        if side not in self._files:
            file = (self._folder / rows_name(side)).open("xb")
            self._files[side] = self._held.enter_context(file)
        self._files[side].write(rows.astype("<f4", copy=False).tobytes())

    def flush(self) -> None:
        """Give the system what was written."""
        for file in self._files.values():
            file.flush()

    def sync(self) -> None:
        """Have it on the disk."""
        for file in self._files.values():
            os.fsync(file.fileno())
