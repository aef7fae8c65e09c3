"""Every null against a slow implementation of what it claims to be, and what each is good for."""

from __future__ import annotations

import dataclasses
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import median_abs_deviation, norm
from torch import Tensor

from bh_studio.engine.records.recording import RecordingOrigin
from bh_studio.engine.routing.fdr import step_up_rejections
from bh_studio.engine.routing.nulls import (
    EmpiricalNull,
    GaussianNull,
    NullError,
    NullModel,
    central_matching,
    null_model,
)
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.scores import Scorer
from bh_studio.engine.rules.parameters import NullName, ScoreName

LAYERS, TOKENS, EXPERTS, TOP_K = 2, 60, 8, 3
# Another temperature than 1 for one of the scores.
SCORES = [(ScoreName.PROBABILITY, 1.0), (ScoreName.PROBABILITY, 0.5), (ScoreName.LOGIT, 1.0)]
SCORES += [(score, 1.0) for score in ScoreName if score.has_factor]


def recorded(logits: Tensor, top_k: int = TOP_K) -> Recording:
    layers, tokens, experts = logits.shape
    factors = torch.rand(layers, experts, generator=torch.Generator().manual_seed(1)) + 0.5
    measured = {score: factors for score in ScoreName if score.has_factor}
    return Recording(logits, RecordingOrigin("", "", tokens, 0, tokens, top_k), measured)


@pytest.fixture(scope="module")
def recording() -> Recording:
    """From a coarse grid, so that scores tie with the null, but never within a token."""
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(LAYERS, TOKENS, 40, generator=generator).argsort(dim=-1)[..., :EXPERTS]
    return recorded((places - 20) / 8)


@pytest.fixture(scope="module")
def normal_record() -> Recording:
    """Logits that a normal distribution fits."""
    generator = torch.Generator().manual_seed(7)
    return recorded(torch.randn(LAYERS, 4000, EXPERTS, generator=generator) * 0.8 - 3)


def scorer_of(recording: Recording, name: ScoreName, temperature: float = 1.0) -> Scorer:
    return Scorer(name, temperature, recording.factors)


def other_scores(scorer: Scorer, layer: int) -> Tensor:
    """Scores of 20 tokens that were not recorded, some beyond all that were."""
    generator = torch.Generator().manual_seed(2)
    fresh = (torch.randn(20, EXPERTS, generator=generator) * 12).round() / 8
    return scorer(layer, fresh)


def discarded_experts(logits: list[float]) -> list[int]:
    return sorted(range(EXPERTS), key=lambda expert: -logits[expert])[TOP_K:]


def slow_p_value(score: float, null: list[float]) -> float:
    return (1 + sum(other >= score for other in null)) / (len(null) + 1)


def slow_nulls(recording: Recording, scorer: Scorer, name: NullName) -> list[list[list[float]]]:
    """(layer, expert) lists of the recorded scores that an expert's score is compared with."""
    scores = scorer.of_all_layers(recording.logits).tolist()
    logits = recording.logits.tolist()
    own: list[list[list[float]]] = [[[] for _ in range(EXPERTS)] for _ in range(LAYERS)]
    everything: list[list[float]] = [[] for _ in range(LAYERS)]
    for layer in range(LAYERS):
        for token in range(TOKENS):
            everything[layer] += scores[layer][token]
            for expert in discarded_experts(logits[layer][token]):
                own[layer][expert].append(scores[layer][token][expert])
    if name is NullName.PER_EXPERT:
        return own
    discarded = [list(chain(*of_layer)) for of_layer in own]
    pools = {
        NullName.DISCARDED: discarded,
        NullName.POOLED: [list(chain(*discarded))] * LAYERS,
        NullName.ALL: everything,
    }
    return [[pool] * EXPERTS for pool in pools[name]]


