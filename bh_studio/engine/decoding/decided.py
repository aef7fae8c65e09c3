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
    row = logits.to("cpu", torch.float32)
    # Few operations, and torch's, which have run for this token already: one that has not costs it
    # more than the arithmetic in it.
    log_probabilities = row.log_softmax(-1)
    chosen = float(log_probabilities[0, token_id])
    check_finite(chosen)
    top = log_probabilities.topk(min(ALTERNATIVES, row.shape[-1]))
    return TokenChoice(
        chosen,
        1 + int((row > row[0, token_id]).sum()),
        np.array(top.indices.tolist()[0], np.int32),
        np.array([max(value, _LEAST) for value in top.values.tolist()[0]], np.float32),
    )


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
