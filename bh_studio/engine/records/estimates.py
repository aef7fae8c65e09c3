"""What follows from sums and costs: paired bootstrap intervals, and the Pareto front.

Intervals are of means over tokens that come in blocks. Tokens of one passage depend on each other,
so whole windows are drawn, not tokens; what is compared is drawn together, so that what a passage
does to both sides cancels. The intervals speak of texts like these: they do not know how other
books or another training run would differ. Knows arrays only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from bh_studio.engine.files.plain_json import convert

RESAMPLES = 2000
LEVEL = 0.95


class Estimate(NamedTuple):
    """A mean over tokens and its percentile interval of level LEVEL; nan where there is none."""

    value: float
    low: float
    high: float

    @property
    def has_interval(self) -> bool:
        """Whether there was more than one block to tell how far others may be off."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def scaled(self, factor: float) -> Estimate:
        """The estimate in another unit. factor: above 0."""
        return Estimate(*(factor * number for number in self))

    def to_dict(self) -> dict[str, float | None]:
        """The fields by name, as JSON has them: None for nan."""
        return {
            name: None if math.isnan(value) else value for name, value in self._asdict().items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, float | None]) -> Self:
        """The estimate that to_dict wrote. Raises KeyError, TypeError or ValueError for others."""
        found = ((name, values[name]) for name in cls._fields)
        return cls(*(math.nan if v is None else convert(float, v, name) for name, v in found))


class PairedBootstrap:
    """Intervals of sum(values) / sum(tokens), both by block, from one set of draws.

    tokens: (block,), the scored tokens of each. All estimates of one instance use the same draws,
    so that intervals of differences are paired. With a single block there is no interval: nan.
    """

    def __init__(self, tokens: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> None:
        self._tokens = tokens.astype(np.float64)
        blocks = len(tokens)
        generator = np.random.default_rng(seed)
        # How often each block was drawn, which is all that a sum needs.
        self._draws = generator.multinomial(blocks, np.full(blocks, 1 / blocks), size=resamples)

    def mean(self, sums: np.ndarray) -> Estimate:
        """Mean per token of a quantity with block sums `sums`, (block,)."""
        values = sums.astype(np.float64)
        point = float(values.sum() / self._tokens.sum())
        if len(values) < 2:
            return Estimate(point, float("nan"), float("nan"))
        drawn = (self._draws @ values) / (self._draws @ self._tokens)
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Estimate(point, float(low), float(high))


def on_front(costs: Sequence[tuple[float, float]]) -> list[bool]:
    """For each pair of costs, whether no other has at most the same of both and less of one."""

    def is_beaten(cost: tuple[float, float]) -> bool:
        return any(a <= cost[0] and b <= cost[1] and (a, b) != cost for a, b in costs)

    return [not is_beaten(cost) for cost in costs]
