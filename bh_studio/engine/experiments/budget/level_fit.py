"""Levels of a rule that hit a mean number of experts on a text: one for all layers, or one a layer.

The mean is measured while the rule routes. Levels by layer are chosen by what each layer loses
alone and then moved together, since a layer uses other numbers of experts when the ones before it
route differently.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from bh_studio.engine.errors import Cancelled, CancelToken, EngineError
from bh_studio.engine.experiments.budget.allocation import allocate, curve_through
from bh_studio.engine.experiments.budget.layer_curves import measure_curves
from bh_studio.engine.experiments.budget.level_search import (
    GRID,
    TYPICAL_PASSES,
    check_searchable,
    loosened,
    search,
)
from bh_studio.engine.experiments.budget.mean_experts import Replay, measured_means
from bh_studio.engine.experiments.evaluation.teacher_forcing import encode
from bh_studio.engine.experiments.evaluation.windows import thinned, windows
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import FitProgress
from bh_studio.engine.protocol.texts import DEFAULT_WINDOW, Text
from bh_studio.engine.records.budget import Allocation, Solution
from bh_studio.engine.routing.selection import RoutingRule
from bh_studio.engine.rules.parameters import RuleParameters

# Levels of a layer's curve.
POINTS = 8


Report = Callable[[FitProgress], None]


class LevelFit:
    """A rule, a target, and the text to find its levels on.

    target: mean experts of a token in a layer. parameters: the rule; its own level plays no part.
    tokens: about how many to read, in windows spread evenly; None: all. After that many have been
    chosen, `tokens` is how many there are and `window` the most that the model sees at once.

    Raises EngineError for texts without a next token and for a target outside the rule's limits,
    ValueError for a rule that has no level to look for or does not fit the model.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        texts: Sequence[Text],
        parameters: RuleParameters,
        target: float,
        tokens: int | None = None,
        cancel: CancelToken | None = None,
        report: Report = lambda progress: None,
    ) -> None:
        check_searchable(parameters)
        parameters = loosened(parameters, 0.0)
        parameters.check_shape(loaded.shape.layers, loaded.shape.experts)
        _check_target(target, parameters, loaded.shape.experts)
        documents = encode(loaded, texts)
        self.window = min(DEFAULT_WINDOW, int(loaded.model.config.max_position_embeddings))
        found = thinned(windows([len(d) for d in documents], self.window, self.window), tokens)
        # From the first scored token on: the last window of a text overlaps the one before it, and
        # no token may count twice.
        self._inputs = [documents[w.document][w.first : w.end] for w in found]
        self.tokens = sum(map(len, self._inputs))
        self._loaded, self._parameters, self._target = loaded, parameters, target
        self._cancel = cancel or CancelToken()
        self._report = report
        self._replay = Replay(loaded)

    def one_level(self) -> Solution:
        """The level, the same in every layer, that hits the target.

        Raises EngineError, with the range that can be reached, for a target that cannot; Cancelled
        if it was cancelled. The model is then as it was; so too for levels by layer.
        """
        return self._solved(None, "one level")

    def by_layer(self) -> Solution:
        """A level for each layer, so that together they hit the target and lose the least.

        What each layer loses alone is taken to add up. Raises as `one_level` does, and EngineError
        for a rule whose limits do not let a layer use as many experts as the model's own router.
        """
        self._check_native_count()
        positions = self._grid()
        rules = [loosened(self._parameters, column) for column in positions.T.tolist()]
        passes = self._loaded.shape.layers * len(rules)
        before_pass = self._counted("curves", passes)
        measured = measure_curves(self._loaded, self._inputs, rules, before_pass)
        curves = [curve_through(*of_layer.T) for of_layer in measured]
        means = allocate(curves, self._target * len(curves))
        chosen = [
            np.interp(mean, of_layer[:, 0], looseness)
            for mean, of_layer, looseness in zip(means, measured, positions, strict=True)
        ]
        allocation = Allocation(
            levels=np.array([rule.level for rule in rules]).T,
            curves=measured,
            means=means,
            predicted_kl=sum(curve.loss(m) for curve, m in zip(curves, means, strict=True)),
        )
        return self._solved(np.array(chosen), "levels together", 1 + passes, allocation)

    def _solved(
        self,
        base: np.ndarray | None,
        stage: str,
        passes: int = 0,
        allocation: Allocation | None = None,
    ) -> Solution:
        """The solution that all of `base`, (layer,) looseness, moves to; None: one level.

        passes: how often the text was read before.
        """
        before_window = self._counted(stage, TYPICAL_PASSES)
        by_layer: dict[float, np.ndarray] = {}

        def at(looseness: float) -> RuleParameters:
            moved = looseness if base is None else (base + looseness).tolist()
            return loosened(self._parameters, moved)

        def measured(looseness: float) -> float:
            by_layer[looseness] = measured_means(
                self._loaded, self._inputs, at(looseness), before_window
            )
            return float(by_layer[looseness].mean())

        def estimated(looseness: float) -> float:
            return float(self._replay.means(at(looseness)).mean())

        found = search(measured, estimated, self._target)
        return Solution(
            parameters=at(found.looseness),
            target=self._target,
            mean=found.mean,
            per_layer=tuple(by_layer[found.looseness].tolist()),
            passes=passes + found.passes,
            shortage=self._shortage(at(found.looseness)),
            allocation=allocation,
        )

    def _grid(self) -> np.ndarray:
        """Looseness of the points of each curve, (layer, point), rising: from about half the target
        to what the model's own router uses, or more where the target is more."""
        limits, top_k = self._parameters, self._loaded.shape.top_k
        least = max(1.1 * limits.min_k, self._target / 2)
        # At the limit itself every looser level is the same, and one far off would be taken.
        most = 0.98 * min(limits.max_k, max(top_k, 1.5 * self._target))
        wanted = np.linspace(least, max(least, most), POINTS)
        estimated = np.array(
            [self._replay.means(loosened(self._parameters, looseness)) for looseness in GRID]
        )
        return np.array([_inverse(of_layer, wanted) for of_layer in estimated.T])

    def _counted(self, stage: str, passes: int) -> Callable[[], None]:
        """What to call before each window: it reports, and raises Cancelled if it must."""
        total = passes * len(self._inputs)
        numbers = itertools.count(1)

        def before_window() -> None:
            if self._cancel.is_cancelled:
                raise Cancelled
            self._report(FitProgress(stage, min(next(numbers), total), total))

        return before_window

    def _check_native_count(self) -> None:
        limits, top_k = self._parameters, self._loaded.shape.top_k
        if not limits.min_k <= top_k <= limits.max_k:
            raise EngineError(
                f"Levels by layer need min_k and max_k around the {top_k} experts that the model's "
                f"own router uses; got min_k={limits.min_k} and max_k={limits.max_k}.",
                "What a layer loses is measured with all others as the model has them.",
            )

    def _shortage(self, parameters: RuleParameters) -> str | None:
        return RoutingRule(parameters, self._loaded.recording, self._loaded.shape).shortage()


def _inverse(estimated: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where the means `estimated` at GRID reach those `wanted`, on the branch where they rise."""
    start = len(estimated) - 1 - int(estimated[::-1].argmin())
    return np.interp(wanted, estimated[start:], GRID[start:])


def _check_target(target: float, parameters: RuleParameters, experts: int) -> None:
    if not 1 <= target <= experts:
        raise EngineError(
            f"The mean must lie between 1 and the {experts} experts of a layer; got {target:g}.",
            "Choose how many experts a token may use in a layer on average.",
        )
    if not parameters.min_k <= target <= parameters.max_k:
        raise EngineError(
            f"A mean of {target:g} experts cannot be reached: min_k and max_k allow "
            f"{parameters.min_k} to {parameters.max_k}.",
            "Choose a target in this range, or other limits.",
        )
