"""A rule with its values, checked against the catalogue: what decides how many experts are used.

Knows neither Qt nor torch. What the values do is in `routing`: selection, scores and nulls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from bh_studio.engine.rules.catalogue import CATALOGUE, LevelEffect, RuleEntry, RuleName
from bh_studio.engine.rules.names import MixingWeights, Mode, NullName, OnEmpty, ScoreName

# The names too: rules are imported from here in many places.
__all__ = [
    "MixingWeights", "Mode", "NullName", "OnEmpty", "RouterShape", "RuleName", "RuleParameters",
    "ScoreName",
]  # fmt: skip
_E = TypeVar("_E", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class RuleParameters:
    """A rule and everything that decides what it selects.

    rule: its name. level: the one number that makes it select more or fewer, alpha of "bh" or k of
        "top-k", for all layers or one a layer.
    temperature: divides the router logits before the score; > 0. It changes no count where logits
        are tested, for the null changes alike.
    min_k, max_k: the least and the most experts a token may use in a layer.
    score, null: what the tests compare with what; a rule that tests nothing takes no null. The
        catalogue says which a rule may have.

    Raises ValueError for values outside these ranges.
    """

    rule: RuleName = RuleName.BH
    level: float | tuple[float, ...] = 0.05
    temperature: float = 1.0
    min_k: int = 1
    max_k: int = 8
    mode: Mode = Mode.PATCH
    weights: MixingWeights = MixingWeights.MODEL
    on_empty: OnEmpty = OnEmpty.MIN_K
    score: ScoreName = ScoreName.PROBABILITY
    null: NullName = NullName.DISCARDED

    def __post_init__(self) -> None:
        for kind, name in _ENUMS:
            object.__setattr__(self, name, _member(kind, getattr(self, name), name))
        self.entry.check_level(self.level)
        if not 0.0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be a positive number; got {self.temperature}.")
        if self.min_k < 1:
            raise ValueError(f"min_k must be at least 1; got {self.min_k}.")
        if self.min_k > self.max_k:
            raise ValueError(
                f"min_k must not exceed max_k; got min_k={self.min_k}, max_k={self.max_k}."
            )
        # The default says nothing, so that rules without a null need not say that they have none.
        if self.null is not NullName.DISCARDED and self.null not in self.entry.nulls:
            raise ValueError(f"The rule {self.rule} uses no null; leave null out.")
        if self.score not in self.entry.scores:
            raise ValueError(f"The rule {self.rule} looks at probabilities; leave score out.")
        if self.null is NullName.ROBUST and self.score.has_factor:
            raise ValueError(
                f"The null robust needs the scores of all experts, which the score {self.score} "
                "leaves out."
            )
        if self.null is NullName.SOFTMAX and self.score is not ScoreName.PROBABILITY:
            raise ValueError("The null softmax is made of probabilities; leave score out.")

    @property
    def entry(self) -> RuleEntry:
        """What the catalogue says of the rule."""
        return CATALOGUE[self.rule]

    @property
    def is_test(self) -> bool:
        """Whether the rule tests hypotheses, so that it needs a score and a null."""
        return self.entry.is_test

    @property
    def needs_calibration(self) -> bool:
        """Whether the rule rests on recorded router logits or output norms."""
        return self.is_test or self.score.has_factor

    @property
    def level_symbol(self) -> str:
        """What the literature calls the level of this rule."""
        return self.entry.symbol

    @property
    def level_text(self) -> str:
        """The level under its own name, as in "alpha 0.05"."""
        if isinstance(self.level, tuple):
            return f"{self.level_symbol} of each layer"
        return f"{self.level_symbol} {self.level:g}"

    def levels(self, layers: int) -> tuple[float, ...]:
        """The level of each layer. Raises ValueError if there is not one for each."""
        if not isinstance(self.level, tuple):
            return (self.level,) * layers
        if len(self.level) != layers:
            raise ValueError(
                f"{self.level_symbol} has {len(self.level)} values for the {layers} layers of "
                "this model."
            )
        return self.level

    def used_counts(self, experts: int, top_k: int) -> list[int]:
        """The experts used for each raw count from 0 to `experts`: on_empty and the limits."""
        used = [min(max(raw, self.min_k), self.max_k) for raw in range(experts + 1)]
        if self.on_empty is OnEmpty.TOP_K:
            used[0] = min(max(top_k, self.min_k), self.max_k)
        return used

    def check_shape(self, layers: int, experts: int) -> None:
        """Raise ValueError if the rule does not fit a model of `layers` with `experts` each."""
        if self.max_k > experts:
            raise ValueError(
                f"max_k must not exceed the {experts} experts of a layer; got {self.max_k}."
            )
        largest = max(self.levels(layers))
        if self.entry.level_is_count and largest > experts:
            raise ValueError(
                f"{self.level_symbol} must not exceed the {experts} experts of a layer; "
                f"got {largest:g}."
            )

    def check_searchable(self) -> None:
        """Raise ValueError unless a level between 0 and 1 says how many experts are selected."""
        if self.entry.effect is LevelEffect.UNSET:
            others = [e.name for e in CATALOGUE.values() if e.effect is not LevelEffect.UNSET]
            raise ValueError(
                f"No level between 0 and 1 sets how many experts the rule {self.rule} selects; use "
                f"one of {', '.join(others)}."
            )
        # Where nothing is tested the level is compared with the score itself.
        if self.score is ScoreName.LOGIT and not self.is_test:
            raise ValueError(
                f"A {self.rule} on logits has no level between 0 and 1; leave score out."
            )
        if self.mode is not Mode.PATCH:
            raise ValueError("A rule that only analyzes changes no mean; leave mode out.")


_ENUMS: tuple[tuple[type[StrEnum], str], ...] = (
    (RuleName, "rule"),
    (Mode, "mode"),
    (MixingWeights, "weights"),
    (OnEmpty, "on_empty"),
    (ScoreName, "score"),
    (NullName, "null"),
)


def _member(kind: type[_E], value: str, name: str) -> _E:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(repr(member.value) for member in kind)
        raise ValueError(f"{name} must be one of {known}; got {value!r}.") from None


@dataclass(frozen=True, slots=True)
class RouterShape:
    """What all routers of a model share.

    layers: those that have a router; dense ones among them are not counted.
    """

    layers: int
    experts: int
    top_k: int
    norm_topk_prob: bool
