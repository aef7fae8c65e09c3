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

from bh_studio.engine.kernels.triton_support import triton_problem
from bh_studio.engine.routing.counters import COUNTERS, CounterContext, StepUpThresholds
from bh_studio.engine.routing.fdr import harmonic_number, step_up_count
from bh_studio.engine.routing.layer_tensors import LayerTensors
from bh_studio.engine.routing.nulls import NullModel, null_model
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.scores import Scorer
from bh_studio.engine.rules.parameters import (
    MixingWeights,
    Mode,
    RouterShape,
    RuleName,
    RuleParameters,
    ScoreName,
)


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


class Judgement(NamedTuple):
    """How a rule came to its selection, of each token of one layer.

    probabilities, scores: (token, expert) float32; scores are -inf for experts that are no
    candidates. p_values: (token, expert) float64; None for a rule that tests nothing. order:
    (token, expert) int64, all experts, best first; of equals `selection` may have others first.
    """

    probabilities: Tensor
    scores: Tensor
    p_values: Tensor | None
    order: Tensor
    selection: Selection


class SelectionTables(NamedTuple):
    """A rule as numbers on the CPU, for kernels that select experts themselves.

    thresholds: (layer, expert) float32, see fdr.score_thresholds; inf if the rule is not a step-up
    rule, so that raw counts come from RoutingRule.counts. used_of_raw: (layer, expert + 1) int32,
    experts used for each raw count. settings: (3,) float32: the temperature; 1 if the score is the
    logit, 0 if it is the probability; how mixing weights are scaled: 0 not at all, 1 to sum 1, 2 to
    the sum of the model's own top-k.
    """

    thresholds: Tensor
    used_of_raw: Tensor
    settings: Tensor


