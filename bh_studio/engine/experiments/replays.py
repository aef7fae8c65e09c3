"""Many rules on the same recorded router logits: how many experts each takes, and what they hold.

This is about selection, not about quality: probability mass says how much of the router's own
opinion a rule keeps, not what the text loses. Two things follow. Taking the largest probabilities
of all tokens first, the rule "cut", holds the most mass at its mean by construction. And what a
rule costs in loss is measured with the model: `bh-studio evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from bh_studio.engine.records.counts import count_statistics
from bh_studio.engine.records.estimates import on_front
from bh_studio.engine.records.replays import ArenaRow
from bh_studio.engine.routing.replay import ReplayedCounts
from bh_studio.engine.rules.parameters import RuleName, RuleParameters
from bh_studio.engine.rules.text import format_rule, parse_rule

# Levels that span about 2 to 8 experts of 64 on OLMoE's routers.
_DEFAULT_RULES = (
    "bh:0.001", "bh:0.005", "bh:0.01", "bh:0.05", "bh:0.1",
    "bh:0.005,null=pooled", "bh:0.01,null=pooled", "bh:0.05,null=pooled",
    "bh:0.05,score=logit",
    "by:0.05", "storey:0.05", "hc:0.5",
    "top-k:2", "top-k:4", "top-k:5", "top-k:6", "top-k:8",
    "top-p:0.2", "top-p:0.3", "top-p:0.4",
    "min-p:0.1", "min-p:0.2", "min-p:0.3",
    "cut:0.02", "cut:0.03", "cut:0.04", "cut:0.06",
    "entropy:0.8",
)  # fmt: skip


def default_rules(top_k: int) -> list[RuleParameters]:
    """Rules and levels worth a look, none with more experts than the model's own `top_k`."""
    rules = [replace(parse_rule(text), max_k=top_k) for text in _DEFAULT_RULES]
    return [r for r in rules if r.rule is not RuleName.TOP_K or max(r.levels(1)) <= top_k]


def arena(
    rules: Sequence[RuleParameters],
    replay_rule: Callable[[RuleParameters], ReplayedCounts],
    progress: Callable[[float], None] = lambda done: None,
) -> list[ArenaRow]:
    """A row for each of `rules`, in their order.

    replay_rule: what a rule selects, all on the same logits; see `replay`. progress: told the share
    of the rules that is done. Raises ValueError, with the rule it is about, where replay_rule does.
    """
    fixed = _FixedMass(replay_rule)
    rows = []
    for done, rule in enumerate(rules, start=1):
        try:
            rows.append(_row(rule, replay_rule(rule), fixed))
        except ValueError as error:
            raise ValueError(f"{format_rule(rule)} cannot be replayed: {error}") from error
        progress(done / len(rules))
    return _with_front(rows)


class _FixedMass:
    """The mean mass of a fixed top-k for any mean, each whole k replayed once."""

    def __init__(self, replay_rule: Callable[[RuleParameters], ReplayedCounts]) -> None:
        self._replay_rule = replay_rule
        self._of: dict[int, float] = {}

    def __call__(self, mean: float) -> float:
        k = int(mean)
        share = mean - k
        if share == 0:
            return self._whole(k)
        return (1 - share) * self._whole(k) + share * self._whole(k + 1)

    def _whole(self, k: int) -> float:
        if k not in self._of:
            rule = RuleParameters(RuleName.TOP_K, k, max_k=k)
            self._of[k] = self._replay_rule(rule).mean_mass
        return self._of[k]


def _row(rule: RuleParameters, replayed: ReplayedCounts, fixed: _FixedMass) -> ArenaRow:
    statistics = count_statistics(replayed.counts, replayed.raw_counts)
    assert statistics.mean is not None  # there is at least one token
    native = replayed.mean_native_mass
    return ArenaRow(
        rule=rule,
        statistics=statistics,
        share_empty=float((replayed.raw_counts == 0).mean()),
        mass=replayed.mean_mass,
        relative_mass=replayed.mean_mass / native,
        fixed_relative_mass=fixed(statistics.mean) / native,
        overlap=float(replayed.overlap.mean(dtype="float64")),
        shortage=replayed.shortage,
    )


def _with_front(rows: Sequence[ArenaRow]) -> list[ArenaRow]:
    front = on_front([(row.statistics.mean or 0.0, -row.mass) for row in rows])
    return [replace(row, on_front=kept) for row, kept in zip(rows, front, strict=True)]
