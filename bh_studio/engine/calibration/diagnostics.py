"""How well a null describes scores it has not seen, layer by layer.

The null is fitted on the first half of the recorded tokens and judged on the second: p-values of
scores that the null is about should there be uniform. Knows recorded router logits, no model.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from bh_studio.engine.records.diagnostics import (
    ABOUT_DISCARDED,
    BINS,
    QUANTILES,
    LayerDiagnostics,
    NullDiagnostics,
)
from bh_studio.engine.routing.fdr import storey_pi0
from bh_studio.engine.routing.nulls import NullModel, PerExpertNull, null_model
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.scores import Scorer
from bh_studio.engine.routing.selection import RoutingRule
from bh_studio.engine.rules.parameters import NullName, RouterShape, RuleParameters, ScoreName


def diagnose(
    recording: Recording,
    null: NullName = NullName.DISCARDED,
    score: ScoreName = ScoreName.PROBABILITY,
    alpha: float = 0.05,
) -> NullDiagnostics:
    """Diagnostics of the null `null` of the score `score`, both fitted on `recording`.

    The held-out null scores are those of discarded experts for the nulls that describe these
    (discarded, pooled, per-expert), and of all experts for the others: there, an excess near 0 may
    be what the null is meant to find.

    Raises ValueError for an alpha outside (0, 1), a recording of one token, or a score that the
    null cannot be made of; NullError where the null cannot be fitted on half of the recording.
    """
    parameters = RuleParameters(level=alpha, null=null, score=score)
    tokens = recording.logits.shape[1]
    if tokens < 2:
        raise ValueError("The null was recorded from a single token; it cannot be halved.")
    first, second = (
        _part(recording, slice(None, tokens // 2)),
        _part(recording, slice(tokens // 2, None)),
    )
    scorer = Scorer(score, factors=recording.factors)
    fitted = null_model(null, first, scorer)
    whole = null_model(null, recording, scorer)
    return NullDiagnostics(
        null=null,
        score=score,
        alpha=alpha,
        needed_p=alpha / recording.logits.shape[2],
        fitted_tokens=first.origin.tokens,
        held_out_tokens=second.origin.tokens,
        layers=tuple(
            _layer(
                fitted.p_values(layer, scorer(layer, logits)),
                logits,
                recording.origin.top_k,
                _samples(whole, layer),
                parameters,
            )
            for layer, logits in enumerate(second.logits)
        ),
        warnings=_warnings(recording, parameters),
    )


def _part(recording: Recording, tokens: slice) -> Recording:
    logits = recording.logits[:, tokens].contiguous()
    origin = replace(recording.origin, tokens=logits.shape[1])
    return Recording(logits, origin, recording.factors)


def _samples(null: NullModel, layer: int) -> int | None:
    return int(null.sizes[layer].min()) if isinstance(null, PerExpertNull) else null.samples


def _layer(
    p_values: Tensor, logits: Tensor, top_k: int, samples: int | None, parameters: RuleParameters
) -> LayerDiagnostics:
    """p_values, logits: (token, expert) of the held-out half."""
    of_null = p_values
    if parameters.null in ABOUT_DISCARDED:
        order = logits.argsort(dim=-1, descending=True)[:, top_k:]
        of_null = p_values.gather(-1, order)
    ordered = np.sort(of_null.numpy(), axis=None)
    alpha = parameters.levels(1)[0]
    return LayerDiagnostics(
        samples=samples,
        smallest_p=None if samples is None else 1 / (samples + 1),
        null_histogram=_histogram(ordered),
        null_quantiles=tuple(np.quantile(ordered, QUANTILES).tolist()),
        ks_distance=ks_distance(ordered),
        null_share_at_alpha=float((ordered <= alpha).mean()),
        all_histogram=_histogram(p_values.numpy()),
        pi0=storey_pi0(p_values),
    )


def ks_distance(ordered: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance of `ordered`, (n,) ascending, to the uniform distribution."""
    n = len(ordered)
    above = np.arange(1, n + 1) / n - ordered
    below = ordered - np.arange(n) / n
    return float(max(above.max(), below.max()))


def _histogram(p_values: np.ndarray) -> tuple[float, ...]:
    counts, _ = np.histogram(p_values, bins=BINS, range=(0.0, 1.0))
    return tuple((counts / p_values.size).tolist())


def _warnings(recording: Recording, parameters: RuleParameters) -> tuple[str, ...]:
    layers, _, experts = recording.logits.shape
    shape = RouterShape(layers, experts, recording.origin.top_k, norm_topk_prob=False)
    fitting = replace(parameters, max_k=min(parameters.max_k, experts))
    shortage = RoutingRule(fitting, recording, shape).shortage()
    return () if shortage is None else (shortage,)