class RoutingRule:
    """A rule ready to select experts in every layer of one model.

    "Best" is the largest probability, which is also the largest logit; the largest score for a
    score with factors, among the max_k most probable; and the smallest p-value, then the largest
    score, where every expert has a null of its own. A temperature changes counts, never the order
    or the mixing weights.

    is_ordered_by_probability: whether the experts used are the most probable ones. context: what
    its counter was built from.
    """

    def __init__(
        self,
        parameters: RuleParameters,
        recording: Recording | None,
        shape: RouterShape,
    ) -> None:
        """recording: for the null and the factors; None for a rule that needs neither.

        Raises ValueError for parameters that do not fit the shape or lack their null, NullError
        where the null cannot be fitted.
        """
        parameters.check_shape(shape.layers, shape.experts)
        factors = {} if recording is None else recording.factors
        self.parameters = parameters
        self.null: NullModel | None = None
        self._scorer = Scorer(parameters.score, parameters.temperature, factors)
        if parameters.is_test and recording is not None:
            self.null = null_model(parameters.null, recording, self._scorer)
        self.context = CounterContext(
            parameters, parameters.levels(shape.layers), shape.experts, self._scorer, self.null,
            recording,
        )  # fmt: skip
        self._count = COUNTERS[parameters.rule](self.context)
        self._shape = shape
        self._renormalize = shape.norm_topk_prob or parameters.weights is MixingWeights.RENORMALIZE
        self._used = parameters.used_counts(shape.experts, shape.top_k)
        layers = (shape.layers, -1)
        self._used_of_raw = LayerTensors(torch.tensor(self._used, device="cpu").expand(layers))
        self._slots = LayerTensors(torch.arange(parameters.max_k, device="cpu").expand(layers))
        self.is_ordered_by_probability = not parameters.score.has_factor and (
            self.null is None or self.null.is_common
        )
        # The counter, if a token can be counted and its experts taken without sorting all scores.
        self._step_up: StepUpThresholds | None = None
        if self.is_ordered_by_probability and isinstance(self._count, StepUpThresholds):
            self._step_up = self._count

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
        return self._selection(layer, *self._judged(layer, logits))

    def _selection(self, layer: int, probabilities: Tensor, scores: Tensor) -> Selection:
        # The very operations of the model's own router, so that its own counts change no bit. Slots
        # that stay unused keep the index of a real expert: any other value corrupts grouped_mm.
        device = probabilities.device
        if self.is_ordered_by_probability:
            weights, indices = self._most_probable(probabilities, self.parameters.max_k)
        else:
            indices = self._order(layer, scores)[:, : self.parameters.max_k]
            weights = probabilities.gather(-1, indices)
        if scores is probabilities and self._has_kernel(device):
            weights, counts, raw = self._limited(layer, probabilities, weights)
        else:
            counts, raw = self._counts(layer, scores)
            unused = self._slots.on(device, layer) >= counts[:, None]
            weights = weights.masked_fill(unused, 0.0)
        return Selection(indices, self._rescaled(weights, probabilities), counts, raw)

    def judge(self, layer: int, logits: Tensor) -> Judgement:
        """What `select` gives, and how it came to it. logits: (token, expert)."""
        probabilities, scores = self._judged(layer, logits)
        selection = self._selection(layer, probabilities, scores)
        p_values = None if self.null is None else self.null.p_values(layer, scores)
        return Judgement(probabilities, scores, p_values, self._order(layer, scores), selection)

    def select_one(self, layer: int, logits: Tensor) -> tuple[Tensor, Tensor, int]:
        """The used slots of a single token on the processor, and its raw count.

        logits: (1, expert) on the CPU, where reading a number costs no waiting: decoding does this
        in every layer for every token, and leaving unused slots out is cheaper than masking them
        here and looking for them in the experts. Returns indices and weights, both (1, slot).
        """
        if self._step_up is None:
            selection = self.select(layer, logits)
            used = int(selection.counts)
            return (
                selection.indices[:, :used],
                selection.weights[:, :used],
                int(selection.raw_counts),
            )
        probabilities, scores = self._judged(layer, logits)
        raw = step_up_count(scores.tolist()[0], self._step_up.numbers[layer])
        weights, indices = self._most_probable(probabilities, self._used[raw])
        return indices, self._rescaled(weights, probabilities), raw

    def count_one(self, layer: int, logits: Tensor) -> int:
        """The raw count of a single token on the processor. logits: (1, expert)."""
        scores = self._judged(layer, logits)[1]
        if isinstance(self._count, StepUpThresholds):
            return step_up_count(scores.tolist()[0], self._count.numbers[layer])
        return int(self._raw_counts(layer, scores))

    @property
    def is_step_up(self) -> bool:
        """Whether thresholds of SelectionTables decide the counts."""
        return self._step_up is not None and type(self)._raw_counts is RoutingRule._raw_counts

    def tables(self) -> SelectionTables | None:
        """This rule as tables; None if they cannot say which experts it takes.

        In analyze mode the raw counts are the rule's, experts and weights the model's own.
        """
        parameters, shape = self.parameters, self._shape
        analyze = parameters.mode is Mode.ANALYZE
        if not (analyze or self.is_ordered_by_probability):
            return None
        thresholds, used, settings = own_tables(shape)
        if self._step_up is not None and self.is_step_up:
            thresholds = torch.tensor(self._step_up.numbers, dtype=torch.float32, device="cpu")
            settings[0] = parameters.temperature
            settings[1] = parameters.score is ScoreName.LOGIT
        if not analyze:
            used[:] = torch.tensor(self._used, dtype=torch.int32, device="cpu")
            if self._renormalize:
                settings[2] = 1
            elif parameters.weights is MixingWeights.MATCH:
                settings[2] = 2
        return SelectionTables(thresholds, used, settings)

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

    def _has_kernel(self, device: torch.device) -> bool:
        """Whether a kernel counts, where the scores are the probabilities."""
        return device.type == "cuda" and self.is_step_up and not triton_problem(device)

    def _limited(
        self, layer: int, probabilities: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Weights without those of unused slots, counts and raw counts, by one kernel."""
        from bh_studio.engine.routing import selection_cuda

        assert self._step_up is not None
        device = probabilities.device
        return selection_cuda.limited(
            probabilities, weights, self._step_up.on(device, layer),
            self._used_of_raw.on(device, layer),
        )  # fmt: skip

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


def own_routing(shape: RouterShape) -> RoutingRule:
    """The model's own top-k as a rule."""
    top_k = shape.top_k
    return RoutingRule(RuleParameters(RuleName.TOP_K, top_k, max_k=top_k), None, shape)


def own_tables(shape: RouterShape) -> SelectionTables:
    """The model's own top-k as tables."""
    return SelectionTables(
        torch.full((shape.layers, shape.experts), torch.inf, device="cpu"),
        torch.full((shape.layers, shape.experts + 1), shape.top_k, dtype=torch.int32, device="cpu"),
        torch.tensor([1.0, 0.0, float(shape.norm_topk_prob)], device="cpu"),
    )


RuleFactory = Callable[[RuleParameters, Recording | None, RouterShape], RoutingRule]
