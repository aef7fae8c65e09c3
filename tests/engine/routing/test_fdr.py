"""Multiple testing against scipy, statsmodels, plain loops and simulations with known answers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, norm
from statsmodels.stats.multitest import multipletests
from torch import Tensor

from bh_studio.engine.routing.fdr import (
    empirical_p_values,
    harmonic_number,
    higher_criticism_counts,
    normal_p_values,
    score_thresholds,
    step_up_count,
    step_up_counts,
    step_up_line,
    step_up_rejections,
    storey_pi0,
)

EXPERTS = 64
# (factor, largest) of Benjamini & Hochberg, of Benjamini & Yekutieli, and of Storey's procedure
# with a usual pi0 and with one so small that 0.5 is what bounds the rejections.
STEP_UPS = {
    "bh": (1.0, 1.0),
    "by": (harmonic_number(EXPERTS), 1.0),
    "storey": (0.875, 0.5),
    "storey, few nulls": (0.02, 0.5),
}


def false_discovery_proportions(p_values: Tensor, counts: Tensor, true_nulls: int) -> Tensor:
    """Share of true nulls among what each row rejects; the first `true_nulls` columns are true."""
    rejected = torch.arange(p_values.shape[1]) < counts[:, None]
    false = (rejected & (p_values.argsort(dim=1) < true_nulls)).sum(1)
    return false / counts.clamp(min=1)


def four_standard_errors(values: Tensor) -> float:
    """A margin that a right mean misses about once in 16,000 tries."""
    return 4 * float(values.double().std()) / len(values) ** 0.5


# p-values


def test_p_values_count_ties_as_at_least_as_large() -> None:
    null = torch.tensor([1.0, 2.0, 2.0, 3.0])
    p_values = empirical_p_values(torch.tensor([0.0, 2.0, 2.5, 9.0]), null)
    assert p_values.tolist() == [5 / 5, 4 / 5, 2 / 5, 1 / 5]
    assert p_values.dtype == torch.float64


def test_an_empty_null_is_refused() -> None:
    with pytest.raises(ValueError, match="no scores"):
        empirical_p_values(torch.ones(1), torch.empty(0))
    with pytest.raises(ValueError, match="no scores"):
        score_thresholds(torch.empty(0), 0.05, EXPERTS)


def test_a_score_that_is_no_number_is_never_significant() -> None:
    null = torch.arange(100_000.0)
    p_values = empirical_p_values(torch.full((1, EXPERTS), torch.nan), null)
    assert p_values.isnan().all()
    assert step_up_rejections(p_values, 0.5).tolist() == [0]
    assert higher_criticism_counts(p_values, 1.0).tolist() == [0]
    thresholds = score_thresholds(null, 0.5, EXPERTS)
    assert step_up_counts(torch.full((1, EXPERTS), torch.nan), thresholds).tolist() == [0]
    assert step_up_count([math.nan] * EXPERTS, thresholds.tolist()) == 0


def test_normal_p_values_are_those_of_scipy_far_into_the_tail() -> None:
    z = torch.tensor([-40.0, -6.0, -1.0, 0.0, 0.5, 3.0, 8.0, 30.0], dtype=torch.float64)
    np.testing.assert_allclose(normal_p_values(z).numpy(), norm.sf(z.numpy()), rtol=1e-12)


# The step-up rule on p-values


def test_hand_case() -> None:
    # Thresholds 0.0125, 0.025, 0.0375, 0.05: rank 3 passes, so ranks 1 and 2 go with it.
    p_values = torch.tensor([[0.03, 0.9, 0.02, 0.036]])
    assert step_up_rejections(p_values, 0.05).tolist() == [3]
    # BY divides alpha by 1 + 1/2 + 1/3 + 1/4 = 25/12.
    assert harmonic_number(4) == pytest.approx(25 / 12)
    assert step_up_rejections(p_values, 0.05, harmonic_number(4)).tolist() == [0]
    assert step_up_rejections(p_values, 0.05 * 25 / 12, harmonic_number(4)).tolist() == [3]


def test_no_discovery_and_all_discoveries() -> None:
    assert step_up_rejections(torch.full((2, EXPERTS), 0.5), 0.05).tolist() == [0, 0]
    assert step_up_rejections(torch.zeros(2, EXPERTS), 0.05).tolist() == [EXPERTS, EXPERTS]
    assert step_up_rejections(torch.zeros(0, EXPERTS), 0.05).tolist() == []


def test_p_values_that_meet_their_bound_exactly_are_rejected_as_scipy_does() -> None:
    # 1/16 * k / 64 has no rounding of its own, so a quotient in float32 would show.
    p_values = torch.ones(EXPERTS, EXPERTS, dtype=torch.float64)
    for k in range(1, EXPERTS + 1):
        p_values[k - 1, :k] = k / 1024
    adjusted = false_discovery_control(p_values.numpy(), axis=1)
    expected = (adjusted <= 1 / 16).sum(axis=1)
    np.testing.assert_array_equal(step_up_rejections(p_values, 1 / 16).numpy(), expected)
    assert (expected == np.arange(1, EXPERTS + 1)).mean() > 0.9


@pytest.mark.parametrize("method", ["bh", "by"])
@pytest.mark.parametrize("alpha", [0.005, 0.05, 0.5, 1 - 1e-9])
def test_a_million_rows_equal_scipy_and_half_of_them_thresholds(alpha: float, method: str) -> None:
    factor, _ = STEP_UPS[method]
    generator = torch.Generator().manual_seed(0)
    # Coarse scores on purpose: many ties between scores, and between scores and the null.
    grid = torch.arange(2001) / 2000
    null = grid[(torch.rand(50_000, generator=generator) ** 3).mul(2000).long()].sort().values
    thresholds = score_thresholds(null, alpha, EXPERTS, factor)
    p_value_of = empirical_p_values(grid, null)
    rows, half = 25_000, 12_500  # of eight cases, five times each
    found = set()
    for _ in range(5):
        # Rows of every kind, from all like the null to most far above it.
        lift = torch.rand(rows, 1, generator=generator) * 0.8
        places = (torch.rand(rows, EXPERTS, generator=generator) + lift).pow(3).mul(2000).long()
        places.clamp_(max=2000)
        p_values = p_value_of[places]
        # What no empirical null gives: exact zeros, and many exact ones.
        chance = torch.rand(half, EXPERTS, generator=generator)
        p_values[half:].masked_fill_(chance < 0.02, 0.0).masked_fill_(chance > 0.9, 1.0)
        counts = step_up_rejections(p_values, alpha, factor)
        adjusted = false_discovery_control(p_values.numpy(), axis=1, method=method)
        np.testing.assert_array_equal(counts.numpy(), (adjusted <= alpha).sum(axis=1))
        assert torch.equal(step_up_counts(grid[places[:half]], thresholds), counts[:half])
        found |= set(counts.tolist())
    assert len(found) > 20


@pytest.mark.parametrize("method", ["bh", "by"])
@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.6])
def test_equals_statsmodels(alpha: float, method: str) -> None:
    generator = np.random.default_rng(1)
    p_values = generator.beta(0.4, 1.5, size=(200, EXPERTS))
    p_values[0, :3] = 0.0
    p_values[1, :5] = 1.0
    p_values[2, 8:] = p_values[2, :8].repeat(7)
    expected = [
        multipletests(row, alpha=alpha, method=f"fdr_{method}")[0].sum() for row in p_values
    ]
    counts = step_up_rejections(torch.from_numpy(p_values), alpha, STEP_UPS[method][0])
    assert counts.tolist() == expected
    assert len(set(expected)) > 5


def storey_rejections(p_values: np.ndarray, alpha: float, pi0: float) -> int:
    """Storey, Taylor & Siegmund 2004: reject p <= t for the largest t <= 0.5 at which the estimated
    rate, pi0 m t / #{p <= t}, is at most alpha."""
    rejected = 0
    for t in p_values:  # the rate jumps down at p-values only, and rises between them
        found = (p_values <= t).sum()
        if t <= 0.5 and pi0 * len(p_values) * t / found <= alpha:
            rejected = max(rejected, found)
    return int(rejected)


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("pi0", [1.0, 0.875, 0.4, 0.02])
def test_storeys_procedure_equals_its_definition(pi0: float, alpha: float) -> None:
    generator = np.random.default_rng(2)
    p_values = generator.beta(0.3, 1.0, size=(150, EXPERTS))
    p_values[::3] = p_values[::3].round(2)  # ties, zeros and ones
    counts = step_up_rejections(torch.from_numpy(p_values), alpha, pi0, largest=0.5)
    assert counts.tolist() == [storey_rejections(row, alpha, pi0) for row in p_values]
    assert counts.max() <= (p_values <= 0.5).sum(1).max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_nothing_depends_on_torchs_default_dtype(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    null = torch.rand(30_000, generator=generator).sort().values
    # 60, because quotients of 64 by a power of two are exact in every dtype.
    p_values = torch.rand(5000, 60, dtype=torch.float64, generator=generator) ** 3

    def everything() -> list[Tensor]:
        return [
            score_thresholds(null, 0.05, EXPERTS, 0.875, 0.5),
            step_up_rejections(p_values, 0.05, harmonic_number(60)),
            higher_criticism_counts(p_values, 0.5),
            normal_p_values(p_values),
        ]

    expected = everything()
    former = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        found = everything()
    finally:
        torch.set_default_dtype(former)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_nothing_depends_on_torchs_default_device() -> None:
    null = torch.arange(1000.0)
    p_values = torch.tensor([[0.03, 0.9, 0.02, 0.036]])
    # On this device there are shapes and no numbers.
    with torch.device("meta"):
        assert harmonic_number(4) == pytest.approx(25 / 12)
        assert step_up_rejections(p_values, 0.05).tolist() == [3]
        assert higher_criticism_counts(p_values, 1.0).tolist() == [3]
        thresholds = score_thresholds(null, 0.5, 4)
        assert step_up_counts(torch.full_like(null[None, :4], 999.0), thresholds).tolist() == [4]


@pytest.mark.parametrize(
    "count",
    [lambda p: step_up_rejections(p, 0.3), lambda p: higher_criticism_counts(p, 0.5)],
    ids=["step-up", "higher criticism"],
)
def test_p_values_may_have_any_number_of_axes(count: Callable[[Tensor], Tensor]) -> None:
    p_values = torch.rand(2, 3, EXPERTS, generator=torch.Generator().manual_seed(5)) ** 3
    expected = count(p_values.view(6, EXPERTS)).view(2, 3)
    assert len(expected.unique()) > 1
    assert torch.equal(count(p_values), expected)
    assert torch.equal(count(p_values[1, 2]), expected[1, 2])


# The step-up rule on scores


@pytest.mark.parametrize("alpha", [1e-5, 0.003, 0.05, 0.5, 0.97, 1 - 1e-12])
@pytest.mark.parametrize("name", STEP_UPS)
def test_thresholds_equal_p_values_for_every_step_up_rule(name: str, alpha: float) -> None:
    factor, largest = STEP_UPS[name]
    generator = torch.Generator().manual_seed(4)
    null = torch.randn(30_000, generator=generator).sort().values
    lift = torch.rand(3000, 1, generator=generator) * 3
    continuous = torch.randn(3000, EXPERTS, generator=generator) + lift
    # Rows made of the null's own values tie with it at every place.
    ties = null[torch.randint(0, 30_000, (3000, EXPERTS), generator=generator)] * (lift > 1)
    thresholds = score_thresholds(null, alpha, EXPERTS, factor, largest)
    assert (thresholds[:-1] >= thresholds[1:]).all()
    for scores in (continuous, ties):
        expected = step_up_rejections(empirical_p_values(scores, null), alpha, factor, largest)
        assert torch.equal(step_up_counts(scores, thresholds), expected)
        for row, count in zip(scores[:200].tolist(), expected[:200].tolist(), strict=True):
            assert step_up_count(row, thresholds.tolist()) == count


# Fractions meet p-values, which are fractions too, exactly; the others come near 0 and 1.
ALPHAS = st.one_of(
    st.builds(lambda a, b: a / (a + b), st.integers(1, 20), st.integers(1, 20)),
    st.floats(1e-9, 1 - 1e-9),
)


@settings(max_examples=400, deadline=None)
@given(
    null=st.lists(st.integers(0, 20), min_size=1, max_size=60),
    scores=st.lists(st.integers(-1, 25), min_size=8, max_size=8),
    alpha=ALPHAS,
    factor=st.sampled_from([1.0, harmonic_number(8), 0.875, 0.5, 0.01]),
    largest=st.sampled_from([1.0, 0.5]),
)
def test_threshold_form_equals_p_value_form(
    null: list[int], scores: list[int], alpha: float, factor: float, largest: float
) -> None:
    null_scores = torch.tensor(sorted(null), dtype=torch.float32) / 20
    row = torch.tensor([scores], dtype=torch.float32) / 20
    thresholds = score_thresholds(null_scores, alpha, 8, factor, largest)
    p_values = empirical_p_values(row, null_scores)
    expected = step_up_rejections(p_values, alpha, factor, largest)
    assert step_up_counts(row, thresholds).tolist() == expected.tolist()
    assert step_up_count(row[0].tolist(), thresholds.tolist()) == int(expected)


@pytest.mark.parametrize("null_size", [15, 63, 639, 1279, 6399])
@pytest.mark.parametrize("name", STEP_UPS)
def test_thresholds_equal_p_values_where_p_values_meet_their_bounds(
    name: str, null_size: int
) -> None:
    # p = c / (n + 1) and alpha k / m are equal fractions here, so rounding alone decides, and it
    # must decide alike in both forms: c null scores fewer than the bound allows, as many, or more.
    factor, largest = STEP_UPS[name]
    null = torch.arange(float(null_size))
    ranks = torch.arange(1, EXPERTS + 1)
    for alpha in (0.01, 0.05, 0.1, 0.2, 0.3, 0.35, 0.6, 0.7, 0.95):
        bound = (alpha * ranks / EXPERTS / factor).clamp(max=largest) * (null_size + 1)
        thresholds = score_thresholds(null, alpha, EXPERTS, factor, largest)
        for step in (-2, -1, 0, 1):
            at_least = (bound.round().long() + step).clamp(0, null_size)
            # Row k: k scores with that many null scores at or above them, the rest below all.
            high = (null_size - at_least)[:, None].float()
            scores = torch.where(ranks <= ranks[:, None], high, -1.0)
            p_values = empirical_p_values(scores, null)
            expected = step_up_rejections(p_values, alpha, factor, largest)
            assert torch.equal(step_up_counts(scores, thresholds), expected)


def test_scores_that_meet_their_thresholds_exactly_are_significant() -> None:
    null = torch.randn(30_000, generator=torch.Generator().manual_seed(12)).sort().values
    thresholds = score_thresholds(null, 0.1, EXPERTS)
    assert thresholds.isfinite().all()
    for k in range(1, EXPERTS + 1):
        row = torch.where(torch.arange(EXPERTS) < k, thresholds[k - 1], -torch.inf)
        assert step_up_counts(row[None], thresholds).tolist() == [k]
        assert step_up_count(row.tolist(), thresholds.tolist()) == k
        below = torch.nextafter(row, torch.tensor(-torch.inf))
        assert step_up_count(below.tolist(), thresholds.tolist()) < k


def test_a_null_too_small_for_alpha_never_rejects() -> None:
    # The smallest p-value, 1/11, is above 0.05: no score can be significant at rank 1 of 1.
    assert score_thresholds(torch.rand(10).sort().values, 0.05, 1).tolist() == [torch.inf]


def test_a_level_that_every_score_meets_rejects_all() -> None:
    # Every p-value is at most 1, and alpha k / (m factor) is more than that from rank 1 on.
    thresholds = score_thresholds(torch.rand(10).sort().values, 0.5, 4, factor=0.1)
    assert thresholds.tolist() == [-torch.inf] * 4
    assert step_up_counts(torch.tensor([[-9.0, -9, -9, -9]]), thresholds).tolist() == [4]


# pi0


def test_pi0_by_hand_and_never_above_one() -> None:
    eight = torch.tensor([0.1] * 7 + [0.9])
    assert storey_pi0(eight) == pytest.approx((1 + 1) / (0.5 * 8))
    assert storey_pi0(eight, cutoff=0.05) == 1.0
    assert storey_pi0(torch.ones(3, 4)) == 1.0
    assert storey_pi0(torch.zeros(5, 10)) == pytest.approx(1 / 25)
    # A p-value at the cutoff may be one of those that are rejected, so it does not count.
    assert storey_pi0(torch.full((10,), 0.5)) == pytest.approx(1 / 5)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_pi0_finds_the_share_of_true_nulls(share: float) -> None:
    generator = torch.Generator().manual_seed(5)
    n = 200_000
    z = torch.randn(n, dtype=torch.float64, generator=generator)
    z[int(share * n) :] += 4  # far enough for hardly any of them to have p > 0.5
    # The number of nulls above the cutoff is binomial with chance 1/2.
    margin = 4 * (share / n) ** 0.5
    assert storey_pi0(normal_p_values(z)) == pytest.approx(share, abs=margin)


# Higher criticism


@pytest.mark.parametrize("name", STEP_UPS)
@given(alpha=st.floats(1e-12, 1, exclude_max=True), hypotheses=st.integers(1, 255))
def test_the_line_holds_the_largest_p_values_that_the_step_up_rule_accepts(
    name: str, alpha: float, hypotheses: int
) -> None:
    factor, largest = STEP_UPS[name]
    line = step_up_line(alpha, hypotheses, factor, largest)
    for k in {1, (hypotheses + 1) // 2, hypotheses}:
        at = float(line[k - 1])
        # Only the first k can be rejected, for the others are 1.
        row = torch.ones(2, hypotheses, dtype=torch.float64)
        row[0, :k], row[1, :k] = at, math.nextafter(at, math.inf)
        if at < 1:
            on, above = step_up_rejections(row, alpha, factor, largest).tolist()
            assert on >= k > above
    assert (line.diff() >= 0).all()


def slow_higher_criticism(p_values: list[float], alpha0: float) -> int:
    """The formula of Donoho & Jin 2004, with its limits where p is 0 or 1."""
    m = len(p_values)
    best, count = 0.0, 0
    for k, p in enumerate(sorted(p_values), start=1):
        if k > max(1, math.floor(alpha0 * m)) or p == 1:
            break
        if p == 0:  # infinite, and the more so the larger k
            best, count = math.inf, k
            continue
        deviation = math.sqrt(m) * (k / m - p) / math.sqrt(p * (1 - p))
        if deviation > best:
            best, count = deviation, k
    return count


def test_higher_criticism_by_hand() -> None:
    # 2 (0.25 - 0.01) / sqrt(0.0099) = 4.8; 2 (0.5 - 0.02) / sqrt(0.0196) = 6.9; then 1.0 and 0.7.
    p_values = torch.tensor([[0.5, 0.01, 0.9, 0.02]])
    assert higher_criticism_counts(p_values, 1.0).tolist() == [2]
    assert higher_criticism_counts(p_values, 0.5).tolist() == [2]
    assert higher_criticism_counts(p_values, 0.49).tolist() == [1]
    assert higher_criticism_counts(p_values, 1e-9).tolist() == [1]
    # Just what uniform p-values would be: each deviation is 0, and none is positive.
    assert higher_criticism_counts(torch.tensor([[0.5, 0.25, 1.0, 0.75]]), 1.0).tolist() == [0]


@pytest.mark.parametrize("alpha0", [1e-6, 0.05, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("m", [1, 7, EXPERTS])
def test_higher_criticism_equals_a_plain_loop(m: int, alpha0: float) -> None:
    generator = torch.Generator().manual_seed(6)
    power = 1 + 2 * torch.rand(400, 1, dtype=torch.float64, generator=generator)
    p_values = torch.rand(400, m, dtype=torch.float64, generator=generator) ** power
    chance = torch.rand(400, m, generator=generator)
    p_values[:100].masked_fill_(chance[:100] < 0.05, 0.0)
    p_values[50:150].masked_fill_(chance[50:150] > 0.95, 1.0)
    p_values[150:200] = p_values[150:200].round(decimals=1)
    found = higher_criticism_counts(p_values, alpha0)
    assert found.tolist() == [slow_higher_criticism(row, alpha0) for row in p_values.tolist()]
    assert m < EXPERTS or alpha0 < 0.1 or len(set(found.tolist())) > 10


def test_higher_criticism_where_every_p_value_is_zero_or_one() -> None:
    zeros, ones = torch.zeros(1, EXPERTS), torch.ones(1, EXPERTS)
    assert higher_criticism_counts(zeros, 1.0).tolist() == [EXPERTS]
    assert higher_criticism_counts(zeros, 0.25).tolist() == [EXPERTS // 4]
    assert higher_criticism_counts(ones, 1.0).tolist() == [0]
    mixed = torch.cat([zeros[:, :3], ones[:, 3:]], dim=1)
    assert higher_criticism_counts(mixed, 1.0).tolist() == [3]


def test_higher_criticism_selects_something_even_where_there_is_nothing() -> None:
    # What its docstring means by "bounds no error rate".
    generator = torch.Generator().manual_seed(7)
    p_values = torch.rand(20_000, EXPERTS, dtype=torch.float64, generator=generator)
    # The last deviation, of the largest p-value, is always above 0.
    assert (higher_criticism_counts(p_values, 1.0) > 0).all()
    # With one rank searched, a discovery is a smallest p-value below 1/m.
    found = (higher_criticism_counts(p_values, 1e-9) > 0).double()
    expected = 1 - (1 - 1 / EXPERTS) ** EXPERTS
    assert abs(float(found.mean()) - expected) < four_standard_errors(found)


# Error rates in simulation


def test_empirical_fdr_stays_at_alpha_when_p_values_are_independent() -> None:
    generator = torch.Generator().manual_seed(2)
    alpha, trials, true_nulls = 0.1, 20_000, 48
    null = torch.randn(200_000, generator=generator).sort().values
    scores = torch.randn(trials, EXPERTS, generator=generator)
    scores[:, true_nulls:] += 2.5
    counts = step_up_counts(scores, score_thresholds(null, alpha, EXPERTS))
    # Benjamini & Hochberg 1995, theorem 1: the rate is alpha * m0 / m.
    proportions = false_discovery_proportions(-scores, counts, true_nulls)
    deviation = abs(float(proportions.mean()) - alpha * true_nulls / EXPERTS)
    assert deviation < four_standard_errors(proportions)


@pytest.mark.parametrize("correlation", [0.2, 0.5, 0.9])
def test_bh_keeps_alpha_when_scores_are_positively_correlated(correlation: float) -> None:
    # Benjamini & Yekutieli 2001, theorem 1.2: one-sided tests on Gaussian scores that are nowhere
    # negatively correlated keep alpha * m0 / m.
    generator = torch.Generator().manual_seed(8)
    alpha, trials, true_nulls = 0.1, 20_000, 48
    shared = torch.randn(trials, 1, generator=generator)
    own = torch.randn(trials, EXPERTS, generator=generator)
    scores = correlation**0.5 * shared + (1 - correlation) ** 0.5 * own
    scores[:, true_nulls:] += 2.5
    p_values = normal_p_values(scores)
    proportions = false_discovery_proportions(
        p_values, step_up_rejections(p_values, alpha), true_nulls
    )
    rate, bound = float(proportions.mean()), alpha * true_nulls / EXPERTS
    assert rate < bound + four_standard_errors(proportions)
    # A rule without a correction breaks the bound on the same rows, so the simulation can tell.
    naive = false_discovery_proportions(p_values, (p_values <= alpha).sum(1), true_nulls)
    assert float(naive.mean()) > bound + 3 * four_standard_errors(naive)


@pytest.mark.parametrize("signs", ["opposite halves", "sum to zero"])
def test_by_keeps_alpha_when_scores_are_negatively_correlated(signs: str) -> None:
    generator = torch.Generator().manual_seed(9)
    alpha, trials, true_nulls = 0.1, 20_000, 48
    scores = torch.randn(trials, EXPERTS, generator=generator)
    if signs == "opposite halves":
        shared = torch.randn(trials, 1, generator=generator)
        direction = torch.ones(EXPERTS)
        direction[::2] = -1
        scores = 0.8**0.5 * shared * direction + 0.2**0.5 * scores
    else:
        scores = (scores - scores.mean(1, keepdim=True)) / (1 - 1 / EXPERTS) ** 0.5
    scores[:, true_nulls:] += 2.5
    p_values = normal_p_values(scores)
    counts = step_up_rejections(p_values, alpha, harmonic_number(EXPERTS))
    proportions = false_discovery_proportions(p_values, counts, true_nulls)
    assert float(proportions.mean()) < alpha + four_standard_errors(proportions)
    assert counts.double().mean() > 2


def worst_p_values(level: float, trials: int, generator: torch.Generator) -> Tensor:
    """p-values, each uniform and none of them significant, that depend as badly as they can.

    With probability level / k for each k, exactly k of them, drawn at random, lie just below the
    bound of rank k, level * k / m, and the others above `level`: BH at `level` rejects k.
    """
    m = EXPERTS
    cumulated = (level / torch.arange(1, m + 1, dtype=torch.float64)).cumsum(0)
    assert cumulated[-1] <= 1
    u = torch.rand(trials, 1, dtype=torch.float64, generator=generator)
    k = torch.searchsorted(cumulated, u, right=True) + 1
    k = torch.where(k > m, 0, k)
    is_low = torch.rand(trials, m, generator=generator).argsort(dim=1) < k
    within = torch.rand(trials, m, dtype=torch.float64, generator=generator)
    low = (k - 1 + within) * level / m
    return torch.where(is_low, low, level + within * (1 - level))


def test_by_keeps_alpha_under_the_worst_dependence_and_bh_does_not() -> None:
    generator = torch.Generator().manual_seed(10)
    harmonic, trials = harmonic_number(EXPERTS), 40_000
    # All are true nulls, so that the false discovery rate is the chance of any discovery.
    for alpha in (0.05, 0.2):
        p_values = worst_p_values(alpha, trials, generator)
        first = p_values[:, 0].sort().values
        uniform = (torch.arange(trials) + 0.5) / trials
        assert float((first - uniform).abs().max()) < 1.95 / trials**0.5  # Kolmogorov & Smirnov
        found = (step_up_rejections(p_values, alpha) > 0).double()
        assert abs(float(found.mean()) - alpha * harmonic) < four_standard_errors(found)
        # What is worst for BY at alpha is what is worst for BH at its corrected level.
        p_values = worst_p_values(alpha / harmonic, trials, generator)
        found = (step_up_rejections(p_values, alpha, harmonic) > 0).double()
        assert abs(float(found.mean()) - alpha) < four_standard_errors(found)


@pytest.mark.parametrize("true_nulls", [16, 48])
def test_storeys_procedure_keeps_alpha_when_p_values_are_independent(true_nulls: int) -> None:
    generator = torch.Generator().manual_seed(11)
    alpha, trials = 0.1, 20_000
    scores = torch.randn(trials, EXPERTS, generator=generator)
    scores[:, true_nulls:] += 2.5
    p_values = normal_p_values(scores)
    pi0 = storey_pi0(p_values)
    counts = step_up_rejections(p_values, alpha, pi0, largest=0.5)
    proportions = false_discovery_proportions(p_values, counts, true_nulls)
    # BH at alpha / pi0, so that the rate is alpha * (m0 / m) / pi0.
    expected = alpha * true_nulls / EXPERTS / pi0
    assert abs(float(proportions.mean()) - expected) < four_standard_errors(proportions)
    # A few non-nulls above the cutoff make pi0 too large, never too small, and the rule strict.
    assert 0.95 * alpha < expected < 1.002 * alpha
    assert (counts >= step_up_rejections(p_values, alpha)).all()
