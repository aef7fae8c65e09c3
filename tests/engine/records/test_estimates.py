"""Intervals against scipy, and what pairing does."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import bootstrap

from bh_studio.engine.records.estimates import PairedBootstrap


def blocks(count: int = 80, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    tokens = generator.integers(200, 500, count)
    return tokens, generator.normal(3.0, 0.4, count) * tokens


def test_the_interval_is_scipys_for_a_ratio_of_sums() -> None:
    tokens, sums = blocks()
    estimate = PairedBootstrap(tokens, resamples=20_000).mean(sums)
    expected = bootstrap(
        (sums, tokens),
        lambda s, t, axis: s.sum(axis) / t.sum(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert estimate.value == pytest.approx(sums.sum() / tokens.sum())
    width = expected.high - expected.low
    assert estimate.low == pytest.approx(expected.low, abs=0.03 * width)
    assert estimate.high == pytest.approx(expected.high, abs=0.03 * width)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(300):
        tokens, sums = blocks(seed=seed)
        estimate = PairedBootstrap(tokens, resamples=500, seed=seed).mean(sums)
        hits += estimate.low <= 3.0 <= estimate.high
    # 0.95 less what a percentile interval of 80 blocks lacks, and four standard errors.
    assert 0.89 <= hits / 300 <= 0.99


def test_what_both_sides_share_cancels_in_a_paired_difference() -> None:
    tokens, sums = blocks()
    paired = PairedBootstrap(tokens)
    shift = paired.mean((sums + 0.01 * tokens) - sums)
    assert shift.low == pytest.approx(0.01)
    assert shift.high == pytest.approx(0.01)
    assert paired.mean(sums).high - paired.mean(sums).low > 0.05
    assert paired.mean(sums - sums) == (0.0, 0.0, 0.0)


def test_a_single_block_has_no_interval_and_still_fits_into_json() -> None:
    estimate = PairedBootstrap(np.array([10])).mean(np.array([30.0]))
    assert estimate.value == 3.0
    assert math.isnan(estimate.low)
    assert json.loads(json.dumps(estimate.to_dict(), allow_nan=False))["low"] is None
