"""What a budget came to: the levels that were found, what they rest on, and how they did elsewhere.

Knows numbers and rules, no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from bh_studio.engine.files.lists import counted_array, finite_array
from bh_studio.engine.files.plain_json import convert
from bh_studio.engine.records.estimates import Estimate
from bh_studio.engine.records.evaluation import EvaluationResult, Scores
from bh_studio.engine.records.terms import ModelInfo
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.text import format_rule

SCHEMA_VERSION = 2
# What the keys of a check's rows begin with, beside those of the fit.
CHECK = "check "
# Near enough to the target to stop, and the most that a solution may miss it by; relative.
TOLERANCE = 0.002
ACCEPTED = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class MeansRow:
    """Experts that a rule used in some windows.

    used: (window, 1 + layer) int64: tokens of each window, then experts used in each layer.
    """

    used: np.ndarray

    @classmethod
    def mean(cls, rows: Sequence[Self]) -> np.ndarray:
        """Mean experts of a token in each layer over all windows: (layer,) float64."""
        total = np.concatenate([row.used for row in rows]).sum(0)
        means: np.ndarray = total[1:] / total[0]
        return means

    def to_json(self) -> dict[str, Any]:
        """The row by name."""
        return {"used": self.used.tolist()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The row that to_json wrote. Raises KeyError, TypeError or ValueError for others."""
        return cls(counted_array(values["used"], 2))


