"""Which experts ran at every position that one side read. Knows arrays, no model and no torch."""

from __future__ import annotations

import numpy as np

from bh_studio.engine.architectures import MOST_EXPERTS

# Fills the slots that a position leaves unused; no expert has this number.
NO_EXPERT = MOST_EXPERTS


def check_routed(experts: np.ndarray, positions: int, layers: int, of: int) -> None:
    """Raise ValueError for what cannot have run, of so many experts in a layer.

    experts: (position, layer, slot) uint8, NO_EXPERT behind those that ran.
    """
    if experts.ndim != 3 or experts.shape[:2] != (positions, layers) or experts.shape[2] > of:
        raise ValueError("its experts are not those of its positions and layers.")
    is_used = experts != NO_EXPERT
    if (experts[is_used] >= of).any():
        raise ValueError(f"it names more experts than the {of} there are.")
    if (is_used[..., 1:] & ~is_used[..., :-1]).any():
        raise ValueError("it names an expert behind an unused slot.")
    ordered = np.sort(np.where(is_used, experts, NO_EXPERT), axis=-1)
    if ((ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] != NO_EXPERT)).any():
        raise ValueError("it names an expert twice.")


def for_vllm(experts: np.ndarray) -> np.ndarray:
    """(token, layer, top_k) int32, as vLLM returns routed experts; -1 where fewer ran.

    experts: (position, layer, slot) uint8, as check_routed has them.
    """
    wide = experts.astype(np.int32)
    wide[experts == NO_EXPERT] = -1
    return wide
