"""Counts of a routing rule gathered on the device, and the numbers that follow from them."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bh_studio.engine.records.counts import count_statistics
from bh_studio.engine.rules.parameters import RuleParameters

# Decoding adds one small pass a token; folding many at once costs hardly more than folding one.
_PASSES_AT_ONCE = 256
_CPU = torch.device("cpu")

# Raw counts of one pass: (layer, row) int64, or the numbers of its only row, layer by layer.
PassCounts = Tensor | list[int]


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
        self._waiting: dict[Phase, list[tuple[PassCounts, Tensor | None]]] = {p: [] for p in Phase}
        self.forward_passes = 0

    def add(self, phase: Phase, raw_counts: PassCounts, kept_rows: Tensor | None) -> None:
        """Count one forward pass. kept_rows: (row,) int64 of 0 and 1, or None for all rows."""
        self.forward_passes += 1
        waiting = self._waiting[phase]
        waiting.append((raw_counts, kept_rows))
        if len(waiting) == _PASSES_AT_ONCE:
            self._fold(phase)

    def _fold(self, phase: Phase) -> None:
        waiting = self._waiting[phase]
        if not waiting:
            return
        raw = _joined([counts for counts, _ in waiting])
        added = torch.zeros(self._shape, dtype=torch.int64, device=raw.device)
        added[phase].scatter_add_(1, raw, _kept(waiting, raw).expand_as(raw))
        # Never in place: a tensor made under inference mode may not be changed outside it.
        former = self._histogram
        self._histogram = added if former is None else former.to(raw.device) + added
        waiting.clear()

    def summary(self, parameters: RuleParameters, top_k: int) -> dict[str, Any]:
        """Statistics of all passes, and of prefill and decode apart, by name.

        parameters, top_k: the rule's, which say what became of a raw count.
        """
        for phase in Phase:
            self._fold(phase)
        if self._histogram is None:
            histogram = np.zeros(self._shape, np.int64)
        else:
            histogram = self._histogram.cpu().numpy()
        used = np.array(parameters.used_counts(histogram.shape[-1] - 1, top_k))
        return {
            **_describe(histogram.sum(0), used),
            "prefill": _describe(histogram[Phase.PREFILL], used),
            "decode": _describe(histogram[Phase.DECODE], used),
        }


def _joined(passes: list[PassCounts]) -> Tensor:
    """The counts of many passes, (layer, row), on the device of the last."""
    rows = [counts for counts in passes if isinstance(counts, list)]
    if len(rows) == len(passes):
        return torch.tensor(rows, dtype=torch.int64, device=_CPU).T
    tensors = [_as_tensor(counts) for counts in passes]
    return torch.cat([counts.to(tensors[-1].device) for counts in tensors], dim=1)


def _kept(waiting: list[tuple[PassCounts, Tensor | None]], raw: Tensor) -> Tensor:
    """Which rows of `raw` count, (row,) int64 of 0 and 1."""
    if all(rows is None for _, rows in waiting):
        return torch.ones_like(raw[0])
    # A mask lies where the tokens do, which need not be where the counts are gathered.
    kept = [
        torch.ones_like(_as_tensor(counts)[0]) if rows is None else rows for counts, rows in waiting
    ]
    return torch.cat([rows.to(raw.device) for rows in kept])


def _as_tensor(counts: PassCounts) -> Tensor:
    if isinstance(counts, Tensor):
        return counts
    return torch.tensor(counts, dtype=torch.int64, device=_CPU)[:, None]


def _describe(pairs: np.ndarray, used: np.ndarray) -> dict[str, Any]:
    """Statistics over (token, layer) pairs by name.

    pairs: (layer, raw count) int64, how many had it. used: (raw count,) int64, what became of it.
    """
    # As if there were one token for each raw count, in every layer as often as it was seen there.
    times = pairs.T
    counts = np.broadcast_to(used[:, None], times.shape)
    raw_counts = np.broadcast_to(np.arange(len(used))[:, None], times.shape)
    found = count_statistics(counts, raw_counts, times)
    return {
        "tokens": found.tokens,
        "mean": found.mean,
        "std": found.std,
        "per_layer_mean": list(found.per_layer_mean),
        "histogram": list(found.histogram),
        "share_empty": int(times[0].sum()) / int(times.sum()) if found.tokens else None,
        "share_clamped_min": found.share_clamped_min,
        "share_clamped_max": found.share_clamped_max,
    }


class ForwardPass:
    """The counts of one forward pass, layer by layer, kept where the layers lie.

    layers: raw counts of each layer, (row,) int64 or the number of a single row; None before the
    layer has run. Filled by the routers.
    """

    def __init__(self, layers: int) -> None:
        self.layers: list[Tensor | int | None] = [None] * layers
        self._phase = Phase.PREFILL
        self._kept_rows: Tensor | None = None
        self._counts: PassCounts | None = None

    @property
    def raw_counts(self) -> Tensor | None:
        """Raw counts of the pass that ended last, (layer, row) int64; None during a pass."""
        return None if self._counts is None else _as_tensor(self._counts)

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Start a pass of the decoder, called with `args` and `kwargs`."""
        self.layers[:] = [None] * len(self.layers)
        self._counts = None
        tokens: Any = kwargs.get("input_ids", args[0] if args else None)
        if tokens is None:
            tokens = kwargs["inputs_embeds"]
        length = tokens.shape[1]
        self._phase = Phase.DECODE if length == 1 else Phase.PREFILL
        mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        self._kept_rows = None
        # Other masks than (batch, position) hide pairs of positions, not positions.
        if isinstance(mask, Tensor) and mask.ndim == 2:
            self._kept_rows = (mask[:, -length:] != 0).reshape(-1).long()

    def end(self) -> tuple[Phase, PassCounts, Tensor | None]:
        """Phase, raw counts and kept rows of the pass that ends."""
        numbers = [counts for counts in self.layers if isinstance(counts, int)]
        # Numbers stay numbers: a tensor for each token would cost more than the counting.
        self._counts = numbers if len(numbers) == len(self.layers) else _gathered(self.layers)
        return self._phase, self._counts, self._kept_rows

    def of_one_token(self, raw_counts: np.ndarray) -> tuple[Phase, PassCounts, Tensor | None]:
        """The same of a pass that read one token elsewhere. raw_counts: (1, layer) uint8."""
        self._phase, self._kept_rows = Phase.DECODE, None
        self._counts = raw_counts[0].tolist()
        return self._phase, self._counts, self._kept_rows


def _gathered(layers: list[Tensor | int | None]) -> Tensor:
    """Counts of all layers as one tensor, (layer, row), with one transfer a device at most.

    It lies on the processor if a layer does, or else on the first layer's device.
    """
    layers_of: dict[torch.device, list[int]] = {}
    for layer, counts in enumerate(layers):
        device = counts.device if isinstance(counts, Tensor) else _CPU
        layers_of.setdefault(device, []).append(layer)
    if len(layers_of) == 1:
        return _stacked(layers)
    home = _CPU if _CPU in layers_of else next(iter(layers_of))
    rows: dict[int, Tensor] = {}
    for numbers in layers_of.values():
        moved = _stacked([layers[n] for n in numbers]).to(home)
        rows.update(zip(numbers, moved.unbind(0), strict=True))
    return torch.stack([rows[layer] for layer in range(len(layers))])


def _stacked(layers: list[Tensor | int | None]) -> Tensor:
    """The same of layers that lie on one device."""
    if isinstance(layers[0], int):
        return torch.tensor(layers, device=_CPU)[:, None]
    return torch.stack([counts for counts in layers if isinstance(counts, Tensor)])
