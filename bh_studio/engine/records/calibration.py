"""What recording a model's router logits gives, window by window. Knows arrays, no torch."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from bh_studio.engine.files.lists import finite_array


@dataclass(frozen=True, slots=True, eq=False)
class LogitsRow:
    """Router logits of one window, and how large the outputs of experts were.

    logits: (layer, token, expert) float32. norms: (2, layer, expert) float64, sums of the norms of
    outputs and how many there were; None if they were not measured.
    """

    logits: np.ndarray
    norms: np.ndarray | None

    def to_json(self) -> dict[str, Any]:
        """The row by name; the logits as base64 of little-endian float32."""
        return {
            "shape": list(self.logits.shape),
            "logits": base64.b64encode(self.logits.astype("<f4").tobytes()).decode(),
            "norms": None if self.norms is None else self.norms.tolist(),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The row that to_json wrote. Raises KeyError, TypeError or ValueError for others."""
        data = base64.b64decode(values["logits"], validate=True)
        shape = tuple(int(size) for size in values["shape"])
        if len(shape) != 3 or min(shape) < 1 or math.prod(shape) * 4 != len(data):
            raise ValueError("The logits of a row do not have the shape that it says.")
        norms = values["norms"]
        return cls(
            np.frombuffer(data, "<f4").reshape(shape).astype(np.float32),
            None if norms is None else finite_array(norms, 3),
        )


@dataclass(frozen=True, slots=True, eq=False)
class FisherRow:
    """What one window says of how much experts matter.

    squares: (2, layer, expert) float64, sums of squared effects and how many there were.
    """

    squares: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """The row by name."""
        return {"squares": self.squares.tolist()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The row that to_json wrote. Raises KeyError, TypeError or ValueError for others."""
        return cls(finite_array(values["squares"], 3))
