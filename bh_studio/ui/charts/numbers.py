"""The numbers that a chart draws, as a table. Knows no widget."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

# A smaller value, such as a p-value, would have no digit left.
_SMALL = 1e-3


def _by_number(row: int) -> tuple[object, ...]:
    return (row,)


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """heads: what the labels of a row are. label: gives them, of a row from 0. columns: what the
    values are. values: (row, column), whole or floating; nan for none."""

    heads: tuple[str, ...]
    columns: tuple[str, ...]
    values: np.ndarray
    label: Callable[[int], tuple[object, ...]] = field(default=_by_number)

    def text(self, row: int, column: int) -> str:
        """A value as a person reads it."""
        value = self.values[row, column]
        if np.isnan(value):
            return ""
        if value == int(value):
            return str(int(value))
        return f"{value:.4f}" if abs(value) >= _SMALL else f"{value:.3g}"

    def to_csv(self) -> str:
        """All of it, every digit of a value kept."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow([*self.heads, *self.columns])
        for row, values in enumerate(self.values.tolist()):
            writer.writerow(
                [*self.label(row), *("" if value != value else _plain(value) for value in values)]
            )
        return text.getvalue()


def _plain(value: float) -> float | int:
    return int(value) if value == int(value) else value
