"""The rules themselves: how many experts of each token a rule selects, from the scores of a layer.

A registry of functions: each builds a counter from the parameters, and its docstring has the
formula, where it comes from and what it does not promise. Counts here are raw: the limits min_k and
max_k come later. Knows neither models nor mixing weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bh_studio.engine.routing.fdr import (
    harmonic_number,
    higher_criticism_counts,
    score_thresholds,
    step_up_counts,
    step_up_rejections,
    storey_pi0,
)
from bh_studio.engine.routing.layer_tensors import LayerTensors
from bh_studio.engine.routing.nulls import EmpiricalNull, NullModel
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.scores import Scorer
from bh_studio.engine.rules.parameters import RuleName, RuleParameters

# (layer, scores) -> (token,) int64. scores: (token, expert) float32.
Counter = Callable[[int, Tensor], Tensor]
_STOREY_CUTOFF = 0.5


@dataclass(frozen=True, slots=True)
class CounterContext:
    """What a counter is built from.

    levels: (layer,). null, recording: None for rules that test nothing.
    """

    parameters: RuleParameters
    levels: tuple[float, ...]
    experts: int
    scorer: Scorer
    null: NullModel | None
    recording: Recording | None

    def tested(self) -> tuple[NullModel, Recording]:
        """The null and what it was fitted on. Raises ValueError if there is none."""
        if self.null is None or self.recording is None:
            raise ValueError(f"The rule {self.parameters.rule} needs a null; calibrate first.")
        return self.null, self.recording


class StepUpThresholds:
    """The step-up rule on scores: one comparison with thresholds that are fixed beforehand.

    thresholds: (layer, expert) float32, see fdr.score_thresholds.
    """

    def __init__(self, thresholds: Tensor) -> None:
        self._thresholds = LayerTensors(thresholds)
        self.numbers: list[list[float]] = thresholds.tolist()

    def on(self, device: torch.device, layer: int) -> Tensor:
        """The thresholds of `layer` on `device`, (expert,)."""
        return self._thresholds.on(device, layer)

    def __call__(self, layer: int, scores: Tensor) -> Tensor:
        return step_up_counts(scores, self.on(scores.device, layer))


def _bh(context: CounterContext) -> Counter:
    """Benjamini & Hochberg (1995): the largest k with p_(k) <= alpha k / m.

    Controls the false discovery rate at alpha m0 / m, m0 of m nulls being true, for independent
    p-values, and at no more for positively dependent ones (Benjamini & Yekutieli 2001). The scores
    of one token come from one hidden state and, as probabilities, sum to 1; min_k and max_k
    override the rule; so alpha is the level of the procedure here, not a guaranteed error rate.
    """
    return _step_up(context)


def _by(context: CounterContext) -> Counter:
    """Benjamini & Yekutieli (2001): BH at alpha / (1 + 1/2 + ... + 1/m).

    Controls the false discovery rate under any dependence, if the p-values are valid ones: for 64
    experts at the price of a level 4.74 times as strict.
    """
    return _step_up(context)


def _storey(context: CounterContext) -> Counter:
    """Storey, Taylor & Siegmund (2004): BH at alpha / pi0, for p-values up to 0.5.

    pi0, the share of true nulls, is estimated once per layer from all p-values of the calibration
    text, since 64 of one token are too few; see fdr.storey_pi0. Their theorem is about a pi0 of the
    same p-values. With the discarded null about 56 of 64 are null by definition, so the rule is
    hardly more than BH at a higher alpha.
    """
    return _step_up(context)


def step_up_terms(context: CounterContext) -> tuple[Sequence[float], float]:
    """What makes the step-up rule that of BH, BY or Storey: see fdr.step_up_rejections.

    Returns the factor of each layer, and the largest p-value that may be rejected.
    """
    match context.parameters.rule:
        case RuleName.BY:
            return [harmonic_number(context.experts)] * len(context.levels), 1.0
        case RuleName.STOREY:
            return _true_nulls(context), _STOREY_CUTOFF
        case _:
            return [1.0] * len(context.levels), 1.0


def _true_nulls(context: CounterContext) -> list[float]:
    """Storey's pi0 of each layer."""
    null, recording = context.tested()
    scorer = context.scorer

    def estimates() -> list[float]:
        scores = (scorer(layer, logits) for layer, logits in enumerate(recording.logits))
        return [storey_pi0(null.p_values(n, s), _STOREY_CUTOFF) for n, s in enumerate(scores)]

    key = ("pi0", context.parameters.null, scorer.name, scorer.temperature)
    return recording.derived(key, estimates)


