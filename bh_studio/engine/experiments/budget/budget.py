"""From a mean number of experts to the level of a rule, and whether it holds on other texts.

What a level uses on one text it uses on another only about, so the levels that were fitted are read
once more on texts of their own, with the controls of an evaluation.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from bh_studio.engine.errors import CancelToken, EngineError
from bh_studio.engine.experiments.budget.layer_curves import curves_in
from bh_studio.engine.experiments.budget.level_fit import POINTS, Curved, LevelFit, Measured
from bh_studio.engine.experiments.budget.level_search import TYPICAL_PASSES
from bh_studio.engine.experiments.budget.mean_experts import experts_used
from bh_studio.engine.experiments.environment import describe_environment
from bh_studio.engine.experiments.evaluation.evaluation import BatchRow, EvaluationLaboratory
from bh_studio.engine.experiments.stages import Stage, Stepped, Unit
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import Activity, UnitEvent
from bh_studio.engine.protocol.experiments import Budget, Evaluation
from bh_studio.engine.records.budget import (
    CHECK,
    BudgetResult,
    CurveRow,
    FitText,
    MeansRow,
    Solution,
)

BudgetRow = MeansRow | CurveRow | BatchRow


def planned_passes(layers: int, by_layer: bool) -> int:
    """About how often a fit reads its text; a pass for a layer's curve begins in that layer."""
    return TYPICAL_PASSES + (layers * POINTS + 1 + TYPICAL_PASSES if by_layer else 0)


class BudgetLaboratory:
    """A budget with a model.

    Raises EngineError for texts that cannot be scored and a target outside the rule's limits;
    ValueError for a rule that does not fit the model. `stages` raises EngineError for a target that
    cannot be reached, with the range that can.
    """

    def __init__(self, loaded: LoadedModel, definition: Budget) -> None:
        if {text.content for text in definition.fit} & {text.content for text in definition.check}:
            raise EngineError(
                "A text of the check is one of those that the level is fitted on.",
                "Check on other texts; on this one the level fits by construction.",
            )
        self._loaded, self._definition = loaded, definition
        self._fit = LevelFit(loaded, definition)
        self._check: EvaluationLaboratory | None = None
        self._solutions: list[Solution] = []
        self._has_begun = False

    def stages(self, rows: Mapping[str, BudgetRow]) -> Generator[Stage, None, None]:
        """One level; levels by layer if they are asked for; the check if there is one."""
        self._solutions, self._check = [], None
        definition, fit = self._definition, self._fit
        later = fit.steps_by_layer if definition.by_layer else 0
        self._solutions.append((yield from fit.one_level(rows, later)))
        if definition.by_layer:
            self._solutions.append((yield from fit.by_layer(rows, 0)))
        if definition.check:
            self._check = self._checking()
            yield from self._check.stages(rows)  # type: ignore[arg-type]

    def compute(
        self, unit: Unit, cancel: CancelToken
    ) -> Generator[UnitEvent | Stepped, None, BudgetRow]:
        """Read one piece of a text as its stage asks for."""
        if not self._has_begun:
            self._has_begun = True
            passes = planned_passes(self._loaded.shape.layers, self._definition.by_layer)
            yield Activity(f"The fit reads its text about {passes} times.")
        work = unit.work
        if isinstance(work, Measured):
            inputs = [self._fit.inputs[number] for number in work.windows]
            return MeansRow((yield from experts_used(self._loaded, inputs, work.rule, cancel)))
        if isinstance(work, Curved):
            ids = self._fit.inputs[work.window]
            sums = yield from curves_in(self._loaded, ids, work.rules, cancel)
            return CurveRow(sums, len(ids))
        assert self._check is not None
        return (yield from self._check.compute(unit, cancel))

    def document(self, rows: Mapping[str, BudgetRow], is_complete: bool) -> BudgetResult | None:
        """The whole result; None as long as it is not complete."""
        if not is_complete:
            return None
        check = None
        if self._check is not None:
            check = self._check.document(rows, is_complete)  # type: ignore[arg-type]
        return BudgetResult(
            model=self._loaded.info,
            target=self._definition.target,
            texts=tuple(FitText(text.name, text.sha256) for text in self._definition.fit),
            window=self._fit.window,
            tokens=self._fit.tokens,
            one_level=self._solutions[0],
            by_layer=self._solutions[1] if self._definition.by_layer else None,
            check=check,
            environment=describe_environment(),
        )

    def row_from_json(self, values: dict[str, Any]) -> BudgetRow:
        """The row that to_json wrote. Raises KeyError, TypeError or ValueError for others."""
        if "used" in values:
            return MeansRow.from_json(values)
        return CurveRow.from_json(values) if "curves" in values else BatchRow.from_json(values)

    def _checking(self) -> EvaluationLaboratory:
        """The solutions and their controls on the texts of the check."""
        definition = Evaluation(
            texts=self._definition.check,
            rules=tuple(solution.parameters for solution in self._solutions),
            with_controls=True,
            tokens=self._definition.tokens,
        )
        return EvaluationLaboratory(self._loaded, definition, CHECK)
