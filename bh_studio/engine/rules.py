"""Routing rules: the router logits of a layer in, a selection of experts out.

`counters` says how many experts a token gets; a RoutingRule applies on_empty, min_k and max_k,
takes that many experts, best first, and gives them their mixing weights. Knows nothing of models or
modules; works where the logits lie, so that layers may lie on several devices. A rule never decides
silently: it reports the count before and after the limits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bh_studio.engine.counters import COUNTERS, CounterContext, StepUpThresholds
from bh_studio.engine.fdr import harmonic_number, step_up_count
from bh_studio.engine.null_models import NullModel, null_model
from bh_studio.engine.nulls import RouterNull
from bh_studio.engine.placement import LayerTensors
from bh_studio.engine.routers import RouterShape
from bh_studio.engine.rule_parameters import MixingWeights, RuleName, RuleParameters
from bh_studio.engine.scores import Scorer


class Selection(NamedTuple):
    """What a rule chose for each token of one layer.

    indices: (token, slot) int64, experts best first; every index is a real expert.
    weights: (token, slot) float32, mixing weights; exactly 0 in slots that are not used.
    counts: (token,) int64, slots in use. raw_counts: (token,) int64, before the limits.
    """

    indices: Tensor
    weights: Tensor
    counts: Tensor
    raw_counts: Tensor


class RoutingRule:
    """A rule ready to select experts in every layer of one model.

    "Best" is the largest probability, which is also the largest logit; the largest score for a
    score with factors, among the max_k most probable; and the smallest p-value, then the largest
    score, where every expert has a null of its own. A temperature changes counts, never the order
    or the mixing weights.
    """

    def __init__(
        self,
        parameters: RuleParameters,
        record: RouterNull | None,
        shape: RouterShape,
    ) -> None:
        """record: what the null is fitted on and factors come from; None if the rule needs neither.

        Raises ValueError for parameters that do not fit the shape or lack their null, NullError
        where the null cannot be fitted.
        """
        parameters.check_shape(shape.layers, shape.experts)
        factors = {} if record is None else record.factors
        self.parameters = parameters
        self.null: NullModel | None = None
        self._scorer = Scorer(parameters.score, parameters.temperature, factors)
        if parameters.is_test and record is not None:
            self.null = null_model(parameters.null, record, self._scorer)
        self._count = COUNTERS[parameters.rule](
            CounterContext(
                parameters, parameters.levels(shape.layers), shape.experts, self._scorer, self.null,
                record,
            )
        )  # fmt: skip
        self._shape = shape
        self._renormalize = shape.norm_topk_prob or parameters.weights is MixingWeights.RENORMALIZE
        self._used = parameters.used_counts(shape.experts, shape.top_k)
        layers = (shape.layers, -1)
        self._used_of_raw = LayerTensors(torch.tensor(self._used, device="cpu").expand(layers))
        self._slots = LayerTensors(torch.arange(parameters.max_k, device="cpu").expand(layers))
        # In both cases experts are taken in the order of their probabilities.
        self._is_ordered_by_probability = not parameters.score.has_factor and (
            self.null is None or self.null.is_common
        )

    def shortage(self) -> str | None:
        """A sentence if the null is too small to tell p-values apart where one expert is tested."""
        if self.null is None or self.null.samples is None:
            return None
        smallest = 1 / (self.null.samples + 1)
        level = min(self.parameters.levels(self._shape.layers))
        needed = level / self._shape.experts
        if self.parameters.rule is RuleName.BY:
            needed /= harmonic_number(self._shape.experts)
        if self.parameters.rule is RuleName.HIGHER_CRITICISM or smallest <= needed:
            return None
        return (
            f"The null holds {self.null.samples} scores a layer, so no p-value is below "
            f"{smallest:.2g}; a single expert would need {needed:.2g} at "
            f"{self.parameters.level_symbol} {level:g}. Calibrate on a longer text or raise it."
        )

    def counts(self, layer: int, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Experts used by each token, (token,) int64, after and before the limits.

        logits: (token, expert) of any floating dtype; compared in float32.
        """
        _, scores = self._judged(layer, logits)
        return self._counts(layer, scores)

    def select(self, layer: int, logits: Tensor) -> Selection:
        """Select experts for each token. logits: (token, expert)."""
        # The very operations of the model's own router, so that its own counts change no bit. Slots
        # that stay unused keep the index of a real expert: any other value corrupts grouped_mm.
        probabilities, scores = self._judged(layer, logits)
        counts, raw = self._counts(layer, scores)
        if self._is_ordered_by_probability:
            weights, indices = self._most_probable(probabilities, self.parameters.max_k)
        else:
            indices = self._order(layer, scores)[:, : self.parameters.max_k]
            weights = probabilities.gather(-1, indices)
        unused = self._slots.on(logits.device, layer) >= counts[:, None]
        weights = weights.masked_fill(unused, 0.0)
        return Selection(indices, self._rescaled(weights, probabilities), counts, raw)

    def select_one(self, layer: int, logits: Tensor) -> tuple[Tensor, Tensor, int]:
        """The used slots of a single token on the processor, and its raw count.

        logits: (1, expert) on the CPU, where reading a number costs no waiting: decoding does this
        in every layer for every token, and leaving unused slots out is cheaper than masking them
        here and looking for them in the experts. Returns indices and weights, both (1, slot).
        """
        if not (isinstance(self._count, StepUpThresholds) and self._is_ordered_by_probability):
            selection = self.select(layer, logits)
            used = int(selection.counts)
            return (
                selection.indices[:, :used],
                selection.weights[:, :used],
                int(selection.raw_counts),
            )
        probabilities, scores = self._judged(layer, logits)
        raw = step_up_count(scores.tolist()[0], self._count.numbers[layer])
        weights, indices = self._most_probable(probabilities, self._used[raw])
        return indices, self._rescaled(weights, probabilities), raw

    def _judged(self, layer: int, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The probabilities that give the mixing weights, and the scores that give the counts."""
        probabilities = logits.softmax(-1, torch.float32)
        if self._scorer.is_probability:
            return probabilities, probabilities
        scores = self._scorer(layer, logits)
        if self.parameters.score.has_factor:
            # -inf: below every null score and every threshold, so that p is 1.
            last = probabilities.topk(self.parameters.max_k).values[:, -1:]
            scores = scores.masked_fill(probabilities < last, -torch.inf)
        return probabilities, scores

    def _raw_counts(self, layer: int, scores: Tensor) -> Tensor:
        return self._count(layer, scores)

    def _counts(self, layer: int, scores: Tensor) -> tuple[Tensor, Tensor]:
        raw = self._raw_counts(layer, scores)
        return self._used_of_raw.on(scores.device, layer)[raw], raw

    def _order(self, layer: int, scores: Tensor) -> Tensor:
        """All experts of each token, best first: (token, expert) int64."""
        order = scores.argsort(dim=-1, descending=True, stable=True)
        if self.null is None or self.null.is_common:
            return order
        p_values = self.null.p_values(layer, scores).gather(-1, order)
        return order.gather(-1, p_values.argsort(dim=-1, stable=True))

    def _most_probable(self, probabilities: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Probabilities and indices of the `count` most probable experts, both (token, slot).

        Which of several equal probabilities come first depends on how many are asked for, and in
        bfloat16 many are equal. The model's own top_k come first here, in its own order.
        """
        top_k = self._shape.top_k
        weights, indices = probabilities.topk(min(count, top_k))
        if count <= top_k:
            return weights, indices
        others = probabilities.scatter(-1, indices, -1.0).topk(count - top_k)
        return (
            torch.cat([weights, others.values], dim=-1),
            torch.cat([indices, others.indices], dim=-1),
        )

    def _rescaled(self, weights: Tensor, probabilities: Tensor) -> Tensor:
        if self._renormalize:
            return weights / self._mass(weights)
        if self.parameters.weights is MixingWeights.MATCH:
            native = probabilities.topk(self._shape.top_k).values.sum(-1, keepdim=True)
            return weights * (native / self._mass(weights))
        return weights

    def _mass(self, weights: Tensor) -> Tensor:
        """The sum of the weights of each token, (token, 1).

        The last bit of a sum depends on how many numbers are added, zeros too. So the first top_k
        are added as the model's router adds its own, and the others one after the other: a token
        with the model's own experts gets its very weights, whatever the number of slots.
        """
        top_k, slots = self._shape.top_k, weights.shape[-1]
        if slots < top_k:
            weights = F.pad(weights, (0, top_k - slots))
        first = weights[:, :top_k].contiguous().sum(-1, keepdim=True)
        return first if slots <= top_k else first + weights[:, top_k:].cumsum(-1)[:, -1:]


RuleFactory = Callable[[RuleParameters, RouterNull | None, RouterShape], RoutingRule]
