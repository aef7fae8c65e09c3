"""What was found out about a null, layer by layer: pure numbers to show. Knows no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bh_studio.engine.rules.parameters import NullName, RuleParameters, ScoreName

BINS = 20
QUANTILES = tuple(i / 100 for i in range(1, 100))
# Below them in equal ratios, for a single expert of many is selected by a p-value down there.
TAIL_QUANTILES = tuple(10 ** (i / 10) for i in range(-50, -20))
FIT_QUANTILES = TAIL_QUANTILES + QUANTILES
# These describe the experts that the router discards; the others all experts of a token.
ABOUT_DISCARDED = (NullName.DISCARDED, NullName.POOLED, NullName.PER_EXPERT)


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
        return self.null in ABOUT_DISCARDED

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, with lists for tuples, as JSON has them."""
        return _as_json(asdict(self))


@dataclass(frozen=True, slots=True, eq=False)
class NullFit:
    """How well the null of a rule describes scores that it was not fitted on.

    fitted_tokens, held_out_tokens: as NullDiagnostics has them. held_out_scores: null scores of the
    held-out tokens in a layer, on which its shares and quantiles rest. levels: (layer,) of the
    rule. needed_p: (layer,) the p-value with which the rule selects a single expert; None where it
    compares none with a line. layers: with null_share_at_alpha at the layer's level. quantiles:
    (layer, quantile) float64 of the held-out null scores at FIT_QUANTILES, which they should be;
    nan for those of TAIL_QUANTILES that less than one score is below.
    """

    rule: RuleParameters
    fitted_tokens: int
    held_out_tokens: int
    held_out_scores: int
    levels: tuple[float, ...]
    needed_p: tuple[float, ...] | None
    layers: tuple[LayerDiagnostics, ...]
    quantiles: np.ndarray

    @property
    def is_about_discarded(self) -> bool:
        """Whether the held-out null scores are those of discarded experts, not of all."""
        return self.rule.null in ABOUT_DISCARDED

    @property
    def selects_no_single_expert(self) -> tuple[bool, ...]:
        """(layer,) whether no p-value can be so small that the rule selects an expert by itself."""
        if self.needed_p is None:
            return (False,) * len(self.layers)
        return tuple(
            layer.smallest_p is not None and layer.smallest_p > needed
            for layer, needed in zip(self.layers, self.needed_p, strict=True)
        )


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    return list(map(_as_json, value)) if isinstance(value, tuple) else value
