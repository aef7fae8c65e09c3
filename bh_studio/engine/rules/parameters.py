"""What decides how many experts a token gets: names of rules, scores and nulls, and their values.

Knows neither Qt nor torch. What the names do is in `routing`: selection, scores and nulls.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeVar

_E = TypeVar("_E", bound=StrEnum)


class Mode(StrEnum):
    """What the rule does to the model: change its routing, or only count what it would do."""

    PATCH = "patch"
    ANALYZE = "analyze"


class MixingWeights(StrEnum):
    """How the outputs of the selected experts are weighted.

    MODEL: as the model's own router does. RENORMALIZE: scaled to sum 1. MATCH: scaled to the sum
    that the weights of the model's own top-k would have had for this token. All three are the same
    for a model that scales its own weights to sum 1 (norm_topk_prob).
    """

    MODEL = "model"
    RENORMALIZE = "renormalize"
    MATCH = "match"


class OnEmpty(StrEnum):
    """What a token gets where the rule selects no expert: min_k, or as many as the model's own."""

    MIN_K = "min_k"
    TOP_K = "top_k"


class ScoreName(StrEnum):
    """What an expert is judged by.

    PROBABILITY: softmax over all experts. LOGIT: the router's raw output. The others multiply the
    probability with a factor of each expert, measured in calibration: OUTPUT with the usual norm of
    its output, SENSITIVITY with how much its output matters to the model's answer; then the max_k
    most probable experts are the candidates, and the others are not selected.
    """

    PROBABILITY = "probability"
    LOGIT = "logit"
    OUTPUT = "output"
    SENSITIVITY = "sensitivity"

    @property
    def has_factor(self) -> bool:
        """Whether the probability is multiplied with a factor of each expert."""
        return self in (ScoreName.OUTPUT, ScoreName.SENSITIVITY)


class NullName(StrEnum):
    """What scores look like under H0; see routing.nulls."""

    DISCARDED = "discarded"
    POOLED = "pooled"
    ALL = "all"
    PER_EXPERT = "per-expert"
    GAUSSIAN = "gaussian"
    ROBUST = "robust"
    SOFTMAX = "softmax"


class RuleName(StrEnum):
    """The rules; see routing.selection."""

    BH = "bh"
    BY = "by"
    STOREY = "storey"
    HIGHER_CRITICISM = "hc"
    TOP_K = "top-k"
    TOP_P = "top-p"
    MIN_P = "min-p"
    CUT = "cut"
    ENTROPY = "entropy"


class _Level(NamedTuple):
    """symbol: what the literature calls the level. is_valid, range: which values it may take."""

    symbol: str
    is_valid: Callable[[float], bool]
    range: str


_OPEN = "must lie between 0 and 1, both excluded"
_HALF_OPEN = "must lie above 0 and be at most 1"
_LEVELS = {
    RuleName.BH: _Level("alpha", lambda a: 0.0 < a < 1.0, _OPEN),
    RuleName.BY: _Level("alpha", lambda a: 0.0 < a < 1.0, _OPEN),
    RuleName.STOREY: _Level("alpha", lambda a: 0.0 < a < 1.0, _OPEN),
    RuleName.HIGHER_CRITICISM: _Level("alpha0", lambda a: 0.0 < a <= 1.0, _HALF_OPEN),
    RuleName.TOP_K: _Level("k", lambda k: k >= 1 and k == int(k), "must be a whole number from 1"),
    RuleName.TOP_P: _Level("p", lambda p: 0.0 < p <= 1.0, _HALF_OPEN),
    RuleName.MIN_P: _Level("beta", lambda b: 0.0 < b <= 1.0, _HALF_OPEN),
    RuleName.CUT: _Level("t", lambda _: True, "must be a finite number"),
    RuleName.ENTROPY: _Level("h", lambda h: 0.0 <= h <= 1.0, "must lie between 0 and 1"),
}
_TESTS = (RuleName.BH, RuleName.BY, RuleName.STOREY, RuleName.HIGHER_CRITICISM)


@dataclass(frozen=True, slots=True)
class RuleParameters:
    """A rule and everything that decides what it selects.

    rule: its name. level: the one number that makes it select more or fewer, alpha of "bh" or k of
        "top-k", for all layers or one a layer.
    temperature: divides the router logits before the score; > 0. It changes no count where logits
        are tested, for the null changes alike.
    min_k, max_k: the least and the most experts a token may use in a layer.
    score, null: what the tests compare with what; the other rules take no null, and all but "cut"
        look at the probability.

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
        symbol, is_valid, allowed = _LEVELS[self.rule]
        if self.level == ():
            raise ValueError(f"{symbol} has no value.")
        for value in self.level if isinstance(self.level, tuple) else (self.level,):
            if not (math.isfinite(value) and is_valid(value)):
                raise ValueError(f"{symbol} {allowed}; got {value}.")
        if not 0.0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be a positive number; got {self.temperature}.")
        if self.min_k < 1:
            raise ValueError(f"min_k must be at least 1; got {self.min_k}.")
        if self.min_k > self.max_k:
            raise ValueError(
                f"min_k must not exceed max_k; got min_k={self.min_k}, max_k={self.max_k}."
            )
        if not self.is_test and self.null is not NullName.DISCARDED:
            raise ValueError(f"The rule {self.rule} uses no null; leave null out.")
        if not self.is_test and self.rule is not RuleName.CUT and not self._is_about_probability:
            raise ValueError(f"The rule {self.rule} looks at probabilities; leave score out.")
        if self.null is NullName.ROBUST and self.score.has_factor:
            raise ValueError(
                f"The null robust needs the scores of all experts, which the score {self.score} "
                "leaves out."
            )
        if self.null is NullName.SOFTMAX and not self._is_about_probability:
            raise ValueError("The null softmax is made of probabilities; leave score out.")

    @property
    def is_test(self) -> bool:
        """Whether the rule tests hypotheses, so that it needs a score and a null."""
        return self.rule in _TESTS

    @property
    def needs_calibration(self) -> bool:
        """Whether the rule rests on recorded router logits or output norms."""
        return self.is_test or self.score.has_factor

    @property
    def _is_about_probability(self) -> bool:
        return self.score is ScoreName.PROBABILITY

    @property
    def level_symbol(self) -> str:
        """What the literature calls the level of this rule."""
        return _LEVELS[self.rule].symbol

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
        if self.rule is RuleName.TOP_K and largest > experts:
            raise ValueError(
                f"k must not exceed the {experts} experts of a layer; got {largest:g}."
            )


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
