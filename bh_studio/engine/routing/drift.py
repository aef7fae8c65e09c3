"""Whether a text is like the one that a null was fitted on, by the scores that the router discards.

A null says what scores the router discards on the calibration text. On a text of another kind they
are others, and p-values no longer mean what they say.

**Statistic.** Each discarded score has a place in the null of its layer: the share of the null that
lies below it, mid-ranks. Of every token and layer two numbers are taken: the mean of the places,
and the share of scores among the TAIL highest of the null. With d the means of these numbers over
the n tokens of a text, less what they are on the null (1/2 and TAIL),

    T = d' S^-1 d / (how many numbers)

where S is their covariance over stretches of BLOCK tokens of the calibration text, times BLOCK, so
that it holds what tokens in a row and layers of a token have in common. Half of each covariance
between two numbers is taken away, for a recording has few stretches (as Ledoit & Wolf 2004 shrink).

**Reference.** The recording is cut into FOLDS parts. Of stretches of n tokens of each part T is
found with the null and S of the other parts only. The cube root of such a form is nearly normal
(Wilson & Hilferty 1931), so the limit is what one further stretch stays below with probability
1 - ALPHA: mean + t sd sqrt(1 + 1 / stretches), cubed. A recording has few long stretches, so the
ratio of sd to mean is taken from the longest of which it has STRETCHES.

**Tolerance.** Another text of the same kind differs by more than parts of one text do. The limit of
the distance sqrt(T) is therefore TOLERANCE times what the reference says; see docs/science.md.

Knows recorded router logits, no model and no rule.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple, Self

import numpy as np

from bh_studio.engine.records.decisions.drift import LEAST_TOKENS, TAIL, Drift
from bh_studio.engine.routing.recordings import Recording

ALPHA = 0.01
TOLERANCE = 1.2
BLOCK = 64
FOLDS = 8
STRETCHES = 30
_SHRINKAGE = 0.5
# Of equal width in the logarithm of the score; within one of them places are not told apart.
_BINS = 1024
# The bins lie between these quantiles of the null, the first and last one beyond them too.
_BINNED = (0.0005, 0.9995)
# Tokens from which these are taken; how many scores lie in each bin is counted over all.
_BINNED_TOKENS = 1024
# Stretches overlap, so that where they begin matters less: each begins this part of one later.
_OVERLAP = 8
# Keeps a number that never varies from dividing by zero.
_LEAST_VARIANCE = 1e-9
# A recording in which nothing varies has a limit too, which rounding does not exceed.
_LEAST_LIMIT = 1e-6


class DriftMeter:
    """The null of the discarded probabilities by layer, and how far held-out text is from it.

    Raises ValueError for a recording whose router discards nothing.
    """

    def __init__(self, recording: Recording) -> None:
        logits = recording.logits.numpy()
        layers, self._tokens, experts = logits.shape
        self._discarded = experts - recording.origin.top_k
        self.skipped_positions = recording.origin.skipped_positions
        if self._discarded < 1:
            raise ValueError("This router discards no expert, so that its null has no scores.")
        edges = np.linspace(0, self._tokens, FOLDS + 1).round().astype(int)
        folds = [slice(*ends) for ends in itertools.pairwise(edges)]
        self._layers: list[_LayerNull] = []
        numbers = np.empty((2, layers, self._tokens))
        for layer, of_layer in enumerate(logits):
            scores = _discarded_scores(of_layer, self._discarded)
            bins = _Bins.of(scores)
            places = bins.of_scores(scores)
            counts = np.stack([np.bincount(places[f].ravel(), minlength=_BINS) for f in folds])
            total = counts.sum(0)
            for fold, own in zip(folds, counts, strict=True):
                numbers[:, layer, fold] = _looked_up(_table(total - own), places[fold])
            self._layers.append(_LayerNull(bins, _table(total)))
        rows = _centred(numbers)
        self._folds = [rows[fold] for fold in folds]
        self._limits: dict[int, float] = {}
        self._has_limit = self._tokens >= STRETCHES * BLOCK
        if self._has_limit:
            blocks = [_means(of_fold, BLOCK, BLOCK) for of_fold in self._folds]
            self._inverse = _inverse(blocks)
            self._inverses = [_inverse(blocks[:i] + blocks[i + 1 :]) for i in range(FOLDS)]

    def numbers(self, logits: np.ndarray) -> np.ndarray:
        """Mean place and tail share of each token and layer: (2, layer, token) float64.

        logits: (token, layer, expert) float32.
        """
        found = np.empty((2, len(self._layers), len(logits)))
        for layer, null in enumerate(self._layers):
            scores = _discarded_scores(logits[:, layer], self._discarded)
            found[:, layer] = _looked_up(null.table, null.bins.of_scores(scores))
        return found

    def judge(self, logits: np.ndarray) -> Drift:
        """The drift of a text whose tokens have these router logits.

        logits: (token, layer, expert) float32, of a text that was read from its beginning.
        """
        return self.judge_numbers(self.numbers(logits[self.skipped_positions :]))

    def judge_numbers(self, numbers: np.ndarray) -> Drift:
        """The drift of tokens of which these are the numbers, as `numbers` gives them."""
        tokens = numbers.shape[2]
        places, shares = (
            numbers.mean(-1) if tokens else np.broadcast_to([[0.5], [TAIL]], numbers.shape[:2])
        )
        distance = limit = None
        if tokens >= LEAST_TOKENS and self._has_limit:
            mean = _centred(numbers).mean(0, keepdims=True)
            distance = math.sqrt(_squares(mean, self._inverse)[0])
            limit = self.limit(tokens)
        return Drift(tokens, distance, limit, tuple(shares.tolist()), tuple(places.tolist()))

    def limit(self, tokens: int) -> float:
        """What the distance of a text of so many tokens stays below if it is like the null's.

        A text longer than a part of the recording is held to the limit of such a part, which is
        larger than its own would be.
        """
        tokens = min(tokens, self._tokens // FOLDS)
        if tokens not in self._limits:
            self._limits[tokens] = TOLERANCE * math.sqrt(self._bound(tokens)) + _LEAST_LIMIT
        return self._limits[tokens]

    def reference(self, tokens: int) -> np.ndarray:
        """Squared distances of held-out stretches of so many tokens, (stretch,) float64.

        Of no more than a part of the recording has; they overlap.
        """
        tokens = min(tokens, self._tokens // FOLDS)
        step = max(1, tokens // _OVERLAP)
        return np.concatenate(
            [
                _squares(_means(rows, tokens, step), inverse)
                for rows, inverse in zip(self._folds, self._inverses, strict=True)
            ]
        )

    def _bound(self, tokens: int) -> float:
        roots = np.cbrt(self.reference(tokens))
        long = min(tokens, self._tokens // STRETCHES)
        of_many = roots if long == tokens else np.cbrt(self.reference(long))
        # Where no number ever varies all distances are 0.
        ratio = of_many.std(ddof=1) / max(of_many.mean(), 1e-300)
        quantile = _t_quantile(1 - ALPHA, self._tokens // long - 1)
        further = math.sqrt(1 + tokens / self._tokens)
        return float((roots.mean() * (1 + quantile * ratio * further)) ** 3)


def drift_of(recording: Recording, logits: np.ndarray) -> Drift | None:
    """The drift of a text against `recording`; None where its router discards nothing.

    logits: (token, layer, expert) float32, of the text from its beginning. What is made of the
    recording first, in a fifth of a second for the text that ships, is kept with it.
    """
    if recording.logits.shape[2] == recording.origin.top_k:
        return None
    return recording.derived("drift", lambda: DriftMeter(recording)).judge(logits)


class _Bins(NamedTuple):
    """low: where the first of _BINS bins begins. width: of each."""

    low: float
    width: float

    @classmethod
    def of(cls, scores: np.ndarray) -> Self:
        step = max(1, len(scores) // _BINNED_TOKENS)
        low, high = np.quantile(scores[::step], _BINNED).tolist()
        return cls(low, max((high - low) / _BINS, 1e-6))

    def of_scores(self, scores: np.ndarray) -> np.ndarray:
        """The bin of each score, of their shape, int16."""
        found = (scores - np.float32(self.low)) * np.float32(1 / self.width)
        return found.clip(0, _BINS - 1, out=found).astype(np.int16)


class _LayerNull(NamedTuple):
    bins: _Bins
    table: np.ndarray


def _discarded_scores(logits: np.ndarray, discarded: int) -> np.ndarray:
    """Logarithms of the lowest probabilities of each row, (row, discarded) float32 ascending."""
    ordered = np.sort(logits.astype(np.float32, copy=False), axis=-1)
    highest = ordered[:, -1:]
    total = np.exp(ordered - highest).sum(-1, keepdims=True)
    return ordered[:, :discarded] - (highest + np.log(total))


def _looked_up(table: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Means over the scores of each token of what the two rows of `table` say: (2, token)."""
    return np.stack([row.take(bins).mean(-1, dtype=np.float64) for row in table])