@pytest.mark.parametrize(
    "name", [NullName.DISCARDED, NullName.POOLED, NullName.ALL, NullName.PER_EXPERT]
)
@pytest.mark.parametrize(("score", "temperature"), SCORES)
def test_empirical_p_values_equal_counting(
    name: NullName, score: ScoreName, temperature: float, recording: Recording
) -> None:
    scorer = scorer_of(recording, score, temperature)
    model = null_model(name, recording, scorer)
    expected = slow_nulls(recording, scorer, name)
    sizes = {len(own) for of_layer in expected for own in of_layer}
    assert model.samples == min(sizes)
    assert len(sizes) > 1 or name is not NullName.PER_EXPERT
    for layer in range(LAYERS):
        scores = torch.cat(
            [other_scores(scorer, layer), scorer(layer, recording.logits[layer, :10])]
        )
        found = model.p_values(layer, scores)
        assert found.dtype == torch.float64
        for row, p_values in zip(scores.tolist(), found.tolist(), strict=True):
            slow = [slow_p_value(s, own) for s, own in zip(row, expected[layer], strict=True)]
            assert p_values == slow


def test_samples_of_the_discarded_null_are_those_that_the_record_promises(
    recording: Recording,
) -> None:
    model = null_model(NullName.DISCARDED, recording, scorer_of(recording, ScoreName.PROBABILITY))
    assert model.samples == recording.samples == TOKENS * (EXPERTS - TOP_K)
    pooled = null_model(NullName.POOLED, recording, scorer_of(recording, ScoreName.PROBABILITY))
    assert pooled.samples == LAYERS * recording.samples


def test_an_expert_that_is_no_candidate_is_never_significant(recording: Recording) -> None:
    scores = torch.full((1, EXPERTS), -torch.inf)
    scorer = scorer_of(recording, ScoreName.OUTPUT)
    for name in (NullName.DISCARDED, NullName.POOLED, NullName.ALL, NullName.PER_EXPERT):
        assert null_model(name, recording, scorer).p_values(0, scores).eq(1).all()
    gaussian = GaussianNull(scorer, [-1.0], [1.0])
    assert gaussian.p_values(0, scores).eq(1).all()


def test_a_score_that_is_no_number_has_no_p_value(normal_record: Recording) -> None:
    scorer = scorer_of(normal_record, ScoreName.PROBABILITY)
    scores = torch.full((2, EXPERTS), torch.nan)
    for name in NullName:
        assert null_model(name, normal_record, scorer).p_values(0, scores).isnan().all(), name


@pytest.mark.parametrize("name", NullName)
def test_no_tokens_have_no_p_values(name: NullName, normal_record: Recording) -> None:
    model = null_model(name, normal_record, scorer_of(normal_record, ScoreName.PROBABILITY))
    assert model.p_values(1, torch.empty(0, EXPERTS)).shape == (0, EXPERTS)


@pytest.mark.parametrize("name", NullName)
def test_p_falls_as_the_score_rises_where_the_null_is_common(
    name: NullName, normal_record: Recording
) -> None:
    scorer = scorer_of(normal_record, ScoreName.PROBABILITY)
    model = null_model(name, normal_record, scorer)
    scores = other_scores(scorer, 0)
    p_values = model.p_values(0, scores).gather(-1, scores.argsort(dim=-1, descending=True))
    assert bool((p_values.diff(dim=-1) >= 0).all()) is model.is_common
    assert model.is_common is (name is not NullName.PER_EXPERT)


def test_a_factor_of_each_expert_cancels_out_of_nulls_of_their_own(recording: Recording) -> None:
    # An expert is compared with itself only, so its scale is nothing. Powers of two do not round.
    factors = 2.0 ** torch.arange(LAYERS * EXPERTS).view(LAYERS, EXPERTS)
    measured = dataclasses.replace(recording, factors={ScoreName.OUTPUT: factors})
    scaled, plain = scorer_of(measured, ScoreName.OUTPUT), Scorer(ScoreName.PROBABILITY)
    expected = null_model(NullName.PER_EXPERT, recording, plain)
    found = null_model(NullName.PER_EXPERT, measured, scaled)
    logits = torch.randn(20, EXPERTS, generator=torch.Generator().manual_seed(3))
    for layer in range(LAYERS):
        p_values = found.p_values(layer, scaled(layer, logits))
        assert torch.equal(p_values, expected.p_values(layer, plain(layer, logits)))


def test_an_expert_that_was_never_discarded_has_no_null(recording: Recording) -> None:
    logits = recording.logits.clone()
    logits[1, :, 5] = 100.0
    always = recorded(logits)
    scorer = Scorer(ScoreName.PROBABILITY)
    with pytest.raises(NullError, match=r"never discarded expert 5 of layer 1 .* another null"):
        null_model(NullName.PER_EXPERT, always, scorer)
    assert isinstance(null_model(NullName.DISCARDED, always, scorer), EmpiricalNull)


