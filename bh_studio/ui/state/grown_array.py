"""An array that gains rows one after the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

_FIRST_CAPACITY = 256


class GrownArray:
    """Rows of one shape, kept in one array of twice the size whenever it is full.

    What `rows` returned stays as it was: rows are only added, never changed.
    """

    def __init__(self, row_shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._kept = np.zeros((0, *row_shape), dtype)
        self._used = 0

    @classmethod
    def of(cls, rows: np.ndarray) -> GrownArray:
        """The array that has these rows already."""
        grown = cls(rows.shape[1:], rows.dtype)
        grown._kept, grown._used = rows, len(rows)
        return grown

    def __len__(self) -> int:
        return self._used

    @property
    def rows(self) -> np.ndarray:
        """(row, ...), all of them, without a copy."""
        return self._kept[: self._used]

    def extend(self, rows: np.ndarray) -> None:
        """Add `rows`, (row, ...), behind the others."""
        needed = self._used + len(rows)
        if needed > len(self._kept):
            capacity = max(_FIRST_CAPACITY, 2 * self._used, needed)
            larger = np.zeros((capacity, *self._kept.shape[1:]), self._kept.dtype)
            larger[: self._used] = self.rows
            self._kept = larger
        self._kept[self._used : needed] = rows
        self._used = needed
