"""Levels of a rule that hit a mean number of experts on a text: one for all layers, or one a layer.

The mean is measured while the rule routes. Levels by layer are chosen by what each layer loses
alone and then moved together, since a layer uses other numbers of experts when the ones before it
route differently. Both are courses of stages: each ends in a solution once their rows are known.
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Mapping
from typing import Any, NamedTuple

import numpy as np

from bh_studio.engine.errors import EngineError
from bh_studio.engine.experiments.budget.allocation import allocate, curve_through
from bh_studio.engine.experiments.budget.level_search import (
    GRID,
    TYPICAL_PASSES,
    loosened,
    search,
)
from bh_studio.engine.experiments.budget.mean_experts import Replay
from bh_studio.engine.experiments.evaluation.teacher_forcing import encode
from bh_studio.engine.experiments.evaluation.windows import thinned, windows
from bh_studio.engine.experiments.stages import Stage, Unit
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.experiments import Budget
from bh_studio.engine.protocol.texts import DEFAULT_WINDOW
from bh_studio.engine.records.budget import Allocation, CurveRow, MeansRow, Solution
from bh_studio.engine.routing.selection import RoutingRule
from bh_studio.engine.rules.parameters import RuleParameters

# Levels of a layer's curve.
POINTS = 8
# Windows whose experts are counted as one unit; each is a pass of its own.
_WINDOWS = 4

# Stages, and at their end a solution.
Course = Generator[Stage, None, Solution]


class Measured(NamedTuple):
    """The work of a unit that counts the experts that a rule uses in some windows."""

    rule: RuleParameters
    windows: tuple[int, ...]


class Curved(NamedTuple):
    """The work of a unit that finds what each layer loses with each rule in one window."""

    rules: tuple[RuleParameters, ...]
    window: int


class LevelFit:
    """The text that levels are found on, and what is known without reading it.

    inputs: its windows of token ids, (token,) each. window: the most that the model sees at once.
    tokens: of all windows.

    Raises EngineError for texts without a next token and for a target outside the rule's limits,
    ValueError for a rule that does not fit the model.
    """

    def __init__(self, loaded: LoadedModel, definition: Budget) -> None:
        self._loaded, self._target = loaded, definition.target
        self._rule = loosened(definition.rule, 0.0)
        self._rule.check_shape(loaded.shape.layers, loaded.shape.experts)
        _check_target(definition.target, self._rule, loaded.shape.experts)
        if definition.by_layer:
            self._check_native_count()
        documents = encode(loaded, definition.fit)
        self.window = min(DEFAULT_WINDOW, int(loaded.model.config.max_position_embeddings))
        found = windows([len(d) for d in documents], self.window, self.window)
        # From the first scored token on: the last window of a text overlaps the one before it, and
        # no token may count twice.
        self.inputs = [
            documents[w.document][w.first : w.end] for w in thinned(found, definition.tokens)
        ]
        self.tokens = sum(map(len, self.inputs))
        self._replay = Replay(loaded)

    @property
    def steps_of_one_level(self) -> int:
        """Passes of a window that a search usually takes."""
        return TYPICAL_PASSES * len(self.inputs)

    @property
    def steps_by_layer(self) -> int:
        """The same for curves and the search after them."""
        return self._loaded.shape.layers * POINTS * len(self.inputs) + self.steps_of_one_level

    def one_level(self, rows: Mapping[str, Any], later: int) -> Course:
        """The level, the same in every layer, that hits the target.

        rows: to read those of the stages from. later: steps that follow the search.

        Raises EngineError, with the range that can be reached, for a target that cannot.
        """
        return (yield from self._solved(rows, None, "one level", later))

    def by_layer(self, rows: Mapping[str, Any], later: int) -> Course:
        """A level for each layer, so that together they hit the target and lose the least.

        What each layer loses alone is taken to add up. Raises as `one_level` does.
        """
        positions = self._grid()
        rules = tuple(loosened(self._rule, column) for column in positions.T.tolist())
        layers = self._loaded.shape.layers
        units = tuple(
            Unit(
                f"curves {number}",
                layers * len(rules),
                Curved(rules, number),
                functools.partial(_is_curve, (layers, len(rules), 2), len(inputs)),
            )
            for number, inputs in enumerate(self.inputs)
        )
        yield Stage("curves", units, self.steps_of_one_level + later)
        measured = CurveRow.mean([rows[unit.key] for unit in units])
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
        passes = 1 + layers * len(rules)
        return (
            yield from self._solved(
                rows, np.array(chosen), "levels together", later, passes, allocation
            )
        )

    def _solved(
        self,
        rows: Mapping[str, Any],
        base: np.ndarray | None,
        name: str,
        later: int,
        passes: int = 0,
        allocation: Allocation | None = None,
    ) -> Course:
        """The solution that all of `base`, (layer,) looseness, moves to; None: one level.

        passes: how often the text was read before.
        """
        by_layer: dict[float, np.ndarray] = {}

        def at(looseness: float) -> RuleParameters:
            moved = looseness if base is None else (base + looseness).tolist()
            return loosened(self._rule, moved)

        course = search(lambda x: float(self._replay.means(at(x)).mean()), self._target)
        tries = 0
        looseness = next(course)
        while True:
            tries += 1
            units = self._units(f"{name} {tries}", at(looseness))
            left = max(0, TYPICAL_PASSES - tries) * len(self.inputs)
            yield Stage(name, units, left + later)
            by_layer[looseness] = MeansRow.mean([rows[unit.key] for unit in units])
            try:
                looseness = course.send(float(by_layer[looseness].mean()))
            except StopIteration as end:
                found = end.value
                break
        return Solution(
            parameters=at(found.looseness),
            target=self._target,
            mean=found.mean,
            per_layer=tuple(by_layer[found.looseness].tolist()),
            passes=passes + found.passes,
            shortage=self._shortage(at(found.looseness)),
            allocation=allocation,
        )

    def _units(self, name: str, rule: RuleParameters) -> tuple[Unit, ...]:
        """The text in pieces, to count what `rule` uses."""
        starts = range(0, len(self.inputs), _WINDOWS)
        pieces = [tuple(range(s, min(s + _WINDOWS, len(self.inputs)))) for s in starts]
        return tuple(
            Unit(
                f"{name} {piece[0]}",
                len(piece),
                Measured(rule, piece),
                functools.partial(_are_means, (len(piece), 1 + self._loaded.shape.layers)),
            )
            for piece in pieces
        )

    def _grid(self) -> np.ndarray:
        """Looseness of the points of each curve, (layer, point), rising: from about half the target
        to what the model's own router uses, or more where the target is more."""
        limits, top_k = self._rule, self._loaded.shape.top_k
        least = max(1.1 * limits.min_k, self._target / 2)
        # At the limit itself every looser level is the same, and one far off would be taken.
        most = 0.98 * min(limits.max_k, max(top_k, 1.5 * self._target))
        wanted = np.linspace(least, max(least, most), POINTS)
        estimated = np.array(
            [self._replay.means(loosened(self._rule, looseness)) for looseness in GRID]
        )
        return np.array([_inverse(of_layer, wanted) for of_layer in estimated.T])

    def _check_native_count(self) -> None:
        limits, top_k = self._rule, self._loaded.shape.top_k
        if not limits.min_k <= top_k <= limits.max_k:
            raise EngineError(
                f"Levels by layer need min_k and max_k around the {top_k} experts that the model's "
                f"own router uses; got min_k={limits.min_k} and max_k={limits.max_k}.",
                "What a layer loses is measured with all others as the model has them.",
            )

    def _shortage(self, rule: RuleParameters) -> str | None:
        return RoutingRule(rule, self._loaded.recording, self._loaded.shape).shortage()


def _inverse(estimated: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where the means `estimated` at GRID reach those `wanted`, on the branch where they rise."""
    start = len(estimated) - 1 - int(estimated[::-1].argmin())
    return np.interp(wanted, estimated[start:], GRID[start:])


def _check_target(target: float, rule: RuleParameters, experts: int) -> None:
    if not 1 <= target <= experts:
        raise EngineError(
            f"The mean must lie between 1 and the {experts} experts of a layer; got {target:g}.",
            "Choose how many experts a token may use in a layer on average.",
        )
    if not rule.min_k <= target <= rule.max_k:
        raise EngineError(
            f"A mean of {target:g} experts cannot be reached: min_k and max_k allow "
            f"{rule.min_k} to {rule.max_k}.",
            "Choose a target in this range, or other limits.",
        )


def _is_curve(shape: tuple[int, ...], tokens: int, row: object) -> bool:
    return isinstance(row, CurveRow) and row.curves.shape == shape and row.tokens == tokens


def _are_means(shape: tuple[int, ...], row: object) -> bool:
    return isinstance(row, MeansRow) and row.used.shape == shape and bool(row.used[:, 0].all())
