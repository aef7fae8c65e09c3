"""What rules selected from recorded router logits, a row a rule. Knows no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Self

from bh_studio.engine.files.plain_json import convert
from bh_studio.engine.records.counts import CountStatistics
from bh_studio.engine.records.estimates import on_front
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.text import format_rule, parse_rule

SCHEMA_VERSION = 1
NOTE = "Selections, not quality: what a rule costs in loss is measured by `bh-studio evaluate`."


@dataclass(frozen=True, slots=True)
class ArenaRow:
    """One rule on the recorded tokens; numbers are over (token, layer) pairs.

    statistics: of the counts. share_empty: pairs in which the rule selected no expert before the
    limits. mass: mean probability that the selected experts hold together. relative_mass: the same
    over the mean that the model's own top-k holds. fixed_relative_mass: what a fixed top-k with the
    same mean would have there, between two whole k in proportion. overlap: mean Jaccard index with
    the experts of the model's own top-k. shortage: a sentence if the null is too small for the
    level. on_front: see with_front; False for a row that was not compared with others.
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

    def to_json(self) -> dict[str, Any]:
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
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The row that `to_json` wrote. Raises KeyError, TypeError or ValueError for others."""
        statistics = {name: values[name] for name in CountStatistics.__slots__}
        own = {name: values[name] for name in cls.__slots__ if name not in ("rule", "statistics")}
        rule = asdict(parse_rule(convert(str, values["rule"], "rule")))
        return convert(cls, {**own, "rule": rule, "statistics": statistics})


def with_front(rows: Sequence[ArenaRow]) -> tuple[ArenaRow, ...]:
    """`rows`, each with whether no other of them holds at least as much mass with at most as many
    experts, one of the two strictly; about selection, not quality."""
    front = on_front([(row.statistics.mean or 0.0, -row.mass) for row in rows])
    return tuple(replace(row, on_front=kept) for row, kept in zip(rows, front, strict=True))


class NullKind(StrEnum):
    """What the nulls of a replay were fitted on."""

    NONE = "none"
    LEAVE_ONE_OUT = "leave-one-out"
    OWN = "own recording"
    OTHER = "calibration"


@dataclass(frozen=True, slots=True)
class ReplayedNull:
    """tokens, sha256: of the recording that nulls were fitted on; None where that is none."""

    kind: NullKind
    tokens: int | None = None
    sha256: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The null by name, without what there is not."""
        kind = {"kind": self.kind.value}
        if self.sha256 is None:
            return kind
        return {**kind, "tokens": self.tokens, "sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """Many rules on the same router logits.

    file: name of the one that holds them. tokens: that rules were replayed on, without the first
    `skipped`. top_k: experts that the model's own router keeps. rows: at least one.
    """

    file: str
    layers: int
    tokens: int
    experts: int
    skipped: int
    top_k: int
    null: ReplayedNull
    rows: tuple[ArenaRow, ...]

    def to_json(self) -> dict[str, Any]:
        """The result as a document, ready for json.dump."""
        return {
            "schema_version": SCHEMA_VERSION,
            "note": NOTE,
            "logits": {
                "file": self.file,
                "layers": self.layers,
                "tokens": self.tokens,
                "experts": self.experts,
                "skipped": self.skipped,
            },
            "top_k": self.top_k,
            "null": self.null.to_json(),
            "rows": [row.to_json() for row in self.rows],
        }
