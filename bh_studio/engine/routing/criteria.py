"""What each rule compares with what, rank by rank, for whoever draws it without knowing the rule.

The numbers are those of `counters`, from the same functions: what is read off a drawing, as its
`Counting` says, is the count. Knows neither models nor mixing weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bh_studio.engine.records.decisions.token_inspection import Counting, Criterion
from bh_studio.engine.routing.counters import (
    CounterContext,
    cumulated,
    entropy,
    smallest_kept,
    step_up_terms,
)
from bh_studio.engine.routing.fdr import higher_criticism, step_up_line
from bh_studio.engine.rules.parameters import RuleName

# (layer, scores, p-values) -> Criterion. scores: (expert,) float32. p-values: (expert,) float64,
# None for a rule that tests nothing.
Draw = Callable[[int, Tensor, Tensor | None], Criterion]
_STEP_UP_LINES = {
    RuleName.BH: "alpha k / m",
    RuleName.BY: "alpha k / (m (1 + 1/2 + ... + 1/m))",
    RuleName.STOREY: "alpha k / (m pi0), at most 0.5",
}


def _step_up(context: CounterContext) -> Draw:
    factors, largest = step_up_terms(context)
    name = _STEP_UP_LINES[context.parameters.rule]
    terms = list(zip(context.levels, factors, strict=True))
    # Most rules have the same line in all layers.
    lines = {of: step_up_line(of[0], context.experts, of[1], largest).numpy() for of in set(terms)}

    def draw(layer: int, _scores: Tensor, p_values: Tensor | None) -> Criterion:
        points = _tested(p_values).sort().values.numpy()
        return Criterion(Counting.LAST_AT_OR_BELOW, points, lines[terms[layer]], "p-value", name)

    return draw


def _higher_criticism(context: CounterContext) -> Draw:
    def draw(layer: int, _scores: Tensor, p_values: Tensor | None) -> Criterion:
        found = higher_criticism(_tested(p_values), context.levels[layer])
        points = torch.full((context.experts,), torch.nan, dtype=torch.float64)
        points[: len(found)] = found.where(found > -torch.inf, torch.nan)
        line = torch.zeros_like(points)
        return _criterion(Counting.HIGHEST, points, line, "higher criticism", "0")

    return draw


def _top_k(context: CounterContext) -> Draw:
    def draw(layer: int, scores: Tensor, _p_values: Tensor | None) -> Criterion:
        limit = torch.tensor([context.levels[layer]], dtype=torch.float64)
        return _criterion(Counting.LIMIT, _falling(scores), limit, "probability", "k")

    return draw


def _top_p(context: CounterContext) -> Draw:
    def draw(layer: int, scores: Tensor, _p_values: Tensor | None) -> Criterion:
        points = cumulated(scores)
        line = torch.full_like(points, context.levels[layer])
        return _criterion(
            Counting.FIRST_AT_OR_ABOVE, points, line, "probability of the first k together", "p"
        )

    return draw


def _min_p(context: CounterContext) -> Draw:
    def draw(layer: int, scores: Tensor, _p_values: Tensor | None) -> Criterion:
        line = smallest_kept(scores, context.levels[layer]).expand_as(scores)
        return _criterion(
            Counting.ALL_AT_OR_ABOVE, _falling(scores), line, "probability", "beta P_(1)"
        )

    return draw


def _cut(context: CounterContext) -> Draw:
    def draw(layer: int, scores: Tensor, _p_values: Tensor | None) -> Criterion:
        line = torch.full_like(scores, context.levels[layer])
        name = f"score ({context.parameters.score})"
        return _criterion(Counting.ALL_AT_OR_ABOVE, _falling(scores), line, name, "t")

    return draw


def _entropy(context: CounterContext) -> Draw:
    def draw(layer: int, scores: Tensor, _p_values: Tensor | None) -> Criterion:
        level = context.levels[layer] * math.log(context.experts)
        line = torch.tensor([level], dtype=torch.float64)
        return _criterion(
            Counting.TWO_COUNTS, entropy(scores)[None], line, "entropy in nats", "h ln m"
        )

    return draw


def _tested(p_values: Tensor | None) -> Tensor:
    assert p_values is not None  # the rule is a test
    return p_values


def _falling(scores: Tensor) -> Tensor:
    return scores.sort(descending=True).values


def _criterion(
    counting: Counting, points: Tensor, line: Tensor, points_name: str, line_name: str
) -> Criterion:
    return Criterion(counting, _numbers(points), _numbers(line), points_name, line_name)


def _numbers(values: Tensor) -> np.ndarray:
    return values.double().numpy()


CRITERIA: dict[RuleName, Callable[[CounterContext], Draw]] = {
    RuleName.BH: _step_up,
    RuleName.BY: _step_up,
    RuleName.STOREY: _step_up,
    RuleName.HIGHER_CRITICISM: _higher_criticism,
    RuleName.TOP_K: _top_k,
    RuleName.TOP_P: _top_p,
    RuleName.MIN_P: _min_p,
    RuleName.CUT: _cut,
    RuleName.ENTROPY: _entropy,
}
