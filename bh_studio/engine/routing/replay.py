"""Any rule recomputed from recorded router logits: what it would have selected, without a model.

In a model a rule changes the hidden states, and with them the router logits of later layers; here
each layer is judged as it was recorded. So counts are exact for logits that were recorded while the
same rule was active or while nothing was changed, and an approximation otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bh_studio.engine.records.decisions.router_rows import RouterRows
from bh_studio.engine.records.recording import RecordingOrigin
from bh_studio.engine.routing.recordings import Recording, checked_logits
from bh_studio.engine.routing.selection import RoutingRule
from bh_studio.engine.rules.parameters import RouterShape, RuleParameters

_TOKENS_AT_ONCE = 4096
# Every token has a null of its own to be fitted; with more tokens one of them hardly matters.
MAX_LEFT_OUT = 128


@dataclass(frozen=True, slots=True, eq=False)
class ReplayedCounts:
    """What a rule selects, one row a token and one column a layer.

    counts, raw_counts: (token, layer) uint8, after and before the limits. mass, native_mass:
    (token, layer) float32, the probability that the selected experts hold together, and what the
    model's own top-k holds. overlap: (token, layer) float32, Jaccard index of the two sets: shared
    experts over experts in either. shortage: a sentence if the null is too small for the level.
    """

    counts: np.ndarray
    raw_counts: np.ndarray
    mass: np.ndarray
    native_mass: np.ndarray
    overlap: np.ndarray
    shortage: str | None

    @property
    def mean_mass(self) -> float:
        """Mean of `mass` over (token, layer)."""
        return float(self.mass.mean(dtype=np.float64))

    @property
    def mean_native_mass(self) -> float:
        """Mean of `native_mass` over (token, layer)."""
        return float(self.native_mass.mean(dtype=np.float64))


def replay(
    logits: np.ndarray | Tensor,
    parameters: RuleParameters,
    recording: Recording | None,
    top_k: int,
) -> ReplayedCounts:
    """What the rule `parameters` selects for `logits`, (layer, token, expert) of floating dtype.

    recording: what the null is fitted on; None for rules that need none. top_k: experts that the
    model's own router keeps. Mode and mixing weights make no difference to what is selected.

    Raises ValueError for logits of another shape or not finite, a null of another shape, and
    parameters that do not fit; NullError where the null cannot be fitted.
    """
    values = checked_logits(logits)
    shape = _shape(values, top_k)
    if recording is not None:
        check_recording(recording, shape)
    return _replayed(RoutingRule(parameters, recording, shape), values, shape)


def replay_leave_one_out(
    logits: np.ndarray | Tensor, parameters: RuleParameters, top_k: int
) -> ReplayedCounts:
    """The same, with a null for each token that is fitted on all other tokens of `logits`.

    For recordings too small to be halved: no token is judged by its own scores. Takes a fit a
    token, so it raises ValueError for more than MAX_LEFT_OUT tokens, and for fewer than two.
    """
    values = checked_logits(logits)
    shape = _shape(values, top_k)
    tokens = values.shape[1]
    if not 2 <= tokens <= MAX_LEFT_OUT:
        raise ValueError(
            f"Leaving one token out is for 2 to {MAX_LEFT_OUT} tokens; there are {tokens}. "
            "Give a null instead."
        )
    parts = [
        _replayed(RoutingRule(parameters, recording, shape), values[:, token : token + 1], shape)
        for token, recording in enumerate(_recordings_without_each(values, top_k))
    ]
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("counts", "raw_counts", "mass", "native_mass", "overlap")
    }
    return ReplayedCounts(**joined, shortage=parts[0].shortage)


def replayed_counts(
    rule: RoutingRule, rows: RouterRows, positions: int
) -> tuple[np.ndarray, np.ndarray]:
    """What `rule` selects at the first `positions` of `rows`, after and before its limits.

    Both (position, layer) uint8. Raises ValueError for logits that are not finite, and what `rows`
    raises where they cannot be read.
    """
    layers = rows.shape[1]
    counts, raw_counts = np.empty((2, positions, layers), np.uint8)
    for start in range(0, positions, _TOKENS_AT_ONCE):
        block = slice(start, min(start + _TOKENS_AT_ONCE, positions))
        logits = checked_logits(rows.rows(block.start, block.stop).transpose(1, 0, 2).copy())
        for layer, of_layer in enumerate(logits):
            used, raw = rule.counts(layer, of_layer)
            counts[block, layer], raw_counts[block, layer] = used.numpy(), raw.numpy()
    return counts, raw_counts


def _shape(logits: Tensor, top_k: int) -> RouterShape:
    layers, _, experts = logits.shape
    if not 1 <= top_k < experts:
        raise ValueError(f"top_k must lie between 1 and {experts - 1}; got {top_k}.")
    # Whether weights are scaled to sum 1 changes nothing that is replayed.
    return RouterShape(layers, experts, top_k, norm_topk_prob=False)


def check_recording(recording: Recording, shape: RouterShape) -> None:
    """Raise ValueError if `recording` is of other layers or experts than `shape`."""
    layers, _, experts = recording.logits.shape
    if (layers, experts, recording.origin.top_k) != (shape.layers, shape.experts, shape.top_k):
        raise ValueError(
            f"The null has {layers} layers of {experts} experts, top {recording.origin.top_k}; the "
            f"router logits have {shape.layers} of {shape.experts}, top {shape.top_k}."
        )


def _recordings_without_each(logits: Tensor, top_k: int) -> Iterator[Recording]:
    tokens = logits.shape[1]
    origin = RecordingOrigin(
        model_fingerprint="",
        text_sha256="",
        tokens=tokens - 1,
        skipped_positions=0,
        window=tokens,
        top_k=top_k,
    )
    for token in range(tokens):
        others = torch.cat([logits[:, :token], logits[:, token + 1 :]], dim=1)
        yield Recording(others, origin)


def _replayed(rule: RoutingRule, logits: Tensor, shape: RouterShape) -> ReplayedCounts:
    layers, tokens, _ = logits.shape
    arrays: list[np.ndarray] = [
        np.empty((tokens, layers), dtype)
        for dtype in (np.uint8, np.uint8, np.float32, np.float32, np.float32)
    ]
    for layer in range(layers):
        for start in range(0, tokens, _TOKENS_AT_ONCE):
            rows = slice(start, start + _TOKENS_AT_ONCE)
            columns = _selected(rule, layer, logits[layer, rows], shape.top_k)
            for array, column in zip(arrays, columns, strict=True):
                array[rows, layer] = column.numpy()
    counts, raw_counts, mass, native_mass, overlap = arrays
    return ReplayedCounts(counts, raw_counts, mass, native_mass, overlap, rule.shortage())


def _selected(rule: RoutingRule, layer: int, logits: Tensor, top_k: int) -> tuple[Tensor, ...]:
    """Columns of ReplayedCounts for (token, expert) logits of `layer`, (token,) each."""
    selection = rule.select(layer, logits)
    probabilities = logits.softmax(-1, torch.float32)
    used = torch.arange(selection.indices.shape[1]) < selection.counts[:, None]
    mass = (probabilities.gather(-1, selection.indices) * used).sum(-1)
    native = probabilities.topk(top_k)
    nothing = torch.zeros(logits.shape, dtype=torch.bool)
    is_selected = nothing.scatter(-1, selection.indices, used)
    is_native = nothing.scatter(
        -1, native.indices, torch.ones(native.indices.shape, dtype=torch.bool)
    )
    shared = (is_selected & is_native).sum(-1)
    either = (is_selected | is_native).sum(-1)
    return selection.counts, selection.raw_counts, mass, native.values.sum(-1), shared / either
