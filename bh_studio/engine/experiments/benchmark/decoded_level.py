"""The level of BH at which tokens that are really decoded use a given mean of experts.

An estimate from recorded router logits says where to begin. What a model decodes at a level is
another text at every level, so the mean jumps about a little: each try aims at the estimate
corrected by what the last one missed by, until one is near enough.
"""

from __future__ import annotations

from collections.abc import Callable

from bh_studio.engine.errors import EngineError
from bh_studio.engine.experiments.budget.level_search import loosened
from bh_studio.engine.experiments.budget.mean_experts import Replay
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.records.benchmark.result import MeanLevel
from bh_studio.engine.rules.parameters import RuleParameters

# How far the mean may be from what was asked for, in experts.
TOLERANCE = 0.1
_MOST_RUNS = 12
# From here on corrections are halved, lest they go back and forth around the target.
_CAREFUL_FROM = 4
# Levels of practice on the logit scale, and how finely the estimate is inverted there.
_LOOSENESS = (-20.0, 8.0)
_HALVINGS = 16


def level_for_mean(
    loaded: LoadedModel,
    target: float,
    rule: RuleParameters,
    decoded_mean: Callable[[RuleParameters], float],
) -> MeanLevel:
    """A level of `rule` at which `decoded_mean` is within TOLERANCE of `target`.

    decoded_mean: decodes with a rule and gives the mean experts of a token in a layer.

    Raises EngineError where no try came near enough.
    """
    replay = Replay(loaded)

    def estimated(looseness: float) -> float:
        return float(replay.means(loosened(rule, looseness)).mean())

    goal, means = target, []
    for run in range(1, _MOST_RUNS + 1):
        tried = loosened(rule, _looseness(estimated, goal))
        means.append(decoded_mean(tried))
        miss = target - means[-1]
        if abs(miss) <= TOLERANCE and isinstance(tried.level, float):
            return MeanLevel(target, tried.level, means[-1], run)
        goal += miss if run < _CAREFUL_FROM else miss / 2
        goal = min(max(goal, rule.min_k), rule.max_k)
    raise EngineError(
        f"No level was found at which decoding uses {target:g} experts of a layer: after "
        f"{_MOST_RUNS} tries the nearest mean was {min(means, key=lambda m: abs(m - target)):.2f}."
    )


def _looseness(estimated: Callable[[float], float], goal: float) -> float:
    """Where the estimate reaches `goal`, or the nearer end."""
    low, high = _LOOSENESS
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if estimated(middle) < goal:
            low = middle
        else:
            high = middle
    return high