def _step_up(context: CounterContext) -> Counter:
    null, _ = context.tested()
    levels = context.levels
    factors, largest = step_up_terms(context)
    if isinstance(null, EmpiricalNull):
        # What most rules have alike in all layers is computed once.
        of_terms = {
            terms: score_thresholds(
                null.sorted_scores, terms[0], context.experts, terms[1], largest
            )
            for terms in set(zip(levels, factors, strict=True))
        }
        thresholds = [
            of_terms[terms][layer] for layer, terms in enumerate(zip(levels, factors, strict=True))
        ]
        return StepUpThresholds(torch.stack(thresholds))
    return lambda layer, scores: step_up_rejections(
        null.p_values(layer, scores), levels[layer], factors[layer], largest
    )


def _higher_criticism(context: CounterContext) -> Counter:
    """Donoho & Jin (2004): the k <= alpha0 m that maximises higher criticism.

    HC_k = sqrt(m) (k/m - p_(k)) / sqrt(p_(k) (1 - p_(k))). A detector of rare and weak effects; its
    maximiser as a selection bounds no error rate, and alpha0 only limits where it searches: with
    alpha0 = 1 it nearly always selects something, also where there is nothing.
    """
    null, _ = context.tested()
    return lambda layer, scores: higher_criticism_counts(
        null.p_values(layer, scores), context.levels[layer]
    )


def _top_k(context: CounterContext) -> Counter:
    """The k largest, whatever they are; with one k a layer, a fixed allocation over layers."""
    return lambda layer, scores: torch.full(
        scores.shape[:1], int(context.levels[layer]), dtype=torch.int64, device=scores.device
    )


def _top_p(context: CounterContext) -> Counter:
    """Huang et al. (2024), "Harder Tasks Need More Experts": the fewest that together hold p.

    The smallest k with P_(1) + ... + P_(k) >= p. An unsure router, with a flat
    distribution, gets the most.
    """

    def count(layer: int, probabilities: Tensor) -> Tensor:
        mass = cumulated(probabilities)
        # The last sums may miss p by rounding: never more than there are.
        return ((mass < context.levels[layer]).sum(-1) + 1).clamp(max=context.experts)

    return count


def cumulated(probabilities: Tensor) -> Tensor:
    """What the first, the first two and so on of `probabilities` hold together, largest first."""
    return probabilities.sort(dim=-1, descending=True).values.cumsum(-1)


def _min_p(context: CounterContext) -> Counter:
    """Keep an expert with P_i >= beta P_(1): as min-p sampling of tokens (Nguyen et al. 2024)."""
    return lambda layer, probabilities: (
        probabilities >= smallest_kept(probabilities, context.levels[layer])
    ).sum(-1)


def smallest_kept(probabilities: Tensor, beta: float) -> Tensor:
    """beta P_(1) of each row, (row, 1)."""
    return beta * probabilities.amax(-1, keepdim=True)


def _cut(context: CounterContext) -> Counter:
    """Keep an expert whose score is at least t: adaptive, and no statistics at all."""
    return lambda layer, scores: (scores >= context.levels[layer]).sum(-1)


def _entropy(context: CounterContext) -> Counter:
    """min_k where the entropy of the probabilities is below h ln m, max_k elsewhere.

    Two levels, as in early exits by confidence: a sure router gets few experts, an unsure one many.
    """
    parameters, experts = context.parameters, context.experts

    def count(layer: int, probabilities: Tensor) -> Tensor:
        sure = entropy(probabilities) < context.levels[layer] * math.log(experts)
        return torch.where(sure, parameters.min_k, parameters.max_k)

    return count


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy of each row in nats, float64."""
    # In float64: rounding must not put a uniform distribution below its own entropy, ln m.
    return torch.special.entr(probabilities.double()).sum(-1)


COUNTERS: dict[RuleName, Callable[[CounterContext], Counter]] = {
    RuleName.BH: _bh,
    RuleName.BY: _by,
    RuleName.STOREY: _storey,
    RuleName.HIGHER_CRITICISM: _higher_criticism,
    RuleName.TOP_K: _top_k,
    RuleName.TOP_P: _top_p,
    RuleName.MIN_P: _min_p,
    RuleName.CUT: _cut,
    RuleName.ENTROPY: _entropy,
}
