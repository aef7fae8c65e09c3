"""Multiple testing as pure tensor functions: p-values against an empirical null, BH step-up.

Knows no model. Everything is per row along the last axis; nothing synchronises with a device.

References: Benjamini & Hochberg (1995), J. R. Stat. Soc. B 57, 289-300, for the step-up rule;
Phipson & Smyth (2010), Stat. Appl. Genet. Mol. Biol. 9, 39, for p-values that are never zero.
"""

from __future__ import annotations

import torch
from torch import Tensor


def empirical_p_values(scores: Tensor, null: Tensor) -> Tensor:
    """Upper-tail p-values of `scores` against an empirical null, in float64.

    p = (1 + #{null >= score}) / (n + 1). scores: any shape. null: (n,) sorted ascending, of the
    dtype of `scores`. Raises ValueError for an empty null.
    """
    n = null.numel()
    if n == 0:
        raise ValueError("The null holds no scores.")
    at_least = n - torch.searchsorted(null, scores.contiguous())
    return _p_value(at_least, n)


def bh_counts(p_values: Tensor, alpha: float) -> Tensor:
    """Number of hypotheses that the BH step-up procedure rejects in each row, int64.

    The largest k with p_(k) * m / k <= alpha, 0 if there is none. p_values: (..., m).
    """
    m = p_values.shape[-1]
    ordered = p_values.double().sort(dim=-1).values
    ranks = torch.arange(1, m + 1, device=p_values.device)
    return ((ordered * (m / ranks) <= alpha) * ranks).amax(dim=-1)


def bh_score_thresholds(null: Tensor, alpha: float, hypotheses: int) -> Tensor:
    """The scores at which BH rejects, so that no p-value is needed once a null and alpha are fixed.

    With one null for all hypotheses of a row p falls as the score rises, so p_(k) <= alpha k / m
    holds exactly when the k-th largest score reaches the k-th threshold returned here.

    null: (n,) float32 sorted ascending. Returns (m,) float32, falling with k; inf where even the
    largest score could not be significant, -inf where any score is.
    """
    n = null.numel()
    if n == 0:
        raise ValueError("The null holds no scores.")
    # Everything in float64 on the processor, whatever torch's defaults are set to.
    ranks = torch.arange(1, hypotheses + 1, dtype=torch.float64, device="cpu")
    # The most null scores at or above a score that still leave it significant at rank k. The
    # analytic value may be off by one in floating point, so its neighbours are put through the
    # very expression of bh_counts: both forms then agree on every row, ties included.
    guess = (alpha * ranks / hypotheses * (n + 1)).floor().long() - 1
    candidates = guess[:, None] + torch.arange(-2, 3, device="cpu")
    significant = _p_value(candidates, n) * (hypotheses / ranks)[:, None] <= alpha
    allowed = torch.where(significant, candidates, -1).amax(dim=1)

    descending = null.cpu().flip(0)
    infinity = torch.tensor(torch.inf, dtype=descending.dtype, device="cpu")
    above = torch.nextafter(descending[allowed.clamp(0, n - 1)], infinity)
    thresholds = torch.where(allowed < 0, infinity, above)
    return torch.where(allowed >= n, -infinity, thresholds).to(null.device)


def step_up_counts(scores: Tensor, thresholds: Tensor) -> Tensor:
    """Number of rejections in each row: the largest k whose k-th largest score reaches threshold k.

    scores: (row, m) in any order. thresholds: (m,). Returns (row,) int64, 0 to m.
    """
    reached = scores.sort(dim=-1, descending=True).values >= thresholds
    # The last rank that is reached is the first one from behind; argmax finds the first maximum.
    from_behind = reached.flip(-1)
    m = thresholds.shape[0]
    return torch.where(from_behind.any(-1), m - from_behind.int().argmax(-1), 0)


def step_up_count(scores: list[float], thresholds: list[float]) -> int:
    """step_up_counts for one row of plain numbers, m of each.

    For the decode loop, which asks in every layer for every token: sorting 64 numbers there costs
    more than the rest of the rule. As thresholds fall with the rank, a score below the last of them
    is below every rank's, and the few that remain are quickly sorted.
    """
    lowest = thresholds[-1]
    candidates = [score for score in scores if score >= lowest]
    candidates.sort(reverse=True)
    count = len(candidates)
    while count and candidates[count - 1] < thresholds[count - 1]:
        count -= 1
    return count


def _p_value(at_least: Tensor, n: int) -> Tensor:
    return (1 + at_least).double() / (n + 1)
