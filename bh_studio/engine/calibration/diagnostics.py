"""How well a null describes scores it has not seen, layer by layer.

The null is fitted on the first half of the recorded tokens and judged on the second: p-values of
scores that the null is about should there be uniform. Knows recorded router logits, no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bh_studio.engine.records.diagnostics import (
    ABOUT_DISCARDED,
    BINS,
    QUANTILES,
    TAIL_QUANTILES,
    LayerDiagnostics,
    NullDiagnostics,
    NullFit,
)
from bh_studio.engine.routing.counters import CounterContext, step_up_terms
from bh_studio.engine.routing.fdr import step_up_line, storey_pi0
from bh_studio.engine.routing.nulls import (
    EmpiricalNull,
    NullModel,
    PerExpertNull,
    ascending,
    discarded,
    null_model,
)
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.scores import Scorer
from bh_studio.engine.routing.selection import RoutingRule
from bh_studio.engine.rules.parameters import (
    NullName,
    RouterShape,
    RuleName,
    RuleParameters,
    ScoreName,
)


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
    scorer = Scorer(score, factors=recording.factors)
    halves = _Halves(recording, null, scorer)
    whole = null_model(null, recording, scorer)
    return NullDiagnostics(
        null=null,
        score=score,
        alpha=alpha,
        needed_p=alpha / recording.logits.shape[2],
        fitted_tokens=halves.fitted_tokens,
        held_out_tokens=halves.held_out_tokens,
        layers=tuple(
            _layer(found, _samples(whole, layer), alpha)
            for layer, found in enumerate(halves.p_values())
        ),
        warnings=_warnings(recording, parameters),
    )


def null_fit(rule: RoutingRule) -> NullFit:
    """How well the null of `rule` fits, which tests with it: `diagnose` of its null, its score, its
    temperature and its level in each layer.

    Raises ValueError for a rule that tests nothing or whose null was recorded from one token,
    NullError where the null cannot be fitted on half of the recording.
    """
    context = rule.context
    null, recording = context.tested()
    halves = _Halves(recording, rule.parameters.null, context.scorer)
    layers, quantiles, scores = [], [], 0
    for layer, found in enumerate(halves.p_values()):
        layers.append(_layer(found, _samples(null, layer), context.levels[layer]))
        quantiles.append(_tail_quantiles(found.of_null) + layers[-1].null_quantiles)
        scores = len(found.of_null)
    return NullFit(
        rule=rule.parameters,
        fitted_tokens=halves.fitted_tokens,
        held_out_tokens=halves.held_out_tokens,
        held_out_scores=scores,
        levels=context.levels,
        needed_p=_needed(context),
        layers=tuple(layers),
        quantiles=np.array(quantiles),
    )


class _PValues(NamedTuple):
    """of_null: (n,) ascending, of held-out null scores. of_all: of all scores, of any shape."""

    of_null: np.ndarray
    of_all: Tensor


class _Halves:
    """A null that is fitted on the first half of a recording, and the other half."""

    def __init__(self, recording: Recording, null: NullName, scorer: Scorer) -> None:
        tokens = recording.logits.shape[1]
        if tokens < 2:
            raise ValueError(
                "The null was recorded from a single token; it cannot be halved. Calibrate on a "
                "longer text."
            )
        first = _part(recording, slice(None, tokens // 2))
        self._second = _part(recording, slice(tokens // 2, None))
        self._about_discarded = null in ABOUT_DISCARDED
        self._scorer = scorer
        self._fitted = null_model(null, first, scorer)
        self.fitted_tokens = first.origin.tokens
        self.held_out_tokens = self._second.origin.tokens

    def p_values(self) -> Iterator[_PValues]:
        """Of the held-out tokens, layer after layer."""
        for layer, logits in enumerate(self._second.logits):
            scores = self._scorer(layer, logits)
            is_null = torch.ones_like(logits, dtype=torch.bool)
            if self._about_discarded:
                is_null = discarded(logits, self._second.origin.top_k)
            if isinstance(self._fitted, EmpiricalNull):
                # One score at a time is compared, and a sorted one is found several times as fast.
                of_null, others = (
                    self._fitted.p_values(layer, ascending(scores[mask])).flip(0)
                    for mask in (is_null, ~is_null)
                )
                yield _PValues(of_null.numpy(), torch.cat([of_null, others]))
            else:
                p_values = self._fitted.p_values(layer, scores)
                yield _PValues(ascending(p_values[is_null]).numpy(), p_values)


def _part(recording: Recording, tokens: slice) -> Recording:
    logits = recording.logits[:, tokens].contiguous()
    origin = replace(recording.origin, tokens=logits.shape[1])
    return Recording(logits, origin, recording.factors)


def _samples(null: NullModel, layer: int) -> int | None:
    return int(null.sizes[layer].min()) if isinstance(null, PerExpertNull) else null.samples


def _layer(found: _PValues, samples: int | None, alpha: float) -> LayerDiagnostics:
    ordered = found.of_null
    return LayerDiagnostics(
        samples=samples,
        smallest_p=None if samples is None else 1 / (samples + 1),
        null_histogram=_histogram(ordered),
        null_quantiles=tuple(_quantiles(ordered, QUANTILES).tolist()),
        ks_distance=ks_distance(ordered),
        null_share_at_alpha=float((ordered <= alpha).mean()),
        all_histogram=_histogram(found.of_all.numpy()),
        pi0=storey_pi0(found.of_all),
    )


def _tail_quantiles(ordered: np.ndarray) -> tuple[float, ...]:
    is_below_all = np.array(TAIL_QUANTILES) * len(ordered) < 1
    return tuple(np.where(is_below_all, np.nan, _quantiles(ordered, TAIL_QUANTILES)).tolist())


def _quantiles(ordered: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """As numpy.quantile has them, which would not know that `ordered` is."""
    last = len(ordered) - 1
    return np.interp(np.multiply(levels, last), np.arange(last + 1), ordered)


def _needed(context: CounterContext) -> tuple[float, ...] | None:
    """The p-value with which a rule selects a single expert, in each layer."""
    if context.parameters.rule is RuleName.HIGHER_CRITICISM:
        return None
    factors, largest = step_up_terms(context)
    return tuple(
        float(step_up_line(level, context.experts, factor, largest)[0])
        for level, factor in zip(context.levels, factors, strict=True)
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
