"""What scores look like when there is nothing to find: distributions that give p-values.

H0 for an expert and a token: "its score is one of those that the null describes". Knows recorded
router logits and scores, no model and no rule.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bh_studio.engine.routing.fdr import empirical_p_values, normal_p_values
from bh_studio.engine.routing.layer_tensors import LayerTensors
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.scores import Scorer
from bh_studio.engine.rules.parameters import NullName

# The middle half of the scores, in bins fine enough to show a curve and coarse enough to hold many.
_MATCHED_QUANTILES = (0.25, 0.75)
_MATCHED_BINS = 40
# The MAD of a normal distribution is its standard deviation times this.
_MAD_OF_NORMAL = 0.6744897501960817


class NullError(ValueError):
    """A null cannot be fitted on this recording; the message says why."""


class NullModel(ABC):
    """p-values of the scores of a layer.

    samples: scores behind the p-values of one layer, so that none is below 1 / (samples + 1); None
    where a formula gives them. is_common: whether all experts of a token are compared with the same
    distribution, so that p falls as the score rises.
    """

    samples: int | None = None
    is_common = True

    @abstractmethod
    def p_values(self, layer: int, scores: Tensor) -> Tensor:
        """(token, expert) float64 from scores of that shape, on their device."""


class EmpiricalNull(NullModel):
    """The share of recorded scores at least as large; see fdr.empirical_p_values.

    sorted_scores: (layer, n) float32, ascending.
    """

    def __init__(self, sorted_scores: Tensor) -> None:
        self.sorted_scores = sorted_scores
        self.samples = sorted_scores.shape[1]
        self._placed = LayerTensors(sorted_scores)

    def p_values(self, layer: int, scores: Tensor) -> Tensor:
        return empirical_p_values(scores, self._placed.on(scores.device, layer))


class PerExpertNull(NullModel):
    """For each expert its own scores where the router discarded it.

    An expert that is often discarded with high scores must do more to be selected. The p-values of
    a token then come in another order than its scores.

    sorted_scores: (layer, expert, n) float32, ascending, filled up with -inf in front.
    sizes: (layer, expert) int64, how many are not filling.
    """

    is_common = False

    def __init__(self, sorted_scores: Tensor, sizes: Tensor) -> None:
        self.sorted_scores = sorted_scores
        self.sizes = sizes
        self.samples = int(sizes.min())
        self._placed = LayerTensors(sorted_scores)
        self._placed_sizes = LayerTensors(sizes)

    def p_values(self, layer: int, scores: Tensor) -> Tensor:
        null = self._placed.on(scores.device, layer)
        below = torch.searchsorted(null, scores.T.contiguous())
        sizes = self._placed_sizes.on(scores.device, layer)
        # The filling does not count, not even for the -inf of an expert that is no candidate.
        at_least = (null.shape[1] - below).T.minimum(sizes)
        p_values = (1 + at_least).double() / (sizes + 1)
        return p_values.masked_fill(scores.isnan(), torch.nan)


class GaussianNull(NullModel):
    """Efron's empirical null: the normal distribution that fits the middle of all scores.

    After central matching (Efron 2004, J. Am. Stat. Assoc. 99, 96-104; 2007, Ann. Stat. 35,
    1351-1377): the logarithm of a histogram of the scores' middle half, kept and discarded alike,
    is fitted by a parabola, which is the log density of a normal distribution. The middle half in
    place of a smoothed density around the mode is this program's simplification. On logits as they
    are, on the log of other scores. Its tail is extrapolated: a p-value below about 1e-3 is an
    assumption, not a count.

    means, stds: (layer,).
    """

    def __init__(self, scorer: Scorer, means: list[float], stds: list[float]) -> None:
        self._scorer = scorer
        self.means = means
        self.stds = stds

    def p_values(self, layer: int, scores: Tensor) -> Tensor:
        values = self._scorer.on_open_scale(scores).double()
        return normal_p_values((values - self.means[layer]) / self.stds[layer])


class RobustNull(NullModel):
    """A normal distribution from the token's own scores: their median, and MAD / 0.6745 for the
    standard deviation. Needs no calibration; a token in which many experts matter hides them.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def p_values(self, layer: int, scores: Tensor) -> Tensor:
        values = self._scorer.on_open_scale(scores).double()
        centre = _median(values)
        spread = _median((values - centre).abs()) / _MAD_OF_NORMAL
        return normal_p_values((values - centre) / spread.clamp(min=1e-12))


class SoftmaxNull(NullModel):
    """p = 1 - probability, as in the earlier scripts of this idea; kept to reproduce them.

    No p-value. Under BH it is top-1 by construction: rank k >= 2 has P_(k) <= 1/k, so it would need
    alpha >= 64 (k - 1) / k^2, which is at least 63/64 for every k.
    """

    def p_values(self, layer: int, scores: Tensor) -> Tensor:
        return 1 - scores.double()


def null_model(name: NullName, recording: Recording, scorer: Scorer) -> NullModel:
    """The null `name` of `scorer`'s scores, fitted on the recorded router logits.

    scorer: with the factors of `recording`, if it has any.

    Raises NullError where the recording does not allow a fit.
    """
    return recording.derived(
        (name, scorer.name, scorer.temperature), lambda: _FITS[name](recording, scorer)
    )


