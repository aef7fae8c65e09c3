"""From a mean number of experts to the level of a rule, and whether it holds on other texts.

What a level uses on one text it uses on another only about, so the levels that were fitted are read
once more on texts of their own, with the controls of an evaluation.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

from bh_studio.engine.errors import Cancelled, EngineError
from bh_studio.engine.experiments.budget.level_fit import POINTS, LevelFit, Report
from bh_studio.engine.experiments.budget.level_search import TYPICAL_PASSES
from bh_studio.engine.experiments.environment import describe_environment
from bh_studio.engine.experiments.evaluation.evaluation import evaluate
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import FitProgress
from bh_studio.engine.protocol.experiments import BudgetRequest, EvaluationRequest
from bh_studio.engine.records.budget import Budget, FitText, Solution
from bh_studio.engine.records.evaluation import Evaluation


def planned_passes(layers: int, by_layer: bool) -> int:
    """About how often a fit reads its text; a pass for a layer's curve begins in that layer."""
    return TYPICAL_PASSES + (layers * POINTS + 1 + TYPICAL_PASSES if by_layer else 0)


def find_budget(
    loaded: LoadedModel, request: BudgetRequest, report: Report = lambda progress: None
) -> Budget:
    """Levels for `request`, and the check on its other texts.

    Raises EngineError for texts that cannot be scored, for a target that cannot be reached, with
    the range that can, and for a model whose output is not finite; ValueError for a rule that has
    no level to look for or does not fit; Cancelled if it was cancelled. The model is as it was.
    """
    if {text.content for text in request.fit} & {text.content for text in request.check}:
        raise EngineError(
            "A text of the check is one of those that the level is fitted on.",
            "Check on other texts; on this one the level fits by construction.",
        )
    fit = LevelFit(
        loaded, request.fit, request.parameters, request.target, request.tokens, request.cancel,
        report,
    )  # fmt: skip
    one_level = fit.one_level()
    by_layer = fit.by_layer() if request.by_layer else None
    budget = Budget(
        model=loaded.info,
        target=request.target,
        texts=tuple(FitText(text.name, text.sha256) for text in request.fit),
        window=fit.window,
        tokens=fit.tokens,
        one_level=one_level,
        by_layer=by_layer,
        check=None,
        environment=describe_environment(),
    )
    if not request.check:
        return budget
    return replace(budget, check=_checked(loaded, request, budget.solutions, report))


def _checked(
    loaded: LoadedModel, request: BudgetRequest, solutions: Sequence[Solution], report: Report
) -> Evaluation:
    """The solutions and their controls on the texts of the check."""
    evaluation = None
    with warnings.catch_warnings():
        # A null that is too small for a level is said of the solution, once.
        warnings.filterwarnings("ignore", message="The null holds")
        for event in evaluate(
            loaded,
            EvaluationRequest(
                texts=request.check,
                rules=tuple(solution.parameters for solution in solutions),
                with_controls=True,
                tokens=request.tokens,
                cancel=request.cancel,
            ),
        ):
            report(FitProgress("check", event.done, event.total))
            evaluation = event.evaluation
    if evaluation is None or not evaluation.is_complete:
        raise Cancelled
    return evaluation
