"""Routing rules: the router logits of a layer in, a selection of experts out.

Knows nothing of models or modules. A rule never decides silently: it reports the count before and
after min_k and max_k.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bh_studio.engine.fdr import step_up_count, step_up_counts
from bh_studio.engine.messages import MixingWeights, RuleParameters
from bh_studio.engine.nulls import RouterNull, routing_scores
from bh_studio.engine.routers import RouterShape


class Selection(NamedTuple):
    """What a rule chose for each token of one layer.

    indices: (token, slot) int64, experts by falling probability; every index is a real expert.
    weights: (token, slot) float32, mixing weights; exactly 0 in slots that are not used.
    counts: (token,) int64, slots in use. raw_counts: (token,) int64, before min_k and max_k.
    """

    indices: Tensor
    weights: Tensor
    counts: Tensor
    raw_counts: Tensor


class BenjaminiHochberg:
    """BH step-up on routing probabilities against the null of the layer.

    An expert's p-value is the share of discarded scores at least as large as its own; the rule
    keeps the largest k with p_(k) <= alpha k / experts, then applies min_k and max_k.

    Limits: BH controls the false discovery rate for independent or positively dependent p-values
    (Benjamini & Hochberg 1995; Benjamini & Yekutieli 2001). The scores of one token come from one
    hidden state and sum to 1, and min_k and max_k override the rule, so alpha is the level of
    the procedure here, not a guaranteed error rate.

    Mixing weights: "model" keeps the softmax over all experts as the model's own router does
    (renormalised only if the model was trained so); "renormalize" scales the kept ones to sum 1.
    """

    def __init__(
        self,
        parameters: RuleParameters,
        null: RouterNull,
        shape: RouterShape,
        device: torch.device,
    ) -> None:
        """Raises ValueError if max_k exceeds the experts of a layer."""
        parameters.check_experts(shape.experts)
        self._temperature = parameters.temperature
        self._min_k = parameters.min_k
        self._max_k = parameters.max_k
        self._renormalize = shape.norm_topk_prob or parameters.weights is MixingWeights.RENORMALIZE
        thresholds = null.thresholds(parameters.alpha, parameters.temperature)
        self._thresholds = list(thresholds.to(device).unbind(0))
        self._slots = torch.arange(parameters.max_k, device=device)
        self._threshold_numbers: list[list[float]] = thresholds.tolist()

    def counts(self, layer: int, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Experts used by each token, (token,) int64, after and before min_k and max_k.

        logits: (token, expert) of any floating dtype; compared in float32.
        """
        return self._counts(layer, routing_scores(logits, self._temperature))

    def select(self, layer: int, logits: Tensor) -> Selection:
        """Select experts for each token. logits: (token, expert)."""
        # The very operations of the model's own router, so that min_k = max_k = top_k changes no
        # bit. Slots that stay unused keep the index of a real expert: any other value corrupts
        # grouped_mm.
        scores = probabilities = logits.softmax(-1, torch.float32)
        if self._temperature != 1.0:
            scores = routing_scores(logits, self._temperature)
        weights, indices = probabilities.topk(self._max_k)
        counts, raw = self._counts(layer, scores)
        weights = weights.masked_fill(self._slots >= counts[:, None], 0.0)
        if self._renormalize:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return Selection(indices, weights, counts, raw)

    def select_one(self, layer: int, logits: Tensor) -> tuple[Tensor, Tensor, int]:
        """The used slots of a single token on the processor, and its raw count.

        logits: (1, expert) on the CPU, where reading a number costs no waiting: decoding does this
        in every layer for every token, and leaving unused slots out is cheaper than masking them
        here and looking for them in the experts. Returns indices and weights, both (1, slot).
        """
        scores = probabilities = logits.softmax(-1, torch.float32)
        if self._temperature != 1.0:
            scores = routing_scores(logits, self._temperature)
        raw = step_up_count(scores.tolist()[0], self._threshold_numbers[layer])
        used = min(max(raw, self._min_k), self._max_k)
        weights, indices = probabilities.topk(used)
        if self._renormalize:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return indices, weights, raw

    def _counts(self, layer: int, scores: Tensor) -> tuple[Tensor, Tensor]:
        raw = step_up_counts(scores, self._thresholds[layer])
        return raw.clamp(self._min_k, self._max_k), raw
