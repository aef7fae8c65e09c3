"""Allocation over layers against brute force and linear programming, on all kinds of curves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from bh_studio.engine.experiments.budget.allocation import (
    Curve,
    allocate,
    curve_through,
    lower_hull,
)

seeds = st.integers(0, 10**6)


def random_curves(seed: int, *, convex: bool, layers: int = 3, points: int = 5) -> list[Curve]:
    """Falling curves at the means 1, 2, ..."""
    generator = np.random.default_rng(seed)
    curves = []
    for _ in range(layers):
        falls = generator.exponential(size=points - 1)
        if convex:
            falls = np.sort(falls)[::-1]
        losses = np.concatenate([[0.0], np.cumsum(falls[::-1])])[::-1]
        curves.append(Curve(np.arange(1.0, points + 1), losses))
    return curves


def loss(curves: list[Curve], means: np.ndarray) -> float:
    return sum(curve.loss(mean) for curve, mean in zip(curves, means, strict=True))


def best_of_all(curves: list[Curve], total: float) -> float:
    """The least loss over all choices of one point a layer that keep to `total`."""
    choices = itertools.product(*(range(len(curve.means)) for curve in curves))
    return min(
        sum(curve.losses[i] for curve, i in zip(curves, choice, strict=True))
        for choice in choices
        if sum(curve.means[i] for curve, i in zip(curves, choice, strict=True)) <= total
    )


def best_mixture(curves: list[Curve], total: float) -> float:
    """The least loss of mixtures of points, layer by layer, that use `total`: a linear program."""
    sizes = [len(curve.means) for curve in curves]
    one_each = np.zeros((len(curves), sum(sizes)))
    for layer, end in enumerate(np.cumsum(sizes)):
        one_each[layer, end - sizes[layer] : end] = 1
    means = np.concatenate([curve.means for curve in curves])
    losses = np.concatenate([curve.losses for curve in curves])
    bounds = np.append(np.ones(len(curves)), total)
    return float(linprog(losses, A_eq=np.vstack([one_each, means]), b_eq=bounds).fun)


@given(seeds, st.integers(3, 15))
def test_convex_curves_lose_as_little_as_the_best_choice_of_all(seed: int, total: int) -> None:
    curves = random_curves(seed, convex=True)
    means = allocate(curves, total)
    assert means.sum() == pytest.approx(total)
    assert loss(curves, means) == pytest.approx(best_of_all(curves, total), abs=1e-12)


@given(seeds, st.floats(3, 15))
def test_any_curves_reach_the_best_mixture_on_their_hulls(seed: int, total: float) -> None:
    curves = random_curves(seed, convex=False)
    means = allocate(curves, total)
    assert means.sum() == pytest.approx(total)
    hulls = [lower_hull(curve) for curve in curves]
    assert loss(hulls, means) == pytest.approx(best_mixture(curves, total), abs=1e-6)
    # At most one layer stops where its curve lies above its hull.
    above = [c.loss(m) - h.loss(m) for c, h, m in zip(curves, hulls, means, strict=True)]
    assert sum(gap > 1e-9 for gap in above) <= 1
    assert loss(hulls, means) <= best_of_all(curves, total) + 1e-9


def test_the_hull_leaves_dents_out() -> None:
    hull = lower_hull(Curve(np.arange(5.0), np.array([8.0, 7.0, 2.0, 1.5, 0.0])))
    assert hull.means.tolist() == [0, 2, 4]
    assert hull.losses.tolist() == [8, 2, 0]


@pytest.mark.parametrize(("total", "expected"), [(1.0, [1.0, 1.0]), (99.0, [5.0, 5.0])])
def test_a_total_beyond_the_curves_gives_their_ends(total: float, expected: list[float]) -> None:
    curves = random_curves(0, convex=True, layers=2)
    assert allocate(curves, total).tolist() == expected


def test_a_loss_that_rises_again_is_taken_only_when_it_must_be() -> None:
    bowl = Curve(np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.0, 1.0]))
    flat = Curve(np.array([1.0, 2.0, 3.0]), np.array([0.2, 0.1, 0.1]))
    assert allocate([bowl, flat], 5.0).tolist() == [2.0, 3.0]
    assert allocate([bowl, flat], 5.5).tolist() == [2.5, 3.0]


def test_a_layer_with_a_single_point_keeps_it() -> None:
    single = curve_through(np.array([2.0, 2.0]), np.array([0.5, 0.3]))
    other = random_curves(1, convex=True)[0]
    assert single.losses.tolist() == pytest.approx([0.3])
    assert allocate([single, other], 5.0).tolist() == [2.0, 3.0]


def test_a_curve_goes_through_its_points_and_is_exact_where_loss_is_a_square() -> None:
    means = np.array([7.0, 1.0, 5.5, 3.0])
    curve = curve_through(means, (8 - means) ** 2)
    assert curve.means.tolist() == sorted(curve.means)
    assert [curve.loss(m) for m in means] == pytest.approx((8 - means) ** 2)
    assert curve.loss(4.25) == pytest.approx(3.75**2, rel=1e-3)
    assert curve_through(means, np.full(4, -1e-9)).losses.max() == 0
