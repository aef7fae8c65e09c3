"""Scores: what they are, in which dtype, and where a normal distribution may describe them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bh_studio.engine.routing.scores import Scorer
from bh_studio.engine.rules.parameters import ScoreName

LAYERS, TOKENS, EXPERTS = 2, 5, 8
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
FACTOR_SCORES = [score for score in ScoreName if score.has_factor]


def some_logits(dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(LAYERS, TOKENS, EXPERTS, generator=generator).mul(3).to(dtype)


def some_factors() -> Tensor:
    return torch.rand(LAYERS, EXPERTS, generator=torch.Generator().manual_seed(1)) + 0.1


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_probability_is_the_routers_own_bit_for_bit(dtype: torch.dtype) -> None:
    logits = some_logits(dtype)[0]
    scorer = Scorer(ScoreName.PROBABILITY)
    assert scorer.is_probability
    # As in the routers of transformers: the softmax in float32 whatever the dtype of the logits.
    assert torch.equal(scorer(0, logits), torch.softmax(logits, dim=-1, dtype=torch.float32))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ScoreName)
def test_scores_are_float32_of_the_shape_of_the_logits(name: ScoreName, dtype: torch.dtype) -> None:
    scorer = Scorer(name, 0.7, {name: some_factors()})
    for logits in (some_logits(dtype)[0], some_logits(dtype)[0, :0], some_logits(dtype)[0, 0]):
        scores = scorer(0, logits)
        assert scores.dtype == torch.float32
        assert scores.shape == logits.shape


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_the_temperature_divides_the_logits(temperature: float) -> None:
    logits = some_logits()
    expected = (logits / temperature).exp() / (logits / temperature).exp().sum(-1, keepdim=True)
    scorer = Scorer(ScoreName.PROBABILITY, temperature)
    assert scorer.is_probability is (temperature == 1.0)
    torch.testing.assert_close(scorer.of_all_layers(logits), expected)
    raw = Scorer(ScoreName.LOGIT, temperature)
    assert not raw.is_probability
    torch.testing.assert_close(raw.of_all_layers(logits), logits / temperature, rtol=0, atol=0)


@pytest.mark.parametrize("name", FACTOR_SCORES)
def test_a_factor_multiplies_the_probability_of_its_expert(name: ScoreName) -> None:
    logits, factors = some_logits(), some_factors()
    scorer = Scorer(name, 2.0, {name: factors, ScoreName.PROBABILITY: factors * 9})
    assert not scorer.is_probability
    probabilities = torch.softmax(logits / 2, dim=-1)
    for layer in range(LAYERS):
        expected = probabilities[layer] * factors[layer]
        torch.testing.assert_close(scorer(layer, logits[layer]), expected, rtol=0, atol=0)
        assert torch.equal(scorer.of_all_layers(logits)[layer], scorer(layer, logits[layer]))


@pytest.mark.parametrize("name", FACTOR_SCORES)
def test_a_factor_that_was_not_measured_is_missed(name: ScoreName) -> None:
    with pytest.raises(ValueError, match=f"^The score {name} needs a factor of each expert"):
        Scorer(name)
    others = {score: some_factors() for score in ScoreName if score is not name}
    with pytest.raises(ValueError, match="Measure it"):
        Scorer(name, 1.0, others)


def test_what_was_measured_changes_no_other_score() -> None:
    logits = some_logits()
    measured = {score: some_factors() for score in FACTOR_SCORES}
    for name in (ScoreName.PROBABILITY, ScoreName.LOGIT):
        with_factors = Scorer(name, 1.0, measured).of_all_layers(logits)
        assert torch.equal(with_factors, Scorer(name).of_all_layers(logits))


@pytest.mark.parametrize("name", FACTOR_SCORES)
def test_the_open_scale_is_the_log_of_all_but_logits(name: ScoreName) -> None:
    scores = torch.tensor([[0.5, 0.25, 0.0, -torch.inf]])
    expected = torch.tensor([[0.5, 0.25, 0.0, 0.0]]).log()
    for scorer in (Scorer(ScoreName.PROBABILITY), Scorer(name, 1.0, {name: some_factors()})):
        torch.testing.assert_close(scorer.on_open_scale(scores), expected)
    assert torch.equal(Scorer(ScoreName.LOGIT).on_open_scale(scores), scores)
