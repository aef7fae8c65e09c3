"""What a rule selected from recorded router logits, a row a rule. Knows no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from bh_studio.engine.files.plain_json import convert
from bh_studio.engine.records.counts import CountStatistics
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.text import format_rule, parse_rule

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class ArenaRow:
    """One rule on the recorded tokens; numbers are over (token, layer) pairs.

    statistics: of the counts. share_empty: pairs in which the rule selected no expert before the
    limits. mass: mean probability that the selected experts hold together. relative_mass: the same
    over the mean that the model's own top-k holds. fixed_relative_mass: what a fixed top-k with the
    same mean would have there, between two whole k in proportion. overlap: mean Jaccard index with
    the experts of the model's own top-k. on_front: whether no other row holds at least as much mass
    with at most as many experts, one of the two strictly; about selection, not quality. shortage: a
    sentence if the null is too small for the level.
    """

    rule: RuleParameters
    statistics: CountStatistics
    share_empty: float
    mass: float
    relative_mass: float
    fixed_relative_mass: float
    overlap: float
    shortage: str | None
    on_front: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The numbers by name, the rule as text, with lists for tuples, as JSON has them."""
        return {
            "rule": format_rule(self.rule),
            **self.statistics.to_dict(),
            "share_empty": self.share_empty,
            "mass": self.mass,
            "relative_mass": self.relative_mass,
            "fixed_relative_mass": self.fixed_relative_mass,
            "overlap": self.overlap,
            "on_front": self.on_front,
            "shortage": self.shortage,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The row that to_dict wrote. Raises KeyError, TypeError or ValueError for others."""
        statistics = {name: values[name] for name in CountStatistics.__slots__}
        own = {name: values[name] for name in cls.__slots__ if name not in ("rule", "statistics")}
        rule = asdict(parse_rule(convert(str, values["rule"], "rule")))
        return convert(cls, {**own, "rule": rule, "statistics": statistics})
