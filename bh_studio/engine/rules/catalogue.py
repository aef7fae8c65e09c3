"""The rules, one entry each: all that the program knows of a rule, but for how it counts experts.

How it counts is in `routing.counters`. Knows neither Qt nor torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from bh_studio.engine.rules.names import NullName, ScoreName


class RuleName(StrEnum):
    """The rules, as they are written in files and on the command line."""

    BH = "bh"
    BY = "by"
    STOREY = "storey"
    HIGHER_CRITICISM = "hc"
    TOP_K = "top-k"
    TOP_P = "top-p"
    MIN_P = "min-p"
    CUT = "cut"
    ENTROPY = "entropy"


class LevelEffect(StrEnum):
    """What a larger level does to how many experts a rule selects.

    UNSET: no level between 0 and 1 sets that.
    """

    MORE = "more"
    FEWER = "fewer"
    UNSET = "unset"


@dataclass(frozen=True, slots=True)
class LevelRange:
    """Finite numbers from `low` to `high`, with or without these two; words: the same, after the
    name of a level."""

    low: float
    high: float
    words: str
    has_low: bool = True
    has_high: bool = True
    is_whole: bool = False

    def __contains__(self, level: float) -> bool:
        return (
            math.isfinite(level)
            and self.low <= level <= self.high
            and (self.has_low or level > self.low)
            and (self.has_high or level < self.high)
            and (not self.is_whole or level == int(level))
        )


@dataclass(frozen=True, slots=True)
class RuleEntry:
    """A rule for whoever offers, checks or explains it.

    symbol: what the literature calls the level, the one number that makes the rule select more or
        fewer. levels: which it may take. step: by how much a form changes it. example: one of them.
    effect: what a larger level does.
    scores: what experts may be judged by. nulls: what the scores may be compared with; none where
        nothing is tested.
    sentence: what the rule keeps, for people.
    """

    name: RuleName
    symbol: str
    levels: LevelRange
    step: float
    example: float
    effect: LevelEffect
    scores: tuple[ScoreName, ...]
    nulls: tuple[NullName, ...]
    sentence: str

    @property
    def is_test(self) -> bool:
        """Whether the rule tests hypotheses, so that it needs a null."""
        return bool(self.nulls)

    @property
    def level_is_count(self) -> bool:
        """Whether the level is itself a number of experts."""
        return self.levels.is_whole

    @property
    def can_be_limited(self) -> bool:
        """Whether min_k or max_k can decide in place of the rule; not if it selects either."""
        return self.name is not RuleName.ENTROPY

    @property
    def example_text(self) -> str:
        """The rule at its example, as it is written: "bh:0.05"."""
        return f"{self.name}:{self.example:g}"

    def check_level(self, level: float | tuple[float, ...]) -> None:
        """Raise ValueError for a level, or one of several, that the rule cannot have."""
        if level == ():
            raise ValueError(f"{self.symbol} has no value.")
        for value in level if isinstance(level, tuple) else (level,):
            if value not in self.levels:
                raise ValueError(f"{self.symbol} {self.levels.words}; got {value}.")


_OPEN = LevelRange(0, 1, "must lie between 0 and 1, both excluded", has_low=False, has_high=False)
_ABOVE_0 = LevelRange(0, 1, "must lie above 0 and be at most 1", has_low=False)
_CLOSED = LevelRange(0, 1, "must lie between 0 and 1")
_WHOLE = LevelRange(1, math.inf, "must be a whole number from 1", is_whole=True)
_FINITE = LevelRange(-math.inf, math.inf, "must be a finite number")
_ANY_SCORE, _ANY_NULL = tuple(ScoreName), tuple(NullName)
_PROBABILITY = (ScoreName.PROBABILITY,)

# In the order in which people are told of them.
_ENTRIES = (
    RuleEntry(
        RuleName.BH,
        symbol="alpha",
        levels=_OPEN,
        step=0.01,
        example=0.05,
        effect=LevelEffect.MORE,
        scores=_ANY_SCORE,
        nulls=_ANY_NULL,
        sentence="Keeps scores that stand out from the null (Benjamini, Hochberg).",
    ),
    RuleEntry(
        RuleName.BY,
        symbol="alpha",
        levels=_OPEN,
        step=0.01,
        example=0.05,
        effect=LevelEffect.MORE,
        scores=_ANY_SCORE,
        nulls=_ANY_NULL,
        sentence="Like bh, stricter, for any dependence (Benjamini, Yekutieli).",
    ),
    RuleEntry(
        RuleName.STOREY,
        symbol="alpha",
        levels=_OPEN,
        step=0.01,
        example=0.05,
        effect=LevelEffect.MORE,
        scores=_ANY_SCORE,
        nulls=_ANY_NULL,
        sentence="Like bh, laxer: estimates how many nulls are true (Storey).",
    ),
    RuleEntry(
        RuleName.HIGHER_CRITICISM,
        symbol="alpha0",
        levels=_ABOVE_0,
        step=0.05,
        example=0.5,
        effect=LevelEffect.UNSET,
        scores=_ANY_SCORE,
        nulls=_ANY_NULL,
        sentence="Keeps experts up to higher criticism's peak, alpha0 at most.",
    ),
    RuleEntry(
        RuleName.TOP_K,
        symbol="k",
        levels=_WHOLE,
        step=1,
        example=5,
        effect=LevelEffect.UNSET,
        scores=_PROBABILITY,
        nulls=(),
        sentence="Keeps the k most probable experts, whatever they are.",
    ),
    RuleEntry(
        RuleName.TOP_P,
        symbol="p",
        levels=_ABOVE_0,
        step=0.05,
        example=0.45,
        effect=LevelEffect.MORE,
        scores=_PROBABILITY,
        nulls=(),
        sentence="Keeps the fewest experts that together hold the probability p.",
    ),
    RuleEntry(
        RuleName.MIN_P,
        symbol="beta",
        levels=_ABOVE_0,
        step=0.05,
        example=0.2,
        effect=LevelEffect.FEWER,
        scores=_PROBABILITY,
        nulls=(),
        sentence="Keeps experts at least beta times as probable as the first.",
    ),
    RuleEntry(
        RuleName.CUT,
        symbol="t",
        levels=_FINITE,
        step=0.01,
        example=0.04,
        effect=LevelEffect.FEWER,
        scores=_ANY_SCORE,
        nulls=(),
        sentence="Keeps experts whose score is at least t.",
    ),
    RuleEntry(
        RuleName.ENTROPY,
        symbol="h",
        levels=_CLOSED,
        step=0.05,
        example=0.8,
        effect=LevelEffect.UNSET,
        scores=_PROBABILITY,
        nulls=(),
        sentence="Takes min_k if the router is sure (entropy below h), else max_k.",
    ),
)
CATALOGUE: Mapping[RuleName, RuleEntry] = MappingProxyType(
    {entry.name: entry for entry in _ENTRIES}
)
