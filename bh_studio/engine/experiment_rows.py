"""What an experiment keeps of each answer, and the numbers over many of them.

Rows go to JSON and come back equal, so that an experiment can go on where it was interrupted.
Knows no model, no file and no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from bh_studio.engine.messages import FinishReason
from bh_studio.engine.session import SideRecord
from bh_studio.engine.statistics import CountStatistics, count_statistics, first_difference


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer without its count matrix. token_ids: the end-of-text token included."""

    text: str
    token_ids: tuple[int, ...]
    tokens_per_second: float | None
    time_to_first_token_s: float | None
    finish_reason: FinishReason
    statistics: CountStatistics

    @classmethod
    def of(cls, record: SideRecord) -> Self:
        """What is kept of `record`."""
        return cls(
            record.text,
            record.token_ids,
            record.tokens_per_second,
            record.time_to_first_token_s,
            record.finish_reason,
            count_statistics(record.expert_counts, record.raw_counts),
        )

    def to_json(self) -> dict[str, Any]:
        """The answer under the names of a session, statistics of the answer only."""
        return {
            "text": self.text,
            "token_ids": list(self.token_ids),
            "tokens_per_second": self.tokens_per_second,
            "time_to_first_token_s": self.time_to_first_token_s,
            "finish_reason": self.finish_reason.value,
            "statistics": self.statistics.to_dict(),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The answer that `to_json` wrote. Raises KeyError, TypeError or ValueError for others."""
        statistics: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values["statistics"].items()
        }
        return cls(
            str(values["text"]),
            tuple(int(token) for token in values["token_ids"]),
            values["tokens_per_second"],
            values["time_to_first_token_s"],
            FinishReason(values["finish_reason"]),
            CountStatistics(**statistics),
        )


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two answers are the same.

    matching: positions at which both have the same token, counted from the start of each answer.
    positions: length of the longer answer, so what only one of them has counts as different.
    first_difference: index of the first position at which they differ; None if they never do.
    """

    matching: int
    positions: int
    first_difference: int | None

    @classmethod
    def between(cls, baseline: Answer, bh: Answer) -> Self:
        """The agreement of `bh` with `baseline`."""
        pairs = zip(baseline.token_ids, bh.token_ids, strict=False)
        return cls(
            sum(left == right for left, right in pairs),
            max(len(baseline.token_ids), len(bh.token_ids)),
            first_difference(baseline.token_ids, bh.token_ids),
        )

    @property
    def share(self) -> float:
        return self.matching / self.positions

    def to_json(self) -> dict[str, Any]:
        """The agreement by name."""
        return {
            "agreement": self.share,
            "matching_tokens": self.matching,
            "first_difference": self.first_difference,
        }


@dataclass(frozen=True, slots=True)
class AnswersSummary:
    """Many answers of one side taken together, each token with the same weight."""

    statistics: CountStatistics
    tokens_per_second: float | None

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> Self:
        """The summary of `answers`."""
        return cls(pooled([answer.statistics for answer in answers]), _pooled_speed(answers))

    def to_json(self) -> dict[str, Any]:
        """The summary under the names of an answer."""
        return {
            "tokens_per_second": self.tokens_per_second,
            "statistics": self.statistics.to_dict(),
        }


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


def _pooled_speed(answers: Sequence[Answer]) -> float | None:
    """All decoding steps over all decoding time; the first token of an answer is no such step."""
    steps = [
        (len(answer.token_ids) - 1, answer.tokens_per_second)
        for answer in answers
        if answer.tokens_per_second
    ]
    seconds = sum(count / speed for count, speed in steps)
    return sum(count for count, _ in steps) / seconds if seconds > 0 else None