def _table(counts: np.ndarray) -> np.ndarray:
    """Place and share in the tail of a score in each bin of a null: (2, bin) float32.

    Their means over the null itself are 1/2 and TAIL.
    """
    above = counts.cumsum() / counts.sum()
    below = np.concatenate([[0.0], above[:-1]])
    in_bin = np.maximum(above - below, 1e-300)
    tail = np.clip((above - (1 - TAIL)) / in_bin, 0.0, 1.0)
    # A bin that is empty in the null has no part of its tail, but lies in it or does not.
    tail = np.where(counts > 0, tail, below >= 1 - TAIL)
    return np.stack([(above + below) / 2, tail]).astype(np.float32)


def _centred(numbers: np.ndarray) -> np.ndarray:
    """(token, 2 * layer) from (2, layer, token), less what they are on the null."""
    centred = numbers - np.array([0.5, TAIL])[:, None, None]
    return centred.reshape(-1, numbers.shape[2]).T


def _means(rows: np.ndarray, tokens: int, step: int) -> np.ndarray:
    """Means over stretches of rows, each beginning `step` rows after the one before."""
    sums = np.concatenate([np.zeros((1, rows.shape[1])), rows.cumsum(0)])
    starts = np.arange(0, len(rows) - tokens + 1, step)
    return (sums[starts + tokens] - sums[starts]) / tokens


def _inverse(blocks: Sequence[np.ndarray]) -> np.ndarray:
    covariance = np.cov(np.concatenate(blocks), rowvar=False) * BLOCK
    variances = np.diag(covariance) + _LEAST_VARIANCE
    return np.linalg.inv((1 - _SHRINKAGE) * covariance + _SHRINKAGE * np.diag(variances))


def _squares(means: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    return ((means @ inverse) * means).sum(-1) / means.shape[1]


def _t_quantile(level: float, freedom: int) -> float:
    """Quantile of Student's t, to 1e-4 from 29 degrees of freedom on (Fisher & Cornish 1960)."""
    z = NormalDist().inv_cdf(level)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
