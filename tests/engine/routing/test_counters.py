"""The nine rules by hand, against plain loops, in what must hold for every row, and under the null.

Scores are given as they are: where they come from is the business of other tests.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bh_studio.engine.records.recording import RecordingOrigin
from bh_studio.engine.routing.counters import COUNTERS, Counter, CounterContext
from bh_studio.engine.routing.fdr import step_up_rejections
from bh_studio.engine.routing.nulls import EmpiricalNull, null_model
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.scores import Scorer
from bh_studio.engine.rules import (
    CATALOGUE,
    LevelEffect,
    NullName,
    RuleName,
    RuleParameters,
    ScoreName,
)
from tests.tiny_olmoe import EXPERTS, LAYERS

TESTS = [RuleName.BH, RuleName.BY, RuleName.STOREY, RuleName.HIGHER_CRITICISM]
# Levels in the order in which a rule must not select fewer.
RISING = {
    **dict.fromkeys(TESTS, (0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.99)),
    RuleName.TOP_K: (1, 2, 3, 8, 16),
    RuleName.TOP_P: (0.01, 0.1, 0.3, 0.5, 0.9, 1.0),
    RuleName.MIN_P: (1.0, 0.7, 0.3, 0.1, 0.01),
    RuleName.CUT: (1.0, 0.3, 0.1, 0.03, 0.0, -1.0),
    RuleName.ENTROPY: (1.0, 0.9, 0.7, 0.5, 0.0),
}


def counter(
    parameters: RuleParameters, experts: int, recording: Recording | None = None
) -> Counter:
    scorer = Scorer(
        parameters.score, parameters.temperature, recording.factors if recording else {}
    )
    null = (
        null_model(parameters.null, recording, scorer) if recording and parameters.is_test else None
    )
    layers = recording.layers if recording else 1
    if isinstance(parameters.level, tuple):
        layers = len(parameters.level)
    context = CounterContext(
        parameters, parameters.levels(layers), experts, scorer, null, recording
    )
    return COUNTERS[parameters.rule](context)


def recorded(logits: Tensor, top_k: int) -> Recording:
    return Recording(logits, RecordingOrigin("", "", logits.shape[1], 0, logits.shape[1], top_k))


@pytest.fixture(scope="module")
def hundredths() -> Recording:
    """One layer of 4 experts, top 1, that discards the logits 1 to 99, once each."""
    discarded = torch.arange(1.0, 100.0).view(33, 3)
    return recorded(torch.cat([torch.full((33, 1), 1000.0), discarded], dim=1)[None], top_k=1)


# By hand


@pytest.mark.parametrize(
    ("rule", "level", "expected"),
    [
        # The p-values are 0.01, 0.02, 0.04, 0.11; BH compares them with 0.0125 to 0.05.
        (RuleName.BH, 0.05, 2),
        (RuleName.BH, 0.11, 4),
        (RuleName.BH, 0.039, 0),
        # 25/12 times as strict.
        (RuleName.BY, 0.05, 0),
        (RuleName.BY, 0.05 * 25 / 12, 2),
        # 50 of the 132 recorded scores have p > 0.5, so pi0 is 51/66 and the third bound 0.0485.
        (RuleName.STOREY, 0.05, 3),
        # HC is 4.8, 6.9, 7.2, 5.7.
        (RuleName.HIGHER_CRITICISM, 1.0, 3),
        (RuleName.HIGHER_CRITICISM, 0.5, 2),
        (RuleName.HIGHER_CRITICISM, 0.01, 1),
    ],
)
def test_the_tests_by_hand(
    rule: RuleName, level: float, expected: int, hundredths: Recording
) -> None:
    parameters = RuleParameters(rule, level, score=ScoreName.LOGIT)
    scores = torch.tensor([[99.0, 90.0, 100.0, 97.0], [50.0, 50.0, 50.0, 50.0]])
    found = counter(parameters, 4, hundredths)(0, scores)
    assert found[0] == expected
    assert found[1] == 0 or rule is RuleName.HIGHER_CRITICISM
    one_each = RuleParameters(rule, (level, 1e-9), score=ScoreName.LOGIT)
    two_layers = recorded(hundredths.logits.expand(2, -1, -1), top_k=1)
    of_layers = counter(one_each, 4, two_layers)
    assert int(of_layers(0, scores)[0]) == expected
    assert int(of_layers(1, scores)[0]) == (rule is RuleName.HIGHER_CRITICISM)


def test_storey_rejects_nothing_above_its_cutoff(hundredths: Recording) -> None:
    scores = torch.tensor([[100.0, 99.0, 98.0, 40.0]])
    bh = RuleParameters(RuleName.BH, 0.9, score=ScoreName.LOGIT)
    storey = RuleParameters(RuleName.STOREY, 0.9, score=ScoreName.LOGIT)
    assert counter(bh, 4, hundredths)(0, scores).tolist() == [4]
    assert counter(storey, 4, hundredths)(0, scores).tolist() == [3]


EIGHTHS = torch.tensor([[0.125, 0.5, 0.125, 0.25], [0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("rule", "level", "expected"),
    [
        (RuleName.TOP_K, 3, [3, 3, 3]),
        (RuleName.TOP_P, 0.5, [1, 2, 1]),
        (RuleName.TOP_P, 0.500001, [2, 3, 1]),
        (RuleName.TOP_P, 0.75, [2, 3, 1]),
        (RuleName.TOP_P, 1.0, [4, 4, 1]),
        (RuleName.MIN_P, 1.0, [1, 4, 1]),
        (RuleName.MIN_P, 0.5, [2, 4, 1]),
        (RuleName.MIN_P, 0.25, [4, 4, 1]),
        (RuleName.CUT, 0.25, [2, 4, 1]),
        (RuleName.CUT, 0.250001, [1, 0, 1]),
        (RuleName.CUT, 0.0, [4, 4, 4]),
        (RuleName.CUT, 1.5, [0, 0, 0]),
        # Entropies of 1.75 ln 2, ln 4 and 0, and 2 to 3 experts for the sure and the unsure.
        (RuleName.ENTROPY, 0.874, [3, 3, 2]),
        (RuleName.ENTROPY, 0.876, [2, 3, 2]),
        (RuleName.ENTROPY, 1.0, [2, 3, 2]),
        (RuleName.ENTROPY, 0.0, [3, 3, 3]),
    ],
)
def test_the_other_rules_by_hand(rule: RuleName, level: float, expected: list[int]) -> None:
    parameters = RuleParameters(rule, level, min_k=2, max_k=3)
    # The limits come later, but for the rule that chooses between them.
    assert counter(parameters, 4)(0, EIGHTHS).tolist() == expected


def test_a_cut_takes_any_score() -> None:
    logits = torch.tensor([[-3.0, -1.0, 2.0, 0.5]])
    parameters = RuleParameters(RuleName.CUT, -1.0, score=ScoreName.LOGIT)
    assert counter(parameters, 4)(0, logits).tolist() == [3]
    # As for a score that leaves out all but the candidates.
    scores = torch.tensor([[-torch.inf, 0.7, 1.4, -torch.inf]])
    recording = Recording(
        torch.zeros(1, 9, 4),
        RecordingOrigin("", "", 9, 0, 9, 1),
        {ScoreName.OUTPUT: torch.ones(1, 4)},
    )
    parameters = RuleParameters(RuleName.CUT, 1.0, score=ScoreName.OUTPUT)
    assert counter(parameters, 4, recording)(0, scores).tolist() == [1]
    parameters = RuleParameters(RuleName.CUT, -1e30, score=ScoreName.OUTPUT)
    assert counter(parameters, 4, recording)(0, scores).tolist() == [2]


def test_levels_of_their_own_for_the_layers() -> None:
    allocation = counter(RuleParameters(RuleName.TOP_K, (1.0, 3.0)), 4)
    assert allocation(0, EIGHTHS).tolist() == [1, 1, 1]
    assert allocation(1, EIGHTHS).tolist() == [3, 3, 3]
    with pytest.raises(IndexError):
        allocation(2, EIGHTHS)
    cuts = counter(RuleParameters(RuleName.CUT, (0.5, 0.0)), 4)
    assert cuts(0, EIGHTHS).tolist() == [1, 0, 1]
    assert cuts(1, EIGHTHS).tolist() == [4, 4, 4]


@pytest.mark.parametrize("experts", [2, 8, 64, 128])
def test_a_uniform_distribution_is_never_sure(experts: int) -> None:
    # Its entropy is ln m exactly, and in float32 a sum of 64 terms falls short of that.
    uniform = torch.full((1, experts), 1 / experts)
    unsure = counter(RuleParameters(RuleName.ENTROPY, 1.0, min_k=1, max_k=2), experts)
    assert unsure(0, uniform).tolist() == [2]


def test_sums_that_miss_1_by_rounding_do_not_ask_for_more_experts_than_there_are() -> None:
    probabilities = torch.randn(1000, 7, generator=torch.Generator().manual_seed(0)).softmax(-1)
    ordered = probabilities.sort(dim=-1, descending=True).values
    assert (ordered.cumsum(-1)[:, -1] < 1).any()
    counts = counter(RuleParameters(RuleName.TOP_P, 1.0), 7)(0, probabilities)
    assert counts.max() == 7
    assert counts.min() >= 6


# Plain loops


def slow_count(rule: RuleName, level: float, row: list[float]) -> int:
    if rule is RuleName.TOP_P:
        held = list(itertools.accumulate(sorted(row, reverse=True)))
        return next(k for k, mass in enumerate(held, start=1) if mass >= level)
    if rule is RuleName.MIN_P:
        return sum(p >= level * max(row) for p in row)
    if rule is RuleName.CUT:
        return sum(p >= level for p in row)
    entropy = -sum(p * math.log(p) for p in row if p > 0)
    return 1 if entropy < level * math.log(len(row)) else 8


@pytest.mark.parametrize("rule", [RuleName.TOP_P, RuleName.MIN_P, RuleName.CUT, RuleName.ENTROPY])
def test_rules_on_probabilities_equal_plain_loops(rule: RuleName) -> None:
    # Multiples of 1/256 have exact sums, and levels that are such multiples too meet them exactly.
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(300, 16, generator=generator) ** 4
    places = torch.multinomial(shares, 256, replacement=True, generator=generator)
    probabilities = torch.zeros(300, 16).scatter_add_(1, places, torch.full(places.shape, 1 / 256))
    found = set()
    for level in (1 / 256, 0.125, 0.25, 0.5, 0.75, 15 / 16, 1.0):
        counts = counter(RuleParameters(rule, level, max_k=8), 16)(0, probabilities).tolist()
        assert counts == [slow_count(rule, level, row) for row in probabilities.tolist()]
        found |= set(counts)
    assert len(found) > 8 or (rule is RuleName.ENTROPY and found == {1, 8})


# What must hold for every row


def rows(experts: int = EXPERTS) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    spread = 4 * torch.rand(400, 1, generator=generator)
    return (torch.randn(400, experts, generator=generator) * spread).softmax(-1)


@pytest.mark.parametrize("rule", RuleName)
def test_a_laxer_level_never_selects_fewer(rule: RuleName, recording: Recording) -> None:
    assert set(RISING) == set(RuleName)
    former, sums = torch.zeros(400, dtype=torch.int64), []
    for level in RISING[rule]:
        parameters = RuleParameters(rule, level, min_k=1, max_k=8)
        counts = counter(parameters, EXPERTS, recording)(0, rows())
        assert (counts >= former).all()
        former = counts
        sums.append(int(counts.sum()))
    assert sums[0] < sums[-1]


@pytest.mark.parametrize("rule", RuleName)
def test_the_catalogue_says_whether_a_laxer_level_is_a_larger_one(rule: RuleName) -> None:
    effect = CATALOGUE[rule].effect
    if effect is not LevelEffect.UNSET:
        assert (RISING[rule][0] < RISING[rule][-1]) is (effect is LevelEffect.MORE)
    assert all(level in CATALOGUE[rule].levels for level in RISING[rule])


@pytest.mark.parametrize("name", [n for n in NullName if n is not NullName.POOLED])
@pytest.mark.parametrize("rule", TESTS)
def test_a_laxer_level_never_selects_fewer_with_any_null(
    rule: RuleName, name: NullName, recording: Recording
) -> None:
    former = torch.zeros(400, dtype=torch.int64)
    for level in RISING[rule]:
        counts = counter(RuleParameters(rule, level, null=name), EXPERTS, recording)(1, rows())
        assert (counts >= former).all()
        former = counts


@pytest.mark.parametrize("rule", RuleName)
def test_the_order_of_the_experts_does_not_matter(rule: RuleName, recording: Recording) -> None:
    level = RISING[rule][len(RISING[rule]) // 2]
    count = counter(RuleParameters(rule, level), EXPERTS, recording)
    expected = count(2, rows())
    for seed in range(3):
        order = torch.randperm(EXPERTS, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(count(2, rows()[:, order]), expected)


@pytest.mark.parametrize("rule", RuleName)
def test_counts_are_whole_numbers_of_experts_also_of_no_tokens(
    rule: RuleName, recording: Recording
) -> None:
    count = counter(RuleParameters(rule, RISING[rule][1]), EXPERTS, recording)
    for scores in (rows(), rows()[:1], rows()[:0]):
        counts = count(LAYERS - 1, scores)
        assert counts.dtype == torch.int64
        assert counts.shape == scores.shape[:1]
        assert ((counts >= 0) & (counts <= EXPERTS)).all()


@pytest.mark.parametrize("rule", TESTS)
def test_a_test_without_a_null_is_refused(rule: RuleName) -> None:
    with pytest.raises(ValueError, match=f"^The rule {rule} needs a null; calibrate first"):
        counter(RuleParameters(rule, 0.05), EXPERTS)


@given(weights=st.lists(st.floats(0.001, 1000), min_size=8, max_size=8), p=st.floats(1e-6, 1.0))
def test_top_p_is_the_smallest_set_that_holds_p(weights: list[float], p: float) -> None:
    row = torch.tensor([weights], dtype=torch.float64).div(sum(weights)).float()
    count = int(counter(RuleParameters(RuleName.TOP_P, p), 8)(0, row))
    ordered = sorted(row[0].tolist(), reverse=True)
    assert 1 <= count <= 8
    assert sum(ordered[:count]) >= p - 1e-6
    assert count == 1 or sum(ordered[: count - 1]) < p + 1e-6


# Under the null


@pytest.mark.parametrize("experts", [16, 64])
@pytest.mark.parametrize("name", [NullName.DISCARDED, NullName.POOLED])
def test_scores_drawn_from_the_null_give_a_discovery_with_probability_alpha(
    name: NullName, experts: int, recording: Recording
) -> None:
    # Under the complete null the false discovery rate is the chance of any discovery, and for
    # independent p-values it is alpha. These are not quite uniform: the r-th largest of n null
    # scores counts itself and has p = (r + 1) / (n + 1), so P(p <= t) lies between t - 2/(n + 1)
    # and t. A bound alpha k / m less 2/(n + 1) is at least (alpha - 2 m/(n + 1)) k / m, hence the
    # chance lies between alpha - 2 m/(n + 1) and alpha. Sampling error: four standard errors.
    tokens = 40_000
    model = null_model(name, recording, Scorer(ScoreName.PROBABILITY))
    assert isinstance(model, EmpiricalNull)
    pool = model.sorted_scores[1]
    generator = torch.Generator().manual_seed(2)
    scores = pool[torch.randint(0, len(pool), (tokens, experts), generator=generator)]
    for alpha in (0.01, 0.05, 0.2, 0.5):
        parameters = RuleParameters(RuleName.BH, alpha, null=name)
        share = float((counter(parameters, experts, recording)(1, scores) > 0).double().mean())
        margin = 4 * (alpha * (1 - alpha) / tokens) ** 0.5
        assert alpha - 2 * experts / (len(pool) + 1) - margin < share < alpha + margin


def test_with_all_scores_as_null_a_share_of_alpha_has_a_discovery_whatever_the_router_does() -> (
    None
):
    # Tokens like the recorded ones: p is uniform, kept experts or not, and nothing can be found.
    generator = torch.Generator().manual_seed(3)
    recording = recorded(torch.randn(1, 4000, 64, generator=generator) * 2 - 3, top_k=8)
    fresh = torch.randn(20_000, 64, generator=generator) * 2 - 3
    for alpha in (0.05, 0.3):
        shares = {}
        for name in (NullName.ALL, NullName.DISCARDED):
            parameters = RuleParameters(RuleName.BH, alpha, score=ScoreName.LOGIT, null=name)
            count = counter(parameters, 64, recording)
            shares[name] = [
                float((count(0, s) > 0).double().mean()) for s in (recording.logits[0], fresh)
            ]
        # The null is a sample itself, of 256,000: hence twice the margin of the tokens alone.
        for share, tokens in zip(shares[NullName.ALL], (4000, 20_000), strict=True):
            assert abs(share - alpha) < 8 * (alpha * (1 - alpha) / tokens) ** 0.5
        # Against what the router discards the very same tokens are nearly all discoveries.
        assert min(shares[NullName.DISCARDED]) > 0.9


@pytest.mark.parametrize("rule", [RuleName.BH, RuleName.BY, RuleName.STOREY])
@pytest.mark.parametrize(
    ("name", "score"),
    [*((name, ScoreName.PROBABILITY) for name in NullName),
     (NullName.DISCARDED, ScoreName.OUTPUT), (NullName.PER_EXPERT, ScoreName.OUTPUT)],
)  # fmt: skip
def test_step_up_counts_are_those_of_the_p_values(
    rule: RuleName, name: NullName, score: ScoreName, recording: Recording
) -> None:
    factors = 1 + torch.rand(LAYERS, EXPERTS, generator=torch.Generator().manual_seed(4))
    recording = dataclasses.replace(recording, factors={ScoreName.OUTPUT: factors})
    scorer = Scorer(score, 1.0, recording.factors)
    model = null_model(name, recording, scorer)
    harmonic = sum(1 / k for k in range(1, EXPERTS + 1))
    for layer in range(LAYERS):
        recorded_scores = scorer(layer, recording.logits[layer])
        above = int((model.p_values(layer, recorded_scores) > 0.5).sum())
        pi0 = min(1.0, (1 + above) / (0.5 * recorded_scores.numel()))
        factor = {RuleName.BH: 1.0, RuleName.BY: harmonic, RuleName.STOREY: pi0}[rule]
        largest = 0.5 if rule is RuleName.STOREY else 1.0
        p_values = model.p_values(layer, rows())
        for alpha in (0.01, 0.3, 0.9):
            levels = tuple(alpha / (1 + n) for n in range(LAYERS))
            parameters = RuleParameters(rule, levels, score=score, null=name)
            count = counter(parameters, EXPERTS, recording)
            expected = step_up_rejections(p_values, levels[layer], factor, largest)
            assert torch.equal(count(layer, rows()), expected)
