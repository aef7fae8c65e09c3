"""Counts of a routing rule gathered on the device, and the numbers that follow from them."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

# Decoding adds one small pass a token; folding many at once costs hardly more than folding one.
_PASSES_AT_ONCE = 64


class Phase(IntEnum):
    """Reading several positions at once, or producing one token at a time."""

    PREFILL = 0
    DECODE = 1


class CountHistograms:
    """How often the rule asked for each number of experts, by phase and layer.

    Filled with raw counts; counts after min_k and max_k follow from them. Adding a pass moves
    nothing off the device and waits for nothing.
    """

    def __init__(self, layers: int, experts: int) -> None:
        self._shape = (len(Phase), layers, experts + 1)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._histogram: Tensor | None = None
        self._waiting: dict[Phase, list[tuple[Tensor, Tensor | None]]] = {p: [] for p in Phase}
        self.forward_passes = 0

    def add(self, phase: Phase, raw_counts: Tensor, kept_rows: Tensor | None) -> None:
        """Count one forward pass.

        raw_counts: (layer, row) int64. kept_rows: (row,) int64 of 0 and 1, or None for all rows.
        """
        self.forward_passes += 1
        waiting = self._waiting[phase]
        waiting.append((raw_counts, kept_rows))
        if len(waiting) == _PASSES_AT_ONCE:
            self._fold(phase)

    def _fold(self, phase: Phase) -> None:
        waiting = self._waiting[phase]
        if not waiting:
            return
        raw = torch.cat([counts for counts, _ in waiting], dim=1)
        kept = [torch.ones_like(c[0]) if rows is None else rows for c, rows in waiting]
        added = torch.zeros(self._shape, dtype=torch.int64, device=raw.device)
        added[phase].scatter_add_(1, raw, torch.cat(kept).expand_as(raw))
        # Never in place: a tensor made under inference mode may not be changed outside it.
        self._histogram = added if self._histogram is None else self._histogram + added
        waiting.clear()

    def summary(self, min_k: int, max_k: int) -> dict[str, Any]:
        """Statistics of all passes, and of prefill and decode apart, by name."""
        for phase in Phase:
            self._fold(phase)
        if self._histogram is None:
            histogram = torch.zeros(self._shape, dtype=torch.int64, device="cpu")
        else:
            histogram = self._histogram.cpu()
        return {
            **_describe(histogram.sum(0), min_k, max_k),
            "prefill": _describe(histogram[Phase.PREFILL], min_k, max_k),
            "decode": _describe(histogram[Phase.DECODE], min_k, max_k),
        }


def _describe(raw: Tensor, min_k: int, max_k: int) -> dict[str, Any]:
    """Statistics of raw: (layer, raw count) int64, over (token, layer) pairs; std divides by N."""
    clamped = _clamp_histogram(raw, min_k, max_k)
    values = torch.arange(raw.shape[1], dtype=torch.float64)
    pairs = int(raw.sum())
    if pairs == 0:
        return {
            "tokens": 0, "mean": None, "std": None, "per_layer_mean": [], "histogram": [],
            "share_clamped_min": None, "share_clamped_max": None,
        }  # fmt: skip
    total = clamped.sum(0).double()
    mean = float((total * values).sum() / pairs)
    variance = float((total * (values - mean) ** 2).sum() / pairs)
    per_layer = (clamped * values).sum(1) / clamped.sum(1)
    return {
        "tokens": int(raw[0].sum()),
        "mean": mean,
        "std": variance**0.5,
        "per_layer_mean": per_layer.tolist(),
        "histogram": clamped.sum(0)[: max_k + 1].tolist(),
        "share_clamped_min": int(raw[:, :min_k].sum()) / pairs,
        "share_clamped_max": int(raw[:, max_k + 1 :].sum()) / pairs,
    }


def _clamp_histogram(raw: Tensor, min_k: int, max_k: int) -> Tensor:
    clamped = torch.zeros_like(raw)
    clamped[:, min_k : max_k + 1] = raw[:, min_k : max_k + 1]
    clamped[:, min_k] += raw[:, :min_k].sum(1)
    clamped[:, max_k] += raw[:, max_k + 1 :].sum(1)
    return clamped
