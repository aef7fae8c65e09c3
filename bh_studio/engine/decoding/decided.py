"""What is decided while tokens are read: by the routers, and by whoever chooses the next token.

Knows tensors; neither models nor sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bh_studio.engine.errors import EngineError
from bh_studio.engine.records.decisions.routed_experts import NO_EXPERT
from bh_studio.engine.records.decisions.token_choices import ALTERNATIVES, TokenChoice

# The least that float32 holds; a logarithm of 0 is kept as that.
_LEAST = float(np.finfo(np.float32).min)
# Of what _largest looks at; the maxima of so many are taken side by side.
_PARTS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Decided:
    """What was decided in one pass.

    router_logits: (row, layer, expert) float32, one row a position that was read. experts: (row,
    layer, slot) uint8, those that ran, in the order of their slots, NO_EXPERT behind them. choice:
    of the token after the last row.
    """

    router_logits: np.ndarray
    experts: np.ndarray
    choice: TokenChoice


def choice_of(logits: Tensor, token_id: int) -> TokenChoice:
    """What `logits`, (1, vocabulary), say of a token and of the most probable ones.

    Raises EngineError for logits that are not finite where it matters, as those of a damaged
    checkpoint.
    """
    row = logits[0].to("cpu", torch.float32)
    values = row.numpy()
    # All of these are NaN where one value is; after the check the values have an order.
    probabilities = row.softmax(0).numpy()
    if not np.isfinite([values[token_id], probabilities[token_id]]).all():
        raise not_finite()
    top = _largest(values, ALTERNATIVES)
    # The logarithm of the sum of all exponentials: the probabilities tell by how much their common
    # divisor, which is summed less exactly than NumPy does, was wrong.
    of_all = float(values[top[0]]) + math.log(probabilities.sum() / probabilities[top[0]])
    chosen = values[token_id]
    return TokenChoice(
        float(chosen) - of_all,
        1 + int(np.count_nonzero(values > chosen)),
        top,
        np.array([max(value - of_all, _LEAST) for value in values[top].tolist()], np.float32),
    )


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Where the `count` largest of `values`, none of them NaN, lie: the largest first, and of equal
    ones the first.

    No more than a third of the time of a topk, which is felt in every token: at least `count`
    values reach the `count`-th largest of the maxima of parts, and few more do.
    """
    width = len(values) // _PARTS
    whole = width * _PARTS
    maxima = np.append(
        values[:whole].reshape(_PARTS, width).max(0, initial=-np.inf), values[whole:]
    )
    if len(maxima) > count:
        found = np.flatnonzero(values >= np.partition(maxima, -count)[-count])
    else:
        found = np.arange(len(values))
    return found[np.argsort(-values[found], kind="stable")[:count]]


def check_finite(log_probability: float) -> None:
    """Raise EngineError for the log-probability of a chosen token that is no number."""
    if not math.isfinite(log_probability):
        raise not_finite()


def not_finite() -> EngineError:
    """What to say of logits that are no numbers."""
    return EngineError(
        "The model's answer has values that are not finite.",
        "The checkpoint is damaged, or this number format is too narrow for it.",
    )


def experts_that_ran(indices: np.ndarray, weights: np.ndarray, slots: int) -> np.ndarray:
    """(..., slot) uint8: the `indices` whose weight is not 0, then NO_EXPERT.

    indices, weights: (..., slot) of any number of slots; at most `slots` weights differ from 0.
    """
    ran = weights != 0
    found = np.where(ran, indices, NO_EXPERT).astype(np.uint8)
    # The order stays; only a slot whose weight vanished in rounding lies between used ones.
    if (ran[..., 1:] & ~ran[..., :-1]).any():
        found = np.take_along_axis(found, np.argsort(~ran, axis=-1, kind="stable"), axis=-1)
    given = found.shape[-1]
    if given >= slots:
        return found[..., :slots]
    filler = np.full((*found.shape[:-1], slots - given), NO_EXPERT, np.uint8)
    return np.concatenate([found, filler], axis=-1)


def of_layers(tensors: Sequence[Tensor], dtype: torch.dtype) -> np.ndarray:
    """(row, layer, ...) on the host, of one tensor (row, ...) a layer, on any device."""
    return torch.stack([tensor.to("cpu", dtype) for tensor in tensors], dim=1).numpy()
