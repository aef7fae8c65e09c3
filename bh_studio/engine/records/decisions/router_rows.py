"""Router logits of the positions that one side read, in memory or in a file that is read by offset.

Knows arrays and open files; no session and no torch.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

_DTYPE = np.dtype("<f4")
_ROWS_AT_ONCE = 256
Shape = tuple[int, int, int]


def rows_name(side: int) -> str:
    """What the logits of a side are called in the file of a session and in the folder of a run."""
    return f"{side}_router_logits.f32"


def rows_bytes(shape: Shape) -> int:
    """What RouterRows of this shape take where they are stored."""
    return math.prod(shape) * _DTYPE.itemsize


class RouterRows(Protocol):
    """Logits of every position that was read, in order, prompt first.

    shape: (positions, layers, experts).
    """

    shape: Shape

    def rows(self, start: int, stop: int) -> np.ndarray:
        """(row, layer, expert) float32, the positions from `start` up to `stop`.

        Raises OSError or ValueError where they cannot be read any more.
        """


class HeldRows:
    """RouterRows in memory. logits: (position, layer, expert) float32."""

    def __init__(self, logits: np.ndarray) -> None:
        positions, layers, experts = logits.shape
        self.shape = (positions, layers, experts)
        self._logits = logits

    def rows(self, start: int, stop: int) -> np.ndarray:
        """See RouterRows."""
        return self._logits[start:stop]


class StoredRows:
    """RouterRows in little-endian float32 within a file, of which only what is asked for is read.

    The file stays open, so that it can be replaced under its name meanwhile. offset: where they
    begin. Raises OSError if it cannot be opened.
    """

    def __init__(self, path: Path, offset: int, shape: Shape) -> None:
        self.shape = shape
        self._name = path.name
        self._offset = offset
        self._file = path.open("rb", buffering=0)
        self._lock = threading.Lock()

    def __del__(self) -> None:
        # It is missing where the file could not be opened.
        if file := getattr(self, "_file", None):
            file.close()

    def rows(self, start: int, stop: int) -> np.ndarray:
        """See RouterRows."""
        positions, layers, experts = self.shape
        start, stop, _ = slice(start, stop).indices(positions)
        read = np.empty((max(0, stop - start), layers, experts), _DTYPE)
        left = read.reshape(-1).view(np.uint8).data
        with self._lock:
            self._file.seek(self._offset + start * layers * experts * _DTYPE.itemsize)
            while left:
                got = self._file.readinto(left)
                if not got:
                    raise ValueError(f"{self._name} has become shorter since it was opened.")
                left = left[got:]
        if not np.isfinite(read).all():
            raise ValueError(f"{self._name} is damaged: router logits are not finite.")
        return read.astype(np.float32, copy=False)


def packed(rows: RouterRows) -> Iterator[bytes]:
    """All of `rows` in little-endian float32, piece by piece."""
    for start in range(0, rows.shape[0], _ROWS_AT_ONCE):
        yield rows.rows(start, start + _ROWS_AT_ONCE).astype(_DTYPE, copy=False).tobytes()
