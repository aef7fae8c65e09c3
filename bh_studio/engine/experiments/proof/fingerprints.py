"""The bits of numbers, so that two of them can be compared without keeping both. Knows no model."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

_WHOLE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def fingerprints(rows: Tensor) -> Tensor:
    """A number that stands for the bits of each row, (row,) int64, where `rows` lie.

    rows: (row, column). Rows that differ in one number have different fingerprints; those that
    differ in more have them but for a chance of about 2^-63. Waits for no device.
    """
    # Sums of whole numbers wrap around, so that their order changes nothing.
    return (_bits(rows).long() * _factors(rows.shape[-1], rows.device)).sum(-1)


def is_same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal in shape, dtype and every bit."""
    return one.dtype == other.dtype and torch.equal(_bits(one), _bits(other))


def first_difference(one: np.ndarray, other: np.ndarray) -> int | None:
    """The first row in which two arrays differ, or one is longer; None if they are equal."""
    rows = min(len(one), len(other))
    differs = (one[:rows] != other[:rows]).any(axis=tuple(range(1, one.ndim)))
    if differs.any():
        return int(differs.argmax())
    return rows if len(one) != len(other) else None


class PrintedLogits:
    """Keeps the fingerprint of the logits that each token is chosen from; waits for no device."""

    def __init__(self) -> None:
        self._kept: list[Tensor] = []

    def __call__(self, logits: Tensor) -> None:
        """Keep the next one. logits: (1, vocabulary)."""
        self._kept.append(fingerprints(logits))

    def of(self, tokens: int) -> np.ndarray:
        """Those of the first `tokens`, (token,) int64: one may have been computed ahead."""
        return torch.cat(self._kept[:tokens]).cpu().numpy()


def _bits(values: Tensor) -> Tensor:
    return values.view(_WHOLE[values.element_size()])


@functools.lru_cache(maxsize=4)
def _factors(size: int, device: torch.device) -> Tensor:
    """Odd numbers, (size,) int64: times one of them, no difference between two numbers is 0."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(-(2**63), 2**63 - 1, (size,), generator=generator, dtype=torch.int64)
    return (drawn | 1).to(device)
