"""Sharing a number of experts out over layers so that the sum of their losses is smallest.

Knows curves of loss against mean experts, one a layer, and takes their losses to add up. Knows no
model and no rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Fine enough that the corners of a curve, at which an allocation stops, cost nothing.
_POINTS = 161


class Curve(NamedTuple):
    """What a layer loses at each of some mean experts.

    means: (point,) float64, rising. losses: (point,) float64.
    """

    means: np.ndarray
    losses: np.ndarray

    def loss(self, mean: float) -> float:
        """The loss at `mean`, straight between two points and that of the end beyond them."""
        return float(np.interp(mean, self.means, self.losses))


def curve_through(means: np.ndarray, losses: np.ndarray) -> Curve:
    """A fine curve through measured points, (point,) each, in any order.

    Between two points the square root of the loss is straight: a divergence grows with the square
    of what is left out, so this bends where a few measured points cannot show it. Of points with
    the same mean the best one counts, and a loss below 0, which is rounding, is 0.
    """
    order = np.lexsort((losses, means))
    x, first = np.unique(means[order], return_index=True)
    roots = np.sqrt(np.maximum(losses[order][first], 0.0))
    fine = np.unique(np.concatenate([x, np.linspace(x[0], x[-1], _POINTS)]))
    return Curve(fine, np.interp(fine, x, roots) ** 2)


def lower_hull(curve: Curve) -> Curve:
    """The corners of the largest convex curve that nowhere lies above `curve`."""
    corners: list[tuple[float, float]] = []
    for x, y in zip(*curve, strict=True):
        while len(corners) > 1 and _is_above(corners[-1], corners[-2], (x, y)):
            corners.pop()
        corners.append((x, y))
    means, losses = zip(*corners, strict=True)
    return Curve(np.array(means), np.array(losses))


def allocate(curves: Sequence[Curve], total: float) -> np.ndarray:
    """Mean experts of each layer, (layer,) float64, that sum to `total` and lose the least.

    Each expert goes where it gains most on the convex hulls of the curves. That is exact for them;
    a layer that stops inside a dent of its curve loses more than its hull, but at most one layer
    stops between two corners. A total beyond the curves gives the nearest that they can reach.
    """
    hulls = [lower_hull(curve) for curve in curves]
    means = np.array([hull.means[0] for hull in hulls])
    segments = sorted(
        (slope, layer, length)
        for layer, hull in enumerate(hulls)
        for slope, length in zip(_slopes(hull), np.diff(hull.means), strict=True)
    )
    left = total - means.sum()
    for _, layer, length in segments:
        if left <= 0:
            break
        means[layer] += min(length, left)
        left -= length
    return means


def _slopes(curve: Curve) -> np.ndarray:
    return np.diff(curve.losses) / np.diff(curve.means)


def _is_above(
    middle: tuple[float, float], left: tuple[float, float], right: tuple[float, float]
) -> bool:
    """Whether `middle` lies on or above the line from `left` to `right`."""
    (x, y), (x0, y0), (x1, y1) = middle, left, right
    return (y - y0) * (x1 - x0) >= (y1 - y0) * (x - x0)
