"""How often each expert ran, and how evenly. Knows arrays, no model and no torch."""

from __future__ import annotations

import math
from typing import Self

import numpy as np

from bh_studio.engine.records.decisions.routed_experts import NO_EXPERT


class Utilisation:
    """Counts in how many positions each expert ran, while positions are added.

    ran: (layer, expert) int64, positions in which the expert ran. positions: that were counted.
    Balance is said of each layer as the entropy of the shares that its experts have in all that
    ran there, over the logarithm of the number of experts: 1 where all ran equally often, 0 where
    only one ever did, nan where none ran.
    """

    def __init__(self, layers: int, experts: int) -> None:
        self.ran = np.zeros((layers, experts), np.int64)
        self.positions = 0

    @classmethod
    def of(cls, routed: np.ndarray, experts: int) -> Self:
        """The utilisation over all positions of `routed`, as `extend` takes them."""
        counted = cls(routed.shape[1], experts)
        counted.extend(routed)
        return counted

    def extend(self, routed: np.ndarray) -> None:
        """Count further positions: (position, layer, slot) uint8, as check_routed has them."""
        layers, experts = self.ran.shape
        if routed.shape[1] != layers:
            raise ValueError(f"these experts are of {routed.shape[1]} layers, not of {layers}.")
        is_used = routed != NO_EXPERT
        cells = routed + experts * np.arange(layers, dtype=np.int64)[:, None]
        self.ran += np.bincount(cells[is_used], minlength=self.ran.size).reshape(self.ran.shape)
        self.positions += len(routed)

    @property
    def shares(self) -> np.ndarray:
        """(layer, expert) float64, share of the positions in which the expert ran; 0 of none."""
        return self.ran / max(self.positions, 1)

    @property
    def idle(self) -> np.ndarray:
        """(layer,) int64, experts that never ran."""
        return np.count_nonzero(self.ran == 0, axis=1)

    @property
    def balance(self) -> np.ndarray:
        """(layer,) float64, as the class says."""
        total = self.ran.sum(axis=1, keepdims=True)
        parts = self.ran / np.maximum(total, 1)
        entropy = -(parts * np.log(np.where(parts > 0, parts, 1.0))).sum(axis=1)
        most = math.log(self.ran.shape[1]) if self.ran.shape[1] > 1 else 1.0
        # Adding 0 makes of -0 what it is.
        return np.where(total[:, 0] > 0, entropy / most + 0.0, np.nan)
