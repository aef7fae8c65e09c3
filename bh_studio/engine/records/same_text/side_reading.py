"""What one side makes of a given text, token by token. Knows arrays, no model and no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from bh_studio.engine.files.lists import counted_array, finite_array
from bh_studio.engine.files.plain_json import convert
from bh_studio.engine.records.counts import CountStatistics, count_statistics
from bh_studio.engine.records.decisions.decision import Decision
from bh_studio.engine.records.decisions.drift import Drift
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.text import format_rule, parse_rule


@dataclass(frozen=True, slots=True, eq=False)
class SideReading:
    """How one side predicts each token of a text from those before it, all but the first.

    rule: None for the model's own routing. log_probabilities: (position,) float64, nats, of the
    token that stands there. ranks: (position,) int64, its place among all tokens by probability,
    from 1; tokens that are equally probable share the best place. kl: (position,) float64,
    KL(side A || this side) in nats; as it is rounded in float32, it may be below 0 by about 1e-7.
    counts, raw_counts: (position, layer) int64, experts used after and before the limits while the
    token before was read, which is when this one is predicted. With a rule that only analyzes they
    are what it would have used. decision: of the same positions; None where it was not kept, as in
    files, which do not hold it. drift: how like the null's text this one is; None where it was not
    judged, as where the decision was not kept.
    """

    rule: RuleParameters | None
    log_probabilities: np.ndarray
    ranks: np.ndarray
    kl: np.ndarray
    counts: np.ndarray
    raw_counts: np.ndarray
    decision: Decision | None = None
    drift: Drift | None = None

    @property
    def nats(self) -> float:
        """Mean of -log p, a token."""
        return -float(self.log_probabilities.mean())

    @property
    def perplexity(self) -> float | None:
        """e to the power of `nats`; None where that is more than a number can be."""
        try:
            return math.exp(self.nats)
        except OverflowError:
            return None

    @property
    def mean_kl(self) -> float:
        return float(self.kl.mean())

    @property
    def statistics(self) -> CountStatistics:
        """Summary of the counts."""
        return count_statistics(self.counts, self.raw_counts)

    def fits(self, rule: RuleParameters | None, positions: int, layers: int, experts: int) -> bool:
        """Whether this can be what `rule` made of so many tokens, by a model of such layers."""
        each, counted = (positions,), (positions, layers)
        return (
            self.rule == rule
            and self.log_probabilities.shape == self.ranks.shape == self.kl.shape == each
            and self.counts.shape == self.raw_counts.shape == counted
            and max(self.counts.max(), self.raw_counts.max()) <= experts
            and (self.drift is None or len(self.drift.tail_shares) == layers)
        )

    def to_json(self) -> dict[str, Any]:
        """The values by name, the rule as text, without the decision."""
        return {
            "rule": None if self.rule is None else format_rule(self.rule),
            "log_probabilities": self.log_probabilities.tolist(),
            "ranks": self.ranks.tolist(),
            "kl": self.kl.tolist(),
            "counts": self.counts.tolist(),
            "raw_counts": self.raw_counts.tolist(),
            "drift": None if self.drift is None else self.drift.to_json(),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The reading that to_json wrote. Raises KeyError, TypeError or ValueError for others."""
        # Rows of earlier versions say nothing of it.
        rule, drift = values["rule"], values.get("drift")
        found = cls(
            None if rule is None else parse_rule(convert(str, rule, "rule")),
            finite_array(values["log_probabilities"], 1),
            counted_array(values["ranks"], 1),
            finite_array(values["kl"], 1),
            counted_array(values["counts"], 2),
            counted_array(values["raw_counts"], 2),
            drift=None if drift is None else Drift.from_json(drift),
        )
        of_float32 = all(
            (np.abs(values) <= np.finfo(np.float32).max).all()
            for values in (found.log_probabilities, found.kl)
        )
        if not (of_float32 and found.ranks.all() and (found.log_probabilities <= 0).all()):
            raise ValueError("its ranks or probabilities are none.")
        return found