@dataclass(frozen=True, slots=True, eq=False)
class CurveRow:
    """What each layer alone used and lost with each of several rules, in one window of `tokens`.

    curves: (layer, rule, 2) float64, sums over tokens: experts, and nats of KL.
    """

    curves: np.ndarray
    tokens: int

    @classmethod
    def mean(cls, rows: Sequence[Self]) -> np.ndarray:
        """The same a token, over all windows."""
        # In the order of the windows, whatever order the rows came in.
        total = np.zeros_like(rows[0].curves)
        for row in rows:
            total += row.curves
        mean: np.ndarray = total / sum(row.tokens for row in rows)
        return mean

    def to_json(self) -> dict[str, Any]:
        """The row by name."""
        return {"curves": self.curves.tolist(), "tokens": self.tokens}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The row that to_json wrote. Raises KeyError, TypeError or ValueError for others."""
        return cls(finite_array(values["curves"], 3), convert(int, values["tokens"], "tokens"))


@dataclass(frozen=True, slots=True, eq=False)
class Allocation:
    """What the levels of a solution by layer were chosen by.

    levels: (layer, point); curves: (layer, point, 2): mean experts of the layer and KL in nats a
    token, each layer alone. means: (layer,), the mean experts that lose the least together.
    predicted_kl: the sum of what the layers lose there, one by one.
    """

    levels: np.ndarray
    curves: np.ndarray
    means: np.ndarray
    predicted_kl: float

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """What a solution's to_json wrote. Raises KeyError, TypeError or ValueError for others."""
        points = finite_array(
            [
                [[point[name] for name in ("level", "mean_experts", "kl")] for point in of_layer]
                for of_layer in values["curves"]
            ],
            3,
        )
        return cls(
            levels=points[..., 0],
            curves=points[..., 1:],
            means=finite_array(values["means"], 1),
            predicted_kl=convert(float, values["predicted_kl"], "predicted_kl"),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """A rule at the level, or levels, that hit the target best on the text of the fit.

    mean: experts, measured. per_layer: (layer,), the same by layer. passes: times that the text was
    read. shortage: a sentence if the null is too small for this level. allocation: None for one
    level in all layers.
    """

    parameters: RuleParameters
    target: float
    mean: float
    per_layer: tuple[float, ...]
    passes: int
    shortage: str | None
    allocation: Allocation | None = None

    @property
    def miss(self) -> float:
        """Mean experts on the text of the fit over the target, less 1."""
        return self.mean / self.target - 1

    @property
    def is_nearest_only(self) -> bool:
        """Whether no level came within TOLERANCE: the mean jumps past the target there."""
        return abs(self.miss) > TOLERANCE

    def to_json(self) -> dict[str, Any]:
        """The solution for json.dump, `rule` as the text that other commands take."""
        allocation = self.allocation
        return {
            "rule": format_rule(self.parameters),
            "parameters": asdict(self.parameters),
            "mean_experts": self.mean,
            "miss": self.miss,
            "is_nearest_only": self.is_nearest_only,
            "per_layer_experts": list(self.per_layer),
            "passes": self.passes,
            "shortage": self.shortage,
            "allocation": allocation
            and {
                "means": allocation.means.tolist(),
                "predicted_kl": allocation.predicted_kl,
                "curves": [
                    [
                        {"level": level, "mean_experts": mean, "kl": kl}
                        for level, (mean, kl) in zip(levels, points, strict=True)
                    ]
                    for levels, points in zip(
                        allocation.levels.tolist(), allocation.curves.tolist(), strict=True
                    )
                ],
            },
        }

    @classmethod
    def from_json(cls, values: dict[str, Any], target: float) -> Self:
        """The solution for `target` that to_json wrote.

        Raises KeyError, TypeError or ValueError for others.
        """
        shared, shortage = values["allocation"], values["shortage"]
        return cls(
            parameters=convert(RuleParameters, values["parameters"], "parameters"),
            target=target,
            mean=convert(float, values["mean_experts"], "mean_experts"),
            per_layer=convert(tuple[float, ...], values["per_layer_experts"], "per_layer_experts"),
            passes=convert(int, values["passes"], "passes"),
            shortage=None if shortage is None else convert(str, shortage, "shortage"),
            allocation=None if shared is None else Allocation.from_json(shared),
        )


@dataclass(frozen=True, slots=True)
class FitText:
    """A text that levels were fitted on."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True, eq=False)
class BudgetResult:
    """Solutions for a target, and how they did on texts that they were not fitted on.

    texts: of the fit. window: most tokens that the model saw at once. tokens: read in one pass.
    one_level: the same level in every layer. by_layer: a level a layer; None if it was not asked
    for. check: both and their controls; None if there was no other text.
    """

    model: ModelInfo
    target: float
    texts: tuple[FitText, ...]
    window: int
    tokens: int
    one_level: Solution
    by_layer: Solution | None
    check: EvaluationResult | None
    environment: dict[str, Any]

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """What is in a file that holds its rows.

        Raises KeyError, TypeError or ValueError for others, as for schema version 1 with a check.
        """
        fit, check = document["fit"], document["check"]
        one_level, *others = solutions_from_json(document)
        found = cls(
            model=convert(ModelInfo, document["model"], "model"),
            target=one_level.target,
            texts=convert(tuple[FitText, ...], fit["texts"], "texts"),
            window=convert(int, fit["window"], "window"),
            tokens=convert(int, fit["tokens"], "tokens"),
            one_level=one_level,
            by_layer=others[0] if others else None,
            check=None if check is None else _check_from_json(check, document["rows"]),
            environment=convert(dict[str, Any], document["environment"], "environment"),
        )
        for solution in found.solutions:
            found.checked(solution)
        return found

    @property
    def is_complete(self) -> bool:
        """Always: a level that is not found yet is none."""
        return True

    @property
    def solutions(self) -> tuple[Solution, ...]:
        """One level, then by layer if there is that."""
        return (self.one_level,) if self.by_layer is None else (self.one_level, self.by_layer)

    def checked(self, solution: Solution) -> Scores | None:
        """How `solution` did on the other texts; None without a check."""
        if self.check is None:
            return None
        return self.check.scores()[self._place(self.check, solution)]

    def missed(self, solution: Solution) -> float | None:
        """Mean experts on the other texts over the target, less 1; None without a check."""
        scores = self.checked(solution)
        return None if scores is None else scores.mean_experts.value / self.target - 1

    def gain(self) -> Estimate | None:
        """Nats a token by layer minus those with one level, paired; None if not both were read."""
        if self.check is None or self.by_layer is None:
            return None
        places = [self._place(self.check, solution) for solution in (self.by_layer, self.one_level)]
        return self.check.difference(*places)

    def _place(self, check: EvaluationResult, solution: Solution) -> int:
        """Where the solution itself stands among the contenders, before its controls."""
        return [c.parameters for c in check.contenders].index(solution.parameters)

    def to_json(self) -> dict[str, Any]:
        """The result as one document for json.dump."""
        gain = self.gain()
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "budget",
            "model": asdict(self.model),
            "target": self.target,
            "tolerance": {"sought": TOLERANCE, "accepted": ACCEPTED},
            "fit": {
                "texts": [asdict(text) for text in self.texts],
                "window": self.window,
                "tokens": self.tokens,
            },
            "one_level": self.one_level.to_json(),
            "by_layer": self.by_layer and self.by_layer.to_json(),
            "check": self.check
            and {
                "one_level": self._check_json(self.one_level),
                "by_layer": self.by_layer and self._check_json(self.by_layer),
                "gain_by_layer": gain and gain.to_dict(),
                "evaluation": self.check.to_json(),
            },
            "environment": self.environment,
        }

    def _check_json(self, solution: Solution) -> dict[str, Any]:
        scores, miss = self.checked(solution), self.missed(solution)
        assert scores is not None
        assert miss is not None
        return {
            "mean_experts": scores.mean_experts.to_dict(),
            "miss": miss,
            "is_missed": abs(miss) > ACCEPTED,
        }


def solutions_from_json(document: dict[str, Any]) -> tuple[Solution, ...]:
    """The solutions in the document of a budget, of any version: one level, then by layer.

    Raises KeyError, TypeError or ValueError for others.
    """
    target = convert(float, document["target"], "target")
    if not target > 0:
        raise ValueError(f"target is {target}.")
    found = (document["one_level"], document["by_layer"])
    return tuple(Solution.from_json(values, target) for values in found if values is not None)


def _check_from_json(check: dict[str, Any], rows: Sequence[dict[str, Any]]) -> EvaluationResult:
    """The evaluation in `check`, whose rows stand among those of the budget."""
    own = [
        {**row, "key": row["key"].removeprefix(CHECK)}
        for row in rows
        if row["key"].startswith(CHECK)
    ]
    return EvaluationResult.from_json({**check["evaluation"], "rows": own})
