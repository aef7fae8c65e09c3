"""Counting and limiting experts of many tokens on a CUDA device by one kernel. Knows no rules."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from bh_studio.engine.kernels import selection_kernels
from bh_studio.engine.kernels.triton_support import launching_on


def limited(
    probabilities: Tensor, weights: Tensor, thresholds: Tensor, used_of_raw: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Step-up counts of each token, and its weights with those of unused slots set to 0.

    probabilities: (token, expert) float32, the scores too. weights: (token, slot) float32, best
    first. thresholds: (expert,) float32, see fdr.score_thresholds. used_of_raw: (expert + 1,)
    int64.
    All contiguous. Returns weights, and counts and raw counts, (token,) int64. Waits for nothing.
    """
    (tokens, experts), slots = probabilities.shape, weights.shape[1]
    result = torch.empty_like(weights)
    counts = torch.empty((2, tokens), dtype=torch.int64, device=weights.device)
    counted, raw = counts.unbind()
    if tokens:
        with launching_on(weights.device):
            selection_kernels.limit_rows[(tokens,)](
                probabilities, weights, thresholds, used_of_raw,
                result, counted, raw,
                EXPERTS=experts, PADDED=triton.next_power_of_2(experts),
                SLOTS=slots, PADDED_SLOTS=triton.next_power_of_2(slots), num_warps=1,
            )  # fmt: skip
    return result, counted, raw
