"""How well a null describes scores it has not seen, layer by layer: pure numbers to show.

The null is fitted on the first half of the recorded tokens and judged on the second: p-values of
scores that the null is about should there be uniform. Knows recorded router logits, no model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from bh_studio.engine.fdr import storey_pi0
from bh_studio.engine.null_models import NullModel, PerExpertNull, null_model
from bh_studio.engine.nulls import RouterNull
from bh_studio.engine.routers import RouterShape
from bh_studio.engine.rule_parameters import NullName, RuleParameters, ScoreName
from bh_studio.engine.rules import RoutingRule
from bh_studio.engine.scores import Scorer

BINS = 20
QUANTILES = tuple(i / 100 for i in range(1, 100))
# These describe the experts that the router discards; the others all experts of a token.
_ABOUT_DISCARDED = (NullName.DISCARDED, NullName.POOLED, NullName.PER_EXPERT)


@dataclass(frozen=True, slots=True)
class LayerDiagnostics:
    """A null in one layer.

    samples, smallest_p: scores behind the p-values when all tokens are used, of the expert with the
        fewest if each has its own, and 1 / (samples + 1); None where a formula gives the p-values.
    null_histogram: (20,) shares of held-out null scores with a p-value in each twentieth of 0 to 1;
        0.05 each if they are uniform.
    null_quantiles: (99,) their 1 %, 2 %, ... 99 % quantiles, which should be 0.01, 0.02, ... 0.99.
    ks_distance: the largest distance between their distribution function and the uniform one, 0 to
        1. A distance only: the scores of a token depend on each other, so no p-value goes with it.
    null_share_at_alpha: share of them at or below alpha, which should be alpha.
    all_histogram: (20,) the same as null_histogram for all experts of the held-out tokens.
    pi0: estimated share of true nulls among all experts, see fdr.storey_pi0.
    """

    samples: int | None
    smallest_p: float | None
    null_histogram: tuple[float, ...]
    null_quantiles: tuple[float, ...]
    ks_distance: float
    null_share_at_alpha: float
    all_histogram: tuple[float, ...]
    pi0: float


@dataclass(frozen=True, slots=True)
class NullDiagnostics:
    """A null in all layers.

    fitted_tokens, held_out_tokens: in each layer, of the two halves. alpha: the level asked about.
    needed_p: alpha / experts, the p-value with which BH selects a single expert. warnings:
    sentences about what the null cannot do.
    """

    null: NullName
    score: ScoreName
    alpha: float
    needed_p: float
    fitted_tokens: int
    held_out_tokens: int
    layers: tuple[LayerDiagnostics, ...]
    warnings: tuple[str, ...]

    @property
    def is_about_discarded(self) -> bool:
        """Whether the held-out null scores are those of discarded experts, not of all."""
        return self.null in _ABOUT_DISCARDED

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, with lists for tuples, as JSON has them."""
        return _as_json(asdict(self))


def diagnose(
    record: RouterNull,
    null: NullName = NullName.DISCARDED,
    score: ScoreName = ScoreName.PROBABILITY,
    alpha: float = 0.05,
) -> NullDiagnostics:
    """Diagnostics of the null `null` of the score `score`, both fitted on `record`.

    The held-out null scores are those of discarded experts for the nulls that describe these
    (discarded, pooled, per-expert), and of all experts for the others: there, an excess near 0 may
    be what the null is meant to find.

    Raises ValueError for an alpha outside (0, 1), a recording of one token, or a score that the
    null cannot be made of; NullError where the null cannot be fitted on half of the recording.
    """
    parameters = RuleParameters(level=alpha, null=null, score=score)
    tokens = record.logits.shape[1]
    if tokens < 2:
        raise ValueError("The null was recorded from a single token; it cannot be halved.")
    first, second = _part(record, slice(None, tokens // 2)), _part(record, slice(tokens // 2, None))
    scorer = Scorer(score, factors=record.factors)
    fitted = null_model(null, first, scorer)
    whole = null_model(null, record, scorer)
    return NullDiagnostics(
        null=null,
        score=score,
        alpha=alpha,
        needed_p=alpha / record.logits.shape[2],
        fitted_tokens=first.origin.tokens,
        held_out_tokens=second.origin.tokens,
        layers=tuple(
            _layer(
                fitted.p_values(layer, scorer(layer, logits)),
                logits,
                record.origin.top_k,
                _samples(whole, layer),
                parameters,
            )
            for layer, logits in enumerate(second.logits)
        ),
        warnings=_warnings(record, parameters),
    )


def _part(record: RouterNull, tokens: slice) -> RouterNull:
    logits = record.logits[:, tokens].contiguous()
    origin = replace(record.origin, tokens=logits.shape[1])
    return RouterNull(logits, origin, record.factors)


def _samples(null: NullModel, layer: int) -> int | None:
    return int(null.sizes[layer].min()) if isinstance(null, PerExpertNull) else null.samples


def _layer(
    p_values: Tensor, logits: Tensor, top_k: int, samples: int | None, parameters: RuleParameters
) -> LayerDiagnostics:
    """p_values, logits: (token, expert) of the held-out half."""
    of_null = p_values
    if parameters.null in _ABOUT_DISCARDED:
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


def _warnings(record: RouterNull, parameters: RuleParameters) -> tuple[str, ...]:
    layers, _, experts = record.logits.shape
    shape = RouterShape(layers, experts, record.origin.top_k, norm_topk_prob=False)
    fitting = replace(parameters, max_k=min(parameters.max_k, experts))
    shortage = RoutingRule(fitting, record, shape).shortage()
    return () if shortage is None else (shortage,)


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    return list(map(_as_json, value)) if isinstance(value, tuple) else value
