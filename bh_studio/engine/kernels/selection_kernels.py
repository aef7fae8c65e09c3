"""The step-up rule on a GPU, in Triton: one kernel instead of some twenty operations.

Selects experts for the decode step (select_row), and counts for the model's own forward, whose
probabilities stay PyTorch's so that no bit of them changes (limit_rows). Knows tensors, no model.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Arguments are grouped by kind, a line each.
# fmt: off


@triton.jit
def rule_of_layer(
    thresholds, used_of_raw, settings, EXPERTS: tl.constexpr, PADDED: tl.constexpr
):
    """What select_row compares with and looks up, for one layer.

    thresholds: (EXPERTS,) float32, see fdr.score_thresholds. used_of_raw: (EXPERTS + 1,) int32, see
    RuleParameters.used_counts. settings: see selection.SelectionTables.
    """
    rank = tl.arange(0, PADDED)
    threshold = tl.load(thresholds + rank, mask=rank < EXPERTS, other=float("inf"))
    # The entry of no discovery apart, so that the others are as many as there are experts.
    used_of_none = tl.load(used_of_raw)
    used = tl.load(used_of_raw + 1 + rank, mask=rank < EXPERTS, other=0)
    return (
        threshold, used_of_none, used,
        tl.load(settings), tl.load(settings + 1), tl.load(settings + 2),
    )


@triton.jit
def step_up(score, threshold, PADDED: tl.constexpr):
    """The largest k whose k-th largest score reaches threshold k, 0 if there is none.

    score: (PADDED,), -inf beyond the experts. threshold: (PADDED,), inf beyond them.
    """
    rank = tl.arange(0, PADDED)
    # The k-th largest score reaches a threshold exactly if at least k scores do.
    reached = tl.sum((score[None, :] >= threshold[:, None]).to(tl.int32), axis=1)
    return tl.max(tl.where(reached > rank, rank + 1, 0))


@triton.jit
def used_experts(raw, used_of_none, used_of_some, PADDED: tl.constexpr):
    """The entry of the raw count in the table of rule_of_layer."""
    some = tl.sum(tl.where(tl.arange(0, PADDED) + 1 == raw, used_of_some, 0))
    return tl.where(raw == 0, used_of_none, some)


@triton.jit
def select_row(
    logits, rule, indices, weights, used, raw_count,
    TOP_K: tl.constexpr, EXPERTS: tl.constexpr, PADDED: tl.constexpr, COUNTED: tl.constexpr,
):
    """Select experts for the row at `logits`, (EXPERTS,), by a rule_of_layer.

    Writes indices and weights, (EXPERTS,) best first, weight 0 where a slot is not used; the number
    used and the raw count, one int32 each. With COUNTED the raw count is there already.
    """
    threshold, used_of_none, used_of_some, temperature, is_logit, scaling = rule
    expert = tl.arange(0, PADDED)
    real = expert < EXPERTS
    row = tl.load(logits + expert, mask=real, other=float("-inf"), cache_modifier=".cg")
    row = row.to(tl.float32)
    powers = tl.exp(row - tl.max(row))
    probability = powers / tl.sum(powers)
    cooled = row / temperature
    cooled_powers = tl.exp(cooled - tl.max(cooled))
    score = tl.where(is_logit != 0, cooled, cooled_powers / tl.sum(cooled_powers))
    score = tl.where(real, score, float("-inf"))
    if COUNTED:
        raw = tl.load(raw_count)
    else:
        raw = step_up(score, threshold, PADDED)
    count = used_experts(raw, used_of_none, used_of_some, PADDED)
    # Rank 0 is the most probable; of equals the first comes first.
    other = tl.arange(0, PADDED)
    ahead = (row[None, :] > row[:, None]) | (
        (row[None, :] == row[:, None]) & (other[None, :] < expert[:, None])
    )
    rank = tl.sum(ahead.to(tl.int32), axis=1)

    weight = tl.where(rank < count, probability, 0.0)
    if scaling != 0:
        target = tl.where(scaling == 1, 1.0, tl.sum(tl.where(rank < TOP_K, probability, 0.0)))
        weight = weight * (target / tl.sum(weight))
    weight = weight.to(logits.dtype.element_ty).to(tl.float32)
    tl.store(indices + rank, expert.to(indices.dtype.element_ty), mask=real)
    tl.store(weights + rank, weight, mask=real)
    tl.store(used, count)
    if not COUNTED:
        tl.store(raw_count, raw)


@triton.jit
def select_counted(
    logits, used_of_raw, settings, indices, weights, used, raw_count,
    TOP_K: tl.constexpr, EXPERTS: tl.constexpr, PADDED: tl.constexpr,
):
    """select_row where something else has written the raw count. One program."""
    # It compares with no thresholds; any numbers do in their place.
    rule = rule_of_layer(settings, used_of_raw, settings, EXPERTS, PADDED)
    select_row(logits, rule, indices, weights, used, raw_count, TOP_K, EXPERTS, PADDED, True)


@triton.jit
def limit_rows(
    probabilities, weights, thresholds, used_of_raw, limited, used, raw_counts,
    EXPERTS: tl.constexpr, PADDED: tl.constexpr, SLOTS: tl.constexpr, PADDED_SLOTS: tl.constexpr,
):
    """Count the experts of each row, and set the weights of the slots beyond to 0.

    probabilities: (row, EXPERTS) float32, the scores too. weights: (row, SLOTS) float32, best
    first. limited: (row, SLOTS), in a dtype of its own. used, raw_counts: (row,) int64. One program
    a row.
    """
    row = tl.program_id(0).to(tl.int64)
    expert = tl.arange(0, PADDED)
    real = expert < EXPERTS
    threshold = tl.load(thresholds + expert, mask=real, other=float("inf"))
    score = tl.load(probabilities + row * EXPERTS + expert, mask=real, other=float("-inf"))
    raw = step_up(score, threshold, PADDED)
    count = tl.load(used_of_raw + raw)
    slot = tl.arange(0, PADDED_SLOTS)
    there = slot < SLOTS
    weight = tl.load(weights + row * SLOTS + slot, mask=there, other=0.0)
    tl.store(limited + row * SLOTS + slot, tl.where(slot < count, weight, 0.0), mask=there)
    tl.store(used + row, count)
    tl.store(raw_counts + row, raw)