def test_a_null_is_fitted_once_and_anew_for_another_score(recording: Recording) -> None:
    def model(name: NullName, score: ScoreName, temperature: float = 1.0) -> NullModel:
        return null_model(name, recording, scorer_of(recording, score, temperature))

    first = model(NullName.DISCARDED, ScoreName.PROBABILITY)
    assert model(NullName.DISCARDED, ScoreName.PROBABILITY) is first
    assert isinstance(first, EmpiricalNull)
    others: list[tuple[Any, ...]] = [
        (NullName.DISCARDED, ScoreName.PROBABILITY, 2.0),
        (NullName.DISCARDED, ScoreName.LOGIT),
        (NullName.DISCARDED, ScoreName.OUTPUT),
        (NullName.ALL, ScoreName.PROBABILITY),
    ]
    for arguments in others:
        other = model(*arguments)
        assert isinstance(other, EmpiricalNull)
        assert not torch.equal(other.sorted_scores, first.sorted_scores)
    again = model(NullName.DISCARDED, ScoreName.PROBABILITY)
    assert isinstance(again, EmpiricalNull)
    assert torch.equal(again.sorted_scores, first.sorted_scores)


# The null of the earlier scripts


@pytest.mark.parametrize("experts", [8, 64])
@pytest.mark.parametrize("spread", [0.01, 1.0, 10.0])
def test_one_minus_the_probability_is_top_1_below_63_64ths(experts: int, spread: float) -> None:
    # Rank k >= 2 has P_(k) <= 1/k, hence p_(k) >= (k - 1) / k, above alpha k / m for every alpha
    # below m (k - 1) / k^2, and the smallest of these is (m - 1) / m, of k = m.
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(3000, experts, generator=generator) * spread
    recording = recorded(logits[None], TOP_K)
    scorer = Scorer(ScoreName.PROBABILITY)
    p_values = null_model(NullName.SOFTMAX, recording, scorer).p_values(0, scorer(0, logits))
    largest = logits.softmax(-1, torch.float64).amax(1)
    limit = (experts - 1) / experts
    for share in (0.001, 0.05, 0.5, 0.9, 0.995):
        alpha = share * limit
        counts = step_up_rejections(p_values, alpha)
        assert counts.max() <= 1
        clear = (largest - (1 - alpha / experts)).abs() > 1e-6
        assert torch.equal((counts == 1)[clear], (largest >= 1 - alpha / experts)[clear])


def test_one_minus_the_probability_takes_all_or_one_above_63_64ths() -> None:
    uniform = torch.full((1, 64), 1 / 64, dtype=torch.float64)
    assert step_up_rejections(1 - uniform, 63 / 64 - 1e-9).tolist() == [0]
    assert step_up_rejections(1 - uniform, 63 / 64 + 1e-9).tolist() == [64]


# Normal distributions


@pytest.mark.parametrize(("score", "temperature"), [s for s in SCORES if not s[0].has_factor])
@pytest.mark.parametrize("experts", [7, 8])
def test_the_robust_null_equals_scipys_median_and_mad(
    experts: int, score: ScoreName, temperature: float, recording: Recording
) -> None:
    scorer = scorer_of(recording, score, temperature)
    logits = torch.randn(50, experts, generator=torch.Generator().manual_seed(5))
    scores = scorer(0, logits)
    values = scores.numpy().astype(np.float64)
    if score is not ScoreName.LOGIT:
        values = scores.log().numpy().astype(np.float64)
    centre = np.median(values, axis=1, keepdims=True)
    spread = median_abs_deviation(values, axis=1, scale="normal")[:, None]
    expected = norm.sf((values - centre) / spread)
    found = null_model(NullName.ROBUST, recording, scorer).p_values(0, scores)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


def test_the_robust_null_says_the_same_of_logits_and_of_probabilities(recording: Recording) -> None:
    # The log of a probability is the logit less a constant of the token, which the median takes up.
    logits = torch.randn(50, EXPERTS, generator=torch.Generator().manual_seed(6))
    p_values = [
        null_model(NullName.ROBUST, recording, scorer).p_values(0, scorer(0, logits))
        for scorer in (Scorer(ScoreName.LOGIT), Scorer(ScoreName.PROBABILITY))
    ]
    torch.testing.assert_close(*p_values, rtol=1e-4, atol=1e-9)


