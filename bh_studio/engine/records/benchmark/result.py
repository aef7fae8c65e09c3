"""What a benchmark of decoding found. Knows arrays and JSON, no model.

Every figure is the median over rounds with its quartiles; every ratio is taken round by round
before that, so that what else the machine did falls on both sides of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from bh_studio.engine.records.terms import ModelInfo

SCHEMA_VERSION = 1

# Contenders, in the words of the table.
STOCK = "stock generate"
STOCK_BATCHED = "stock batched_mm"
STOCK_STATIC = "stock static cache"
BASELINE = "baseline"
BH = "BH at alpha 0.05"
BH_MEAN = "BH at 4 experts"
BOTH_SIDES = "both sides in turn"


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and quartiles."""

    median: float
    q25: float
    q75: float


def spread(values: Sequence[float]) -> Spread:
    """The spread of at least one value."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return Spread(float(middle), float(low), float(high))


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """The spread of the ratios, value by value."""
    return spread([a / b for a, b in zip(numerators, denominators, strict=True)])


@dataclass(frozen=True, slots=True)
class ContenderResult:
    """One way to decode, measured once a round.

    decode_seconds: (round,), from the first token to the last. first_token_seconds,
    answer_seconds: (round,), from the prompt to the first token, and to the last. tokens: of each
    answer. threads: of the processor that torch used. expert_path: which expert computation made
    the tokens. mean_experts: of a token in a layer. expert_rows: experts that a token ran, all
    layers together. token_bytes: that have to be read for a token.
    """

    name: str
    tokens: int
    threads: int
    expert_path: str
    mean_experts: float
    expert_rows: float
    token_bytes: float
    decode_seconds: tuple[float, ...]
    first_token_seconds: tuple[float, ...]
    answer_seconds: tuple[float, ...]

    @property
    def step_seconds(self) -> list[float]:
        """Mean time of a token while decoding, (round,)."""
        return [seconds / (self.tokens - 1) for seconds in self.decode_seconds]

    @property
    def tokens_per_second(self) -> Spread:
        """While decoding."""
        return spread([1 / step for step in self.step_seconds])

    @property
    def answer_tokens_per_second(self) -> Spread:
        """Of the whole answer, prompt included."""
        return spread([self.tokens / seconds for seconds in self.answer_seconds])


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """bytes_per_second: (round,), reading `buffer_bytes` of the device's memory, `way` says how."""

    way: str
    buffer_bytes: int
    bytes_per_second: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class MeanLevel:
    """The level at which tokens of this benchmark used `mean` experts, after decoding `runs`."""

    target: float
    level: float
    mean: float
    runs: int


@dataclass(frozen=True, slots=True)
class RouterTimes:
    """One router call for one row, (block,) seconds: the model's own, with BH, and with BH and
    statistics; blocks took turns."""

    own: tuple[float, ...]
    bh: tuple[float, ...]
    bh_with_statistics: tuple[float, ...]

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The blocks of all `parts`, one after the other."""
        return cls(
            tuple(seconds for part in parts for seconds in part.own),
            tuple(seconds for part in parts for seconds in part.bh),
            tuple(seconds for part in parts for seconds in part.bh_with_statistics),
        )


@dataclass(frozen=True, slots=True)
class PrefillResult:
    """Reading a prompt of `tokens` tokens.

    stock_seconds, our_seconds: (round,). stock_bytes, our_bytes: how far memory grew at most.
    """

    tokens: int
    stock_seconds: tuple[float, ...]
    our_seconds: tuple[float, ...]
    stock_bytes: int
    our_bytes: int


@dataclass(frozen=True, slots=True)
class BenchResult:
    """One benchmark.

    device: its name. rounds_asked: how many there should have been; fewer were measured if it was
    stopped. decode_path: which way our sides decode, decode_path_reason: why that one. contenders:
    in the order of the table, STOCK and BASELINE among them. pair_seconds: (round,), decoding with
    both sides taking turns; None if there was no rule for it. memory_limit: None where it was not
    measured, no_limit says why. left_out: contenders that could not be measured, and why. notes:
    what has to be known to read the figures.
    """

    model: ModelInfo
    device: str
    rounds: int
    rounds_asked: int
    tokens: int
    prompt_tokens: int
    decode_path: str
    decode_path_reason: str
    contenders: tuple[ContenderResult, ...]
    pair_seconds: tuple[float, ...] | None
    mean_level: MeanLevel | None
    memory_limit: MemoryLimit | None
    no_limit: str
    router_times: RouterTimes
    prefill: PrefillResult | None
    left_out: dict[str, str]
    notes: tuple[str, ...]
    environment: dict[str, Any]

    @property
    def pair_step_seconds(self) -> list[float] | None:
        """Mean time of one token of each side, (round,)."""
        if self.pair_seconds is None:
            return None
        return [seconds / (self.tokens - 1) for seconds in self.pair_seconds]

    def over_steps(self, seconds: Sequence[float], *names: str) -> Spread:
        """`seconds`, (round,), over the time of one token of each of these contenders together."""
        steps = (self.contender(name).step_seconds for name in names)
        return ratio(seconds, [sum(of_round) for of_round in zip(*steps, strict=True)])

    def contender(self, name: str) -> ContenderResult:
        """The contender of this name. Raises KeyError if it was left out."""
        return {contender.name: contender for contender in self.contenders}[name]

    @property
    def fastest_stock(self) -> ContenderResult:
        """The one of transformers' own ways with the highest median speed."""
        stock = [c for c in self.contenders if c.name in (STOCK, STOCK_BATCHED, STOCK_STATIC)]
        return max(stock, key=lambda contender: contender.tokens_per_second.median)

    def speed_ratio(self, name: str, of: str) -> Spread:
        """How many times as fast `name` decodes as `of`."""
        return ratio(self.contender(of).decode_seconds, self.contender(name).decode_seconds)

    def share_of_limit(self, contender: ContenderResult) -> float | None:
        """Bytes that the contender's tokens need a second over those that memory gives; the median
        of the rounds, None where memory was not measured."""
        if self.memory_limit is None:
            return None
        limits = self.memory_limit.bytes_per_second
        needed = [contender.token_bytes / step for step in contender.step_seconds]
        return ratio(needed, limits).median
