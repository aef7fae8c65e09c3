"""Multiple testing as pure tensor functions: p-values against a null, and how many are rejected.

Knows no model. Everything is per row along the last axis; nothing synchronises with a device.

References:
    Benjamini & Hochberg (1995), J. R. Stat. Soc. B 57, 289-300: the step-up rule.
    Benjamini & Yekutieli (2001), Ann. Stat. 29, 1165-1188: the same under any dependence.
    Storey, Taylor & Siegmund (2004), J. R. Stat. Soc. B 66, 187-205: with an estimate of pi0.
    Donoho & Jin (2004), Ann. Stat. 32, 962-994: higher criticism.
    Phipson & Smyth (2010), Stat. Appl. Genet. Mol. Biol. 9, 39: p-values that are never zero.
    Bates, Candes, Lei, Romano & Sesia (2023), Ann. Stat. 51, 149-178: sharing one null sample makes
        the p-values of independent scores positively dependent, and BH still controls the rate.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def empirical_p_values(scores: Tensor, null: Tensor) -> Tensor:
    """Upper-tail p-values of `scores` against an empirical null, in float64.

    p = (1 + #{null >= score}) / (n + 1), NaN for a score that is NaN. scores: any shape. null: (n,)
    sorted ascending, of the dtype of `scores`. Raises ValueError for an empty null.
    """
    n = null.numel()
    if n == 0:
        raise ValueError("The null holds no scores.")
    at_least = n - torch.searchsorted(null, scores.contiguous())
    # searchsorted puts NaN above everything, which would make it the most significant score.
    return _p_value(at_least, n).masked_fill(scores.isnan(), torch.nan)


def normal_p_values(z: Tensor) -> Tensor:
    """Upper-tail p-values of standard normal scores `z`, any shape, in float64."""
    return torch.special.erfc(z.double() / 2**0.5) / 2


def harmonic_number(m: int) -> float:
    """1 + 1/2 + ... + 1/m, the `factor` that makes the step-up rule that of BY."""
    return float((1 / torch.arange(1, m + 1, dtype=torch.float64, device="cpu")).sum())


def storey_pi0(p_values: Tensor, cutoff: float = 0.5) -> float:
    """Estimated share of true nulls among p-values of any shape: Storey et al. (2004) with the 1
    that keeps it positive, (1 + #{p > cutoff}) / ((1 - cutoff) N), at most 1."""
    above = int((p_values > cutoff).sum())
    return min(1.0, (1 + above) / ((1 - cutoff) * p_values.numel()))


def step_up_rejections(
    p_values: Tensor, alpha: float, factor: float = 1.0, largest: float = 1.0
) -> Tensor:
    """Number of hypotheses that the step-up procedure rejects in each row, int64.

    The largest k with p_(k) * m / k * factor <= alpha and p_(k) <= largest, 0 if there is none.
    factor: 1 for BH, harmonic_number(m) for BY, pi0 for Storey. largest: Storey et al. (2004)
    prove control of the rate for rejections up to their cutoff only. p_values: (..., m).
    """
    m = p_values.shape[-1]
    ordered = p_values.double().sort(dim=-1).values
    ranks = torch.arange(1, m + 1, device=p_values.device)
    # In float64: a quotient of whole numbers has torch's default dtype.
    rejected = (ordered * (m / ranks.double()) * factor <= alpha) & (ordered <= largest)
    return (rejected * ranks).amax(dim=-1)


def step_up_line(
    alpha: float, hypotheses: int, factor: float = 1.0, largest: float = 1.0
) -> Tensor:
    """The largest p-value that step_up_rejections accepts at each rank, (hypotheses,) float64.

    So the rows it rejects are those in which p_(k) <= line_k, bit for bit.
    """
    ranks = torch.arange(1, hypotheses + 1, dtype=torch.float64, device="cpu")
    guess = alpha * ranks / hypotheses / factor
    # As in score_thresholds: the very expression decides between neighbours of the analytic value,
    # which are as many steps away as the bits of a positive number are counted up or down.
    steps = torch.arange(-8, 9, device="cpu")[:, None]
    p_values = (guess.view(torch.int64) + steps).view(torch.float64)
    accepted = p_values * (hypotheses / ranks) * factor <= alpha
    return p_values.where(accepted, -torch.inf).amax(dim=0).clamp(max=largest)


def score_thresholds(
    null: Tensor, alpha: float, hypotheses: int, factor: float = 1.0, largest: float = 1.0
) -> Tensor:
    """The scores at which step_up_rejections rejects, so that a fixed null needs no p-values.

    With one null for all hypotheses of a row p falls as the score rises, so p_(k) <= alpha k / m
    holds exactly when the k-th largest score reaches the k-th threshold returned here.

    null: (..., n) float32 sorted ascending, one null a row. Returns (..., m) float32, falling with
    k; inf where even the largest score could not be significant, -inf where any score is.
    """
    n = null.shape[-1]
    if n == 0:
        raise ValueError("The null holds no scores.")
    # Everything in float64 on the processor, whatever torch's defaults are set to.
    ranks = torch.arange(1, hypotheses + 1, dtype=torch.float64, device="cpu")
    # The most null scores at or above a score that still leave it significant at rank k. The
    # analytic value may be off by one in floating point, so its neighbours are put through the
    # very expression of step_up_rejections: both forms then agree on every row, ties included.
    bound = (alpha * ranks / hypotheses / factor).clamp(max=largest)
    guess = (bound * (n + 1)).floor().long() - 1
    candidates = guess[:, None] + torch.arange(-2, 3, device="cpu")
    p_values = _p_value(candidates, n)
    significant = (p_values * (hypotheses / ranks)[:, None] * factor <= alpha) & (
        p_values <= largest
    )
    allowed = torch.where(significant, candidates, -1).amax(dim=1)

    infinity = torch.tensor(torch.inf, dtype=null.dtype, device="cpu")
    first_too_many = null[..., (n - 1 - allowed.clamp(0, n - 1)).to(null.device)].cpu()
    above = torch.nextafter(first_too_many, infinity)
    thresholds = torch.where(allowed < 0, infinity, above)
    return torch.where(allowed >= n, -infinity, thresholds).to(null.device)


def step_up_counts(scores: Tensor, thresholds: Tensor) -> Tensor:
    """Number of rejections in each row: the largest k whose k-th largest score reaches threshold k.

    scores: (row, m) in any order. thresholds: (m,). Returns (row,) int64, 0 to m.
    """
    reached = _falling(scores) >= thresholds
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


def higher_criticism_counts(p_values: Tensor, alpha0: float) -> Tensor:
    """Number of p-values up to the one that maximises higher criticism, (...,) int64.

    Maximised over k <= alpha0 * m (Donoho & Jin 2004, with k >= 1). 0 where no HC_k is positive.
    p_values: (..., m).
    """
    best = higher_criticism(p_values, alpha0).max(dim=-1)
    return torch.where(best.values > 0, best.indices + 1, 0)


def higher_criticism(p_values: Tensor, alpha0: float) -> Tensor:
    """HC_k = sqrt(m) (k/m - p_(k)) / sqrt(p_(k) (1 - p_(k))) of each k <= alpha0 * m, at least one.

    p_values: (..., m). Returns (..., k) float64, -inf where p_(k) is 1 or nan.
    """
    m = p_values.shape[-1]
    searched = max(1, int(alpha0 * m))
    ordered = p_values.double().sort(dim=-1).values[..., :searched]
    ranks = torch.arange(1, searched + 1, device=p_values.device)
    tiny = torch.finfo(torch.float64).tiny
    deviation = (ordered * (1 - ordered)).clamp(min=tiny).sqrt()
    # Neither an exact 1, which leaves 0 / tiny, nor nan may be the maximum.
    return (m**0.5 * (ranks.double() / m - ordered) / deviation).where(ordered < 1, -torch.inf)


def _falling(scores: Tensor) -> Tensor:
    """Each row of `scores` sorted, largest first, NaN before all."""
    if not scores.is_cpu:
        return scores.sort(dim=-1, descending=True).values
    # NumPy sorts short rows many times as fast as torch, which keeps account of where each was.
    return torch.from_numpy(np.sort(scores.detach().numpy(), axis=-1)).flip(-1)


def _p_value(at_least: Tensor, n: int) -> Tensor:
    return (1 + at_least).double() / (n + 1)