def test_the_robust_null_of_equal_scores_finds_nothing(recording: Recording) -> None:
    model = null_model(NullName.ROBUST, recording, Scorer(ScoreName.LOGIT))
    assert model.p_values(0, torch.zeros(1, EXPERTS)).tolist() == [[0.5] * EXPERTS]
    # One that differs from many equal ones is infinitely far from them.
    scores = torch.zeros(1, EXPERTS)
    scores[0, 2] = 1e-3
    assert model.p_values(0, scores)[0, 2] == 0


def test_gaussian_p_values_are_the_tail_of_the_fitted_normal_distribution(
    normal_record: Recording,
) -> None:
    record = normal_record
    for name in (ScoreName.LOGIT, ScoreName.PROBABILITY):
        scorer = scorer_of(record, name)
        model = null_model(NullName.GAUSSIAN, record, scorer)
        assert isinstance(model, GaussianNull)
        assert model.samples is None
        for layer in range(LAYERS):
            recorded_scores = scorer(layer, record.logits[layer])
            on_scale = recorded_scores if name is ScoreName.LOGIT else recorded_scores.log()
            mean, std = central_matching(on_scale.flatten().numpy())
            assert (model.means[layer], model.stds[layer]) == (mean, std)
            found = model.p_values(layer, recorded_scores[:20])
            expected = norm.sf((on_scale[:20].numpy().astype(np.float64) - mean) / std)
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_central_matching_finds_a_normal_distribution(seed: int) -> None:
    # Over 20 samples of this size its standard errors were 0.005 and 0.021 for these values.
    sample = np.random.default_rng(seed).normal(-3.0, 0.8, 200_000)
    mean, std = central_matching(sample)
    assert mean == pytest.approx(-3.0, abs=0.025)
    assert std == pytest.approx(0.8, abs=0.1)


@pytest.mark.parametrize("seed", range(4))
def test_central_matching_overlooks_what_lies_in_the_tail(seed: int) -> None:
    generator = np.random.default_rng(seed)
    null, others = generator.normal(-3.0, 0.8, 180_000), generator.normal(0.5, 0.5, 20_000)
    sample = np.concatenate([null, others])
    mean, std = central_matching(sample)
    assert mean == pytest.approx(-3.0, abs=0.025)
    assert std == pytest.approx(0.8, abs=0.1)
    # What the mean and the standard deviation of all of them would say instead.
    assert sample.mean() > -2.7
    assert sample.std() > 1.2
    # So the tenth is nearly all found, and of the others about alpha at most.
    p_values = norm.sf((sample - mean) / std)
    assert (p_values[180_000:] < 0.001).mean() > 0.9
    assert (p_values[:180_000] < 0.001).mean() < 0.003


def test_central_matching_follows_a_change_of_unit() -> None:
    sample = np.random.default_rng(8).normal(1.0, 2.0, 50_000)
    mean, std = central_matching(sample)
    assert central_matching(4 * sample - 8) == pytest.approx((4 * mean - 8, 4 * std))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.concatenate([np.random.default_rng(9).normal(c, 1, 5000) for c in (-4, 4)]), "no peak"),
        (np.random.default_rng(9).exponential(1.0, 5000) ** 3, "no peak"),
        (np.ones(5000), "needs more scores"),
        (np.array([1.0, 2.0]), "needs more scores"),
    ],
    ids=["two peaks", "a slope", "one value", "two values"],
)
def test_scores_that_no_normal_distribution_fits_are_refused(
    values: np.ndarray, message: str
) -> None:
    with pytest.raises(NullError, match=message):
        central_matching(values)


@pytest.mark.parametrize("name", NullName)
def test_no_p_value_is_below_what_the_samples_allow(
    name: NullName, normal_record: Recording
) -> None:
    model = null_model(name, normal_record, scorer_of(normal_record, ScoreName.PROBABILITY))
    p_values = model.p_values(0, torch.ones(1, EXPERTS))
    if model.samples is None:
        assert name in (NullName.GAUSSIAN, NullName.ROBUST, NullName.SOFTMAX)
        return
    # The least sampled expert of all layers has the largest of the smallest p-values.
    assert float(p_values.max()) <= 1 / (model.samples + 1)
    assert name is NullName.PER_EXPERT or float(p_values.min()) == 1 / (model.samples + 1)
