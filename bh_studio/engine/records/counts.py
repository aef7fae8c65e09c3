"""Numbers from expert counts: what a session reports. Knows arrays, no model and no thread.

A count is the number of experts one token uses in one layer. Every mean, spread and share here
is over (token, layer) pairs unless its name says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np

from bh_studio.engine.architectures import MOST_EXPERTS

# Whole numbers up to here are the same in float64.
_MOST_COUNTED = 2**53


@dataclass(frozen=True, slots=True)
class CountStatistics:
    """Summary of one block of counts.

    tokens: rows of the block. mean, std: over (token, layer) pairs, std with divisor N; None for
    an empty block. per_layer_mean, per_layer_std: (layer,), over tokens. histogram: pairs that
    used exactly i experts, i from 0. share_clamped_min, share_clamped_max: share of pairs in which
    min_k or max_k, not the rule, decided the count.

    Raises ValueError for numbers that no block of counts has together.
    """

    tokens: int
    mean: float | None
    std: float | None
    per_layer_mean: tuple[float, ...]
    per_layer_std: tuple[float, ...]
    histogram: tuple[int, ...]
    share_clamped_min: float | None
    share_clamped_max: float | None

    def __post_init__(self) -> None:
        numbers = (self.mean, self.std, self.share_clamped_min, self.share_clamped_max)
        lists = (self.per_layer_mean, self.per_layer_std, self.histogram)
        if self.tokens == 0:
            is_whole = not any(lists) and all(number is None for number in numbers)
        else:
            known = [number for number in numbers if number is not None]
            is_whole = (
                1 <= self.tokens < _MOST_COUNTED
                and len(known) == len(numbers)
                and len(self.per_layer_mean) == len(self.per_layer_std) > 0
                and all(map(math.isfinite, (*known, *self.per_layer_mean, *self.per_layer_std)))
                and all(0 <= pairs < _MOST_COUNTED for pairs in self.histogram)
                and sum(self.histogram) > 0
                and min(*known, *self.per_layer_mean, *self.per_layer_std) >= 0
                and max(*known[:2], *self.per_layer_mean, *self.per_layer_std) <= MOST_EXPERTS
                and max(known[2:]) <= 1
            )
        if not is_whole:
            raise ValueError("statistics of counts do not fit together.")

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, with lists for tuples, as JSON has them."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The summary that to_dict wrote, among whatever else. Raises KeyError."""
        own: dict[str, Any] = {}
        for name in (field.name for field in fields(cls)):
            value = values[name]
            own[name] = tuple(value) if isinstance(value, list) else value
        return cls(**own)


def count_statistics(
    counts: np.ndarray, raw_counts: np.ndarray, times: np.ndarray | None = None
) -> CountStatistics:
    """Summarize `counts` and `raw_counts`, both (token, layer).

    A pair was clamped at min_k where its raw count is below its count, at max_k where it is above.
    times: (token, layer) how many pairs each entry stands for, as where tokens that are alike were
    counted together; every layer has the same tokens in all. None for one each. Raises ValueError
    if the shapes differ or are not two-dimensional.
    """
    if counts.ndim != 2 or counts.shape != raw_counts.shape:
        raise ValueError(
            f"counts and raw_counts must share one (token, layer) shape; "
            f"got {counts.shape} and {raw_counts.shape}."
        )
    if counts.size == 0 or (times is not None and not times.any()):
        return CountStatistics(0, None, None, (), (), (), None, None)
    values = counts.astype(np.float64)
    mean, layer_mean = _mean(values, times), _mean(values, times, axis=0)
    layer_variance = _mean((values - layer_mean) ** 2, times, axis=0)
    weights = None if times is None else times.ravel()
    return CountStatistics(
        tokens=counts.shape[0] if times is None else int(times[:, 0].sum()),
        mean=float(mean),
        std=math.sqrt(_mean((values - mean) ** 2, times)),
        per_layer_mean=tuple(layer_mean.tolist()),
        per_layer_std=tuple(np.sqrt(layer_variance).tolist()),
        histogram=tuple(np.bincount(counts.ravel(), weights).astype(np.int64).tolist()),
        share_clamped_min=float(_mean(raw_counts < counts, times)),
        share_clamped_max=float(_mean(raw_counts > counts, times)),
    )


def limit_shares(counts: np.ndarray, raw_counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(layer,) float64 each: share of the tokens in which min_k, and in which max_k, decided the
    count, as count_statistics says of all pairs. counts, raw_counts: (token, layer); not empty."""
    return (raw_counts < counts).mean(axis=0), (raw_counts > counts).mean(axis=0)


def _mean(values: np.ndarray, times: np.ndarray | None, axis: int | None = None) -> Any:
    """The mean over `axis` or over all, each value taken `times` times; whole sums are exact."""
    if times is None:
        return values.mean(axis=axis)
    return (values * times).sum(axis=axis) / times.sum(axis=axis)


def tokens_per_second(seconds: np.ndarray) -> float | None:
    """Decoding speed from the cumulative `seconds` (token,) at which each token was ready.

    The first token belongs to reading the prompt, so n tokens span n - 1 steps. None for fewer
    than two tokens.
    """
    if len(seconds) < 2:
        return None
    span = float(seconds[-1] - seconds[0])
    return (len(seconds) - 1) / span if span > 0 else None


def first_difference(one: tuple[int, ...], other: tuple[int, ...]) -> int | None:
    """Index of the first token in which two answers differ, or None.

    Only tokens that both sides produced are compared: a side that was stopped earlier does not
    differ for that. The end-of-text token counts as a token.
    """
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return index
    return None


def pooled(parts: Sequence[CountStatistics]) -> CountStatistics:
    """The statistics of all blocks of counts taken as one. Empty blocks are left out."""
    parts = [part for part in parts if part.tokens]
    if not parts:
        return CountStatistics(0, None, None, (), (), (), None, None)
    tokens = np.array([part.tokens for part in parts], dtype=np.float64)
    share = tokens / tokens.sum()

    def mean_of(name: str) -> float:
        return float(share @ np.array([getattr(part, name) for part in parts], dtype=np.float64))

    means = np.array([part.per_layer_mean for part in parts])  # (part, layer)
    stds = np.array([part.per_layer_std for part in parts])
    layer_mean = share @ means
    layer_variance = share @ (stds**2 + (means - layer_mean) ** 2)
    histogram = np.zeros(max(len(part.histogram) for part in parts), dtype=np.int64)
    for part in parts:
        histogram[: len(part.histogram)] += part.histogram
    experts = np.arange(len(histogram))
    mean = float(histogram @ experts / histogram.sum())
    return CountStatistics(
        tokens=int(tokens.sum()),
        mean=mean,
        std=math.sqrt(float(histogram @ (experts - mean) ** 2 / histogram.sum())),
        per_layer_mean=tuple(layer_mean.tolist()),
        per_layer_std=tuple(np.sqrt(layer_variance).tolist()),
        histogram=tuple(histogram.tolist()),
        share_clamped_min=mean_of("share_clamped_min"),
        share_clamped_max=mean_of("share_clamped_max"),
    )
