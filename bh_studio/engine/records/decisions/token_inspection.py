"""What a rule sees and does at one position: to be printed and drawn. Knows no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.text import format_rule

SCHEMA_VERSION = 1


class Counting(StrEnum):
    """How many experts follow from points and a line, both from rank 1.

    LAST_AT_OR_BELOW: up to the last point that is not above the line; none if all are.
    FIRST_AT_OR_ABOVE: up to the first point that reaches the line; all if none does.
    ALL_AT_OR_ABOVE: as many as there are points that reach the line.
    HIGHEST: up to the highest point, the first of equals; none if it is not above the line.
    LIMIT: as many as the line says, whatever the points are.
    TWO_COUNTS: one number where the point is below the line, another elsewhere.
    """

    LAST_AT_OR_BELOW = "last at or below"
    FIRST_AT_OR_ABOVE = "first at or above"
    ALL_AT_OR_ABOVE = "all at or above"
    HIGHEST = "highest"
    LIMIT = "limit"
    TWO_COUNTS = "two counts"


@dataclass(frozen=True, slots=True, eq=False)
class Criterion:
    """What a rule compares with what in one layer, to be drawn over the ranks from 1.

    points: (rank,) float64; nan where the rule does not look. line: (rank,) float64. For LIMIT the
    line is (1,), for TWO_COUNTS points and line are. points_name, line_name: what they are.
    """

    counting: Counting
    points: np.ndarray
    line: np.ndarray
    points_name: str
    line_name: str

    def to_json(self) -> dict[str, Any]:
        """The criterion by name, null for what is no finite number."""
        return {
            "counting": self.counting.value,
            "points_name": self.points_name,
            "line_name": self.line_name,
            "points": _plain(self.points),
            "line": _plain(self.line),
        }


@dataclass(frozen=True, slots=True, eq=False)
class InspectedLayer:
    """One layer, its experts in the order in which the rule takes them, best first.

    experts: (rank,) int64. probabilities, scores: (rank,) float32; a score is -inf where an expert
    is no candidate. p_values: (rank,) float64; None for a rule that tests nothing.
    raw_count: what the rule selects. count: after min_k and max_k; the first `count` experts are
    selected. weights: (count,) float32, their mixing weights before they take the model's dtype;
    None where it is not known whether the model scales them.
    """

    experts: np.ndarray
    probabilities: np.ndarray
    scores: np.ndarray
    p_values: np.ndarray | None
    criterion: Criterion
    raw_count: int
    count: int
    weights: np.ndarray | None

    @property
    def selected(self) -> np.ndarray:
        """(count,) int64, the experts that are used, best first."""
        return self.experts[: self.count]

    def to_json(self) -> dict[str, Any]:
        """The layer by name, null for what is no finite number."""
        return {
            "count": self.count,
            "raw_count": self.raw_count,
            "experts": self.experts.tolist(),
            "probabilities": _plain(self.probabilities),
            "scores": _plain(self.scores),
            "p_values": None if self.p_values is None else _plain(self.p_values),
            "weights": None if self.weights is None else _plain(self.weights),
            "criterion": self.criterion.to_json(),
        }


@dataclass(frozen=True, slots=True, eq=False)
class InspectedToken:
    """What `rule` sees and does at one position in every layer, on router logits as recorded.

    rule: None for the model's own routing; of one that only analyzes, what it would do. position:
    from 0, the prompt's positions first. shortage: a sentence if the null is too small for the
    level. Of experts that are equally probable, a run may have taken another.
    """

    rule: RuleParameters | None
    position: int
    layers: tuple[InspectedLayer, ...]
    shortage: str | None

    def to_json(self) -> dict[str, Any]:
        """The token as a document, ready for json.dump."""
        return {
            "schema_version": SCHEMA_VERSION,
            "rule": None if self.rule is None else format_rule(self.rule),
            "position": self.position,
            "shortage": self.shortage,
            "layers": [layer.to_json() for layer in self.layers],
        }


def _plain(values: np.ndarray) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]
