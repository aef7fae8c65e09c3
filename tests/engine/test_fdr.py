"""Step-up counts against scipy and statsmodels, and the threshold form against the p-value form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control
from statsmodels.stats.multitest import multipletests

from bh_studio.engine.fdr import (
    bh_counts,
    bh_score_thresholds,
    empirical_p_values,
    step_up_count,
    step_up_counts,
)

EXPERTS = 64


def test_hand_case() -> None:
    # Thresholds 0.0125, 0.025, 0.0375, 0.05: rank 3 passes, so ranks 1 and 2 go with it.
    p_values = torch.tensor([[0.03, 0.9, 0.02, 0.036]])
    assert bh_counts(p_values, 0.05).tolist() == [3]


def test_no_discovery_and_all_discoveries() -> None:
    assert bh_counts(torch.full((2, EXPERTS), 0.5), 0.05).tolist() == [0, 0]
    assert bh_counts(torch.zeros(2, EXPERTS), 0.05).tolist() == [EXPERTS, EXPERTS]


def test_p_values_count_ties_as_at_least_as_large() -> None:
    null = torch.tensor([1.0, 2.0, 2.0, 3.0])
    p_values = empirical_p_values(torch.tensor([0.0, 2.0, 2.5, 9.0]), null)
    assert p_values.tolist() == [5 / 5, 4 / 5, 2 / 5, 1 / 5]
    assert p_values.dtype == torch.float64


def test_an_empty_null_is_refused() -> None:
    with pytest.raises(ValueError, match="no scores"):
        empirical_p_values(torch.ones(1), torch.empty(0))
    with pytest.raises(ValueError, match="no scores"):
        bh_score_thresholds(torch.empty(0), 0.05, EXPERTS)


@pytest.mark.parametrize("alpha", [0.005, 0.05, 0.5, 1 - 1e-9])
def test_a_million_rows_equal_scipy_and_the_threshold_form(alpha: float) -> None:
    generator = torch.Generator().manual_seed(0)
    # Coarse scores on purpose: many ties between scores, and between scores and the null.
    null = (torch.rand(50_000, generator=generator) ** 3).mul(2000).round().div(2000).sort().values
    thresholds = bh_score_thresholds(null, alpha, EXPERTS)
    rows = 250_000  # four values of alpha make the million
    found = set()
    for _ in range(5):
        # Rows of every kind, from all like the null to most far above it.
        lift = torch.rand(rows // 5, 1, generator=generator) * 0.8
        scores = (torch.rand(rows // 5, EXPERTS, generator=generator) + lift) ** 3
        scores = scores.mul(2000).round().div(2000)
        p_values = empirical_p_values(scores, null)
        counts = bh_counts(p_values, alpha)
        adjusted = false_discovery_control(p_values.numpy(), axis=1, method="bh")
        np.testing.assert_array_equal(counts.numpy(), (adjusted <= alpha).sum(axis=1))
        torch.testing.assert_close(step_up_counts(scores, thresholds), counts, rtol=0, atol=0)
        found |= set(counts.tolist())
    assert len(found) > 20 or alpha > 0.9


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_thresholds_do_not_depend_on_torchs_default_dtype(dtype: torch.dtype) -> None:
    null = torch.rand(30_000, generator=torch.Generator().manual_seed(3)).sort().values
    expected = bh_score_thresholds(null, 0.05, EXPERTS)
    former = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        found = bh_score_thresholds(null, 0.05, EXPERTS)
    finally:
        torch.set_default_dtype(former)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_equals_statsmodels() -> None:
    generator = np.random.default_rng(1)
    p_values = generator.beta(0.4, 1.5, size=(200, EXPERTS))
    p_values[0, :3] = 0.0
    p_values[1, :5] = 1.0
    expected = [multipletests(row, alpha=0.1, method="fdr_bh")[0].sum() for row in p_values]
    assert bh_counts(torch.from_numpy(p_values), 0.1).tolist() == expected


@settings(max_examples=200, deadline=None)
@given(
    null=st.lists(st.integers(0, 20), min_size=1, max_size=60),
    scores=st.lists(st.integers(0, 25), min_size=8, max_size=8),
    alpha=st.floats(1e-4, 0.9999),
)
def test_threshold_form_equals_p_value_form(
    null: list[int], scores: list[int], alpha: float
) -> None:
    null_scores = torch.tensor(sorted(null), dtype=torch.float32) / 20
    row = torch.tensor([scores], dtype=torch.float32) / 20
    thresholds = bh_score_thresholds(null_scores, alpha, 8)
    expected = bh_counts(empirical_p_values(row, null_scores), alpha)
    assert step_up_counts(row, thresholds).tolist() == expected.tolist()
    assert step_up_count(row[0].tolist(), thresholds.tolist()) == int(expected)


def test_a_null_too_small_for_alpha_never_rejects() -> None:
    # The smallest p-value, 1/11, is above 0.05: no score can be significant at rank 1 of 1.
    assert bh_score_thresholds(torch.rand(10).sort().values, 0.05, 1).tolist() == [torch.inf]


def test_empirical_fdr_stays_at_alpha_when_p_values_are_independent() -> None:
    generator = torch.Generator().manual_seed(2)
    alpha, trials, true_nulls = 0.1, 20_000, 48
    null = torch.randn(200_000, generator=generator).sort().values
    scores = torch.randn(trials, EXPERTS, generator=generator)
    scores[:, true_nulls:] += 2.5
    thresholds = bh_score_thresholds(null, alpha, EXPERTS)
    order = scores.argsort(dim=1, descending=True)
    counts = step_up_counts(scores, thresholds)
    rejected = torch.arange(EXPERTS) < counts[:, None]
    false = (rejected & (order < true_nulls)).sum(1)
    proportions = false / counts.clamp(min=1)
    # Benjamini & Hochberg 1995, theorem 1: the rate is alpha * m0 / m.
    margin = 4 * float(proportions.std()) / trials**0.5
    assert abs(float(proportions.mean()) - alpha * true_nulls / EXPERTS) < margin
