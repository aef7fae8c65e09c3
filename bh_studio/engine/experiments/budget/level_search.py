"""Looking for the level of a rule at which a measured mean of experts is hit.

Levels are moved on the logit scale, where small ones lie as far apart as large ones, and in the
direction in which the mean rises: that is the looseness of a level. Knows rules by name only; what
is measured, and how, is decided elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

from bh_studio.engine.errors import EngineError
from bh_studio.engine.records.budget import ACCEPTED, TOLERANCE
from bh_studio.engine.rules import CATALOGUE, LevelEffect, RuleName, RuleParameters

# How often a search usually measures.
TYPICAL_PASSES = 4

# The largest looseness whose level is still less than 1 in float64.
_END = 35.0
# Where rules are first asked what they might do: closely where levels of practice lie.
GRID = (-_END, -27.0, *map(float, range(-20, 9)), 14.0, _END)
_HALVINGS = 10
# The mean moves by a few experts for one unit of looseness: if it is wrong on both sides of a gap
# as narrow as this, it jumps there.
_NARROW = 1e-4
_MOST_PASSES = 24
_FIRST_STEP = 1e-3
# Digits of a level, so that what is printed is what was measured.
_DIGITS = 5

Mean = Callable[[float], float]


def loosened(parameters: RuleParameters, looseness: float | Sequence[float]) -> RuleParameters:
    """`parameters` at this looseness, or at one a layer; the level has few digits."""
    if isinstance(looseness, float):
        return replace(parameters, level=_level(parameters.rule, looseness))
    return replace(parameters, level=tuple(_level(parameters.rule, x) for x in looseness))


def looseness_of(rule: RuleName, level: float) -> float:
    """The looseness at which `rule` has this level, between 0 and 1."""
    return math.log(level / (1 - level)) * _direction(rule)


def _direction(rule: RuleName) -> int:
    return 1 if CATALOGUE[rule].effect is LevelEffect.MORE else -1


def _level(rule: RuleName, looseness: float) -> float:
    logit = min(max(looseness, -_END), _END) * _direction(rule)
    # The distance to 0 or 1, whichever is nearer, keeps its digits at both ends.
    distance = 1 / (1 + math.exp(abs(logit)))
    digits = _DIGITS - 1 - math.floor(math.log10(distance))
    return round(distance if logit < 0 else 1 - distance, digits)


@dataclass(frozen=True, slots=True)
class Found:
    """A looseness, the mean experts measured there, and how many passes it took to find it."""

    looseness: float
    mean: float
    passes: int


class _Estimate:
    """A cheap mean of experts and its inverse, on the branch where the mean rises.

    With on_empty "top_k" a level that selects nothing gives many experts: below `lowest` the mean
    would fall as the rule is loosened.
    """

    def __init__(self, mean: Mean) -> None:
        self.mean = mean
        means = [mean(x) for x in GRID]
        # Of a floor that begins at the strict end all is kept: another text may rise earlier.
        start = 0 if means[0] == min(means) else means.index(min(means))
        self.lowest = GRID[start]
        self._points = list(zip(GRID, means, strict=True))[start:]

    def looseness(self, goal: float) -> float:
        """Where the estimate reaches `goal`; the nearest end where it does not."""
        left = self.lowest
        for right, mean in self._points:
            if mean >= goal:
                return self._between(left, right, goal)
            left = right
        return _END

    def _between(self, left: float, right: float, goal: float) -> float:
        for _ in range(_HALVINGS):
            middle = (left + right) / 2
            if self.mean(middle) < goal:
                left = middle
            else:
                right = middle
        return (left + right) / 2


def search(estimated: Mean, target: float) -> Generator[float, float, Found]:
    """The looseness at which the measured mean is as near to `target` as can be.

    Yields a looseness to measure at, and is sent the mean experts there. estimated: a cheap guess
    of the same mean from a looseness; it says where to start and how far to go. The mean is a step
    function, so the search may end beside the target.

    Raises EngineError, with the means that can be reached, if the nearest misses by more than
    ACCEPTED.
    """
    estimate = _Estimate(estimated)
    tries: list[tuple[float, float]] = []
    looseness: float | None = estimate.looseness(target)
    while looseness is not None and len(tries) < _MOST_PASSES:
        mean = yield looseness
        tries.append((looseness, mean))
        if _miss(mean, target) <= TOLERANCE:
            break
        looseness = _next(tries, estimate, target)
    best = min(tries, key=lambda of_try: _miss(of_try[1], target))
    if _miss(best[1], target) > ACCEPTED:
        means = [mean for _, mean in tries]
        if not (min(means) < target < max(means)):
            # Every try was on one side, up to the end there; the other end gives the range.
            means.append((yield _END if max(means) > target else estimate.lowest))
        raise _unreachable(means, target)
    return Found(*best, len(tries))


def answered(measured: Mean, estimated: Mean, target: float) -> Found:
    """What `search` finds where `measured` answers it at once. Raises what `search` raises."""
    course = search(estimated, target)
    looseness = next(course)
    while True:
        try:
            looseness = course.send(measured(looseness))
        except StopIteration as end:
            found: Found = end.value
            return found


def _miss(mean: float, target: float) -> float:
    return abs(mean / target - 1)


def _next(tries: Sequence[tuple[float, float]], estimate: _Estimate, target: float) -> float | None:
    """Where to measure next; None if there is nothing left to try."""
    below = max((of_try for of_try in tries if of_try[1] < target), default=None)
    above = min((of_try for of_try in tries if of_try[1] > target), default=None)
    if below is not None and above is not None:
        width = above[0] - below[0]
        if width < _NARROW:
            return None
        share = (target - below[1]) / (above[1] - below[1])
        # Halving now and then: at a step, interpolation alone would creep.
        return below[0] + width * (0.5 if len(tries) % 3 == 0 else min(max(share, 0.05), 0.95))
    looseness, mean = tries[-1]
    step = _FIRST_STEP * 4 ** len(tries)
    wanted = estimate.looseness(estimate.mean(looseness) + target - mean)
    if above is None:
        further = min(max(wanted, looseness + step), _END)
    else:
        further = max(min(wanted, looseness - step), estimate.lowest)
    return None if further == looseness else further


def _unreachable(means: Sequence[float], target: float) -> EngineError:
    below = [mean for mean in means if mean < target]
    above = [mean for mean in means if mean > target]
    if below and above:
        return EngineError(
            f"No level comes within {ACCEPTED:.0%} of {target:g} experts: the mean jumps from "
            f"{max(below):.3f} to {min(above):.3f}.",
            "Choose one of these; p-values become finer with a longer calibration text.",
        )
    return EngineError(
        f"A mean of {target:g} experts cannot be reached: on this text the rule uses "
        f"{min(means):.3f} to {max(means):.3f}.",
        "Choose a target in this range, or other limits min_k and max_k.",
    )