def _discarded(recording: Recording, scorer: Scorer) -> NullModel:
    """Per layer, the scores that the model's own top-k discards."""
    return EmpiricalNull(ascending(_discarded_scores(recording, scorer)))


def _pooled(recording: Recording, scorer: Scorer) -> NullModel:
    """The discarded scores of all layers together: one null, so one scale for all layers."""
    pool = ascending(_discarded_scores(recording, scorer).flatten())
    return EmpiricalNull(pool.expand(recording.layers, -1))


def _all(recording: Recording, scorer: Scorer) -> NullModel:
    """Per layer, all scores, kept and discarded: p is uniform by construction, so that a share of
    about 1 - alpha of the tokens has no discovery whatever the router does."""
    return EmpiricalNull(ascending(scorer.of_all_layers(recording.logits).flatten(1)))


def _per_expert(recording: Recording, scorer: Scorer) -> NullModel:
    scores = scorer.of_all_layers(recording.logits)
    is_discarded = discarded(recording.logits, recording.origin.top_k)
    scores = ascending(scores.masked_fill(~is_discarded, -torch.inf).transpose(1, 2))
    sizes = (scores > -torch.inf).sum(-1)
    if int(sizes.min()) == 0:
        layer, expert = (sizes == 0).nonzero()[0].tolist()
        raise NullError(
            f"The router never discarded expert {expert} of layer {layer} on the calibration text, "
            "so it has no null of its own. Calibrate on a longer text, or use another null."
        )
    return PerExpertNull(scores, sizes)


def _gaussian(recording: Recording, scorer: Scorer) -> NullModel:
    values = scorer.on_open_scale(scorer.of_all_layers(recording.logits)).flatten(1).numpy()
    means, stds = [], []
    for layer, of_layer in enumerate(values):
        try:
            mean, std = central_matching(of_layer)
        except NullError as error:
            raise NullError(f"Layer {layer}: {error}") from error
        means.append(mean)
        stds.append(std)
    return GaussianNull(scorer, means, stds)


def _robust(_recording: Recording, scorer: Scorer) -> NullModel:
    return RobustNull(scorer)


def _softmax(_recording: Recording, _scorer: Scorer) -> NullModel:
    return SoftmaxNull()


_FITS: dict[NullName, Callable[[Recording, Scorer], NullModel]] = {
    NullName.DISCARDED: _discarded,
    NullName.POOLED: _pooled,
    NullName.ALL: _all,
    NullName.PER_EXPERT: _per_expert,
    NullName.GAUSSIAN: _gaussian,
    NullName.ROBUST: _robust,
    NullName.SOFTMAX: _softmax,
}


def central_matching(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the normal distribution that fits the middle of `values`.

    values: (n,). Raises NullError if their histogram has no peak in the middle.
    """
    low, high = np.quantile(values, _MATCHED_QUANTILES)
    counts, edges = np.histogram(values, bins=_MATCHED_BINS, range=(low, high))
    filled = counts > 0
    centres = ((edges[:-1] + edges[1:]) / 2)[filled]
    if len(centres) < 3:
        raise NullError("The Gaussian null needs more scores than this text gives.")
    # The variance of the log of a count is about 1 / count.
    a, b, _ = np.polyfit(centres, np.log(counts[filled]), 2, w=np.sqrt(counts[filled]))
    if a >= 0:
        raise NullError(
            "The scores have no peak in their middle, so no Gaussian null fits them. Use another "
            "null."
        )
    return float(-b / (2 * a)), float((-1 / (2 * a)) ** 0.5)


def discarded(logits: Tensor, top_k: int) -> Tensor:
    """Whether the model's own top-k discards each expert: (..., expert) bool for such logits."""
    kept = logits.topk(top_k, dim=-1).indices
    return torch.ones_like(logits, dtype=torch.bool).scatter_(-1, kept, False)


def ascending(values: Tensor) -> Tensor:
    """The rows of `values` on the processor, sorted."""
    # NumPy sorts many times as fast as torch, which keeps account of where each value was.
    return torch.from_numpy(np.sort(values.contiguous().numpy(), axis=-1))


def _discarded_scores(recording: Recording, scorer: Scorer) -> Tensor:
    """Scores of the experts that top-k discards, (layer, n)."""
    scores = scorer.of_all_layers(recording.logits).numpy()
    is_discarded = discarded(recording.logits, recording.origin.top_k).numpy()
    return torch.from_numpy(scores[is_discarded]).view(recording.layers, -1)


def _median(values: Tensor) -> Tensor:
    # torch.median of an even number of values is the lower of the two in the middle, and
    # torch.quantile refuses no rows as well as very many.
    ordered = values.sort(dim=-1).values
    m = values.shape[-1]
    # Slices, for a list of places would be sent to the device, which a CUDA graph cannot hold.
    lower, upper = (m - 1) // 2, m // 2
    return (ordered[..., lower : lower + 1] + ordered[..., upper : upper + 1]) / 2
