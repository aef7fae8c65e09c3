"""RoutingRule: limits, order, mixing weights, and one token alone the same as among many."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import OlmoeForCausalLM

from bh_studio.engine.routing.fdr import step_up_counts
from bh_studio.engine.routing.nulls import NullError, null_model
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.scores import Scorer
from bh_studio.engine.routing.selection import RoutingRule
from bh_studio.engine.rules.parameters import (
    MixingWeights,
    Mode,
    NullName,
    OnEmpty,
    RouterShape,
    RuleName,
    RuleParameters,
    ScoreName,
)
from tests.tiny_olmoe import EXPERTS, HIDDEN, LAYERS, TOP_K, tiny_model

SHAPE = RouterShape(LAYERS, EXPERTS, TOP_K, norm_topk_prob=False)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
TESTS = [RuleName.BH, RuleName.BY, RuleName.STOREY, RuleName.HIGHER_CRITICISM]
FACTOR_SCORES = [score for score in ScoreName if score.has_factor]
# Levels at which the counts of this model's tokens differ much.
LEVELS = {
    RuleName.BH: 0.2,
    RuleName.BY: 0.5,
    RuleName.STOREY: 0.2,
    RuleName.HIGHER_CRITICISM: 0.5,
    RuleName.TOP_K: 5,
    RuleName.TOP_P: 0.7,
    RuleName.MIN_P: 0.2,
    RuleName.CUT: 0.06,
    RuleName.ENTROPY: 0.75,
}


def of(rule: RuleName, **parameters: Any) -> RuleParameters:
    return RuleParameters(rule, **{"level": LEVELS[rule], "max_k": EXPERTS, **parameters})


def allowed() -> list[RuleParameters]:
    """Every rule with every score and null that goes with it."""
    found = []
    for null in NullName:
        for score in ScoreName:
            for rule in RuleName:
                try:
                    found.append(of(rule, score=score, null=null, max_k=10))
                except ValueError:
                    continue
    return found


COMBINATIONS = allowed()
NAMES = [f"{p.rule} {p.score} {p.null}" for p in COMBINATIONS]


@pytest.fixture(scope="module")
def recording(recording: Recording) -> Recording:
    """The tiny model's own logits, and factors that change the order of its experts."""
    factors = 1 + torch.rand(LAYERS, EXPERTS, generator=torch.Generator().manual_seed(0)) / 3
    return dataclasses.replace(recording, factors=dict.fromkeys(FACTOR_SCORES, factors))


def rule_of(
    parameters: RuleParameters, recording: Recording | None, shape: RouterShape = SHAPE
) -> RoutingRule:
    return RoutingRule(parameters, recording, shape)


@pytest.fixture(scope="module")
def ready(recording: Recording) -> dict[str, RoutingRule]:
    """A rule of every combination, by name."""
    return {
        name: rule_of(parameters, recording)
        for name, parameters in zip(NAMES, COMBINATIONS, strict=True)
    }


def token_logits(recording: Recording, layer: int = 1, tokens: int = 60) -> Tensor:
    return recording.logits[layer, :tokens]


# Every combination


@pytest.mark.parametrize("name", NAMES)
def test_one_token_alone_is_treated_as_among_many(
    name: str, ready: dict[str, RoutingRule], recording: Recording
) -> None:
    rule = ready[name]
    logits = token_logits(recording, layer=2, tokens=25)
    many = rule.select(2, logits)
    assert torch.equal(rule.counts(2, logits)[0], many.counts)
    assert torch.equal(rule.counts(2, logits)[1], many.raw_counts)
    for token in range(len(logits)):
        indices, weights, raw = rule.select_one(2, logits[token : token + 1])
        used = int(many.counts[token])
        assert raw == int(many.raw_counts[token])
        assert rule.count_one(2, logits[token : token + 1]) == raw
        assert torch.equal(indices[0], many.indices[token, :used])
        assert torch.equal(weights[0], many.weights[token, :used])


def check_selection(rule: RoutingRule, logits: Tensor, min_k: int, max_k: int) -> None:
    indices, weights, counts, raw = rule.select(1, logits)
    assert indices.shape == weights.shape == (len(logits), max_k)
    assert (indices.dtype, weights.dtype) == (torch.int64, torch.float32)
    assert counts.dtype == raw.dtype == torch.int64
    assert ((counts >= min_k) & (counts <= max_k)).all()
    assert torch.equal(counts, raw.clamp(min_k, max_k))
    # Real experts, none of them twice, in unused slots too.
    assert ((indices >= 0) & (indices < EXPERTS)).all()
    assert (indices.sort(dim=1).values.diff(dim=1) > 0).all()
    used = torch.arange(max_k) < counts[:, None]
    own = logits.softmax(-1, torch.float32).gather(1, indices)
    assert torch.equal(weights, torch.where(used, own, 0))
    assert (weights[used] > 0).all()
    assert (weights.sum(1) <= 1 + 1e-6).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_selection_is_one_that_experts_can_be_run_with(
    name: str, ready: dict[str, RoutingRule], recording: Recording
) -> None:
    check_selection(ready[name], token_logits(recording), 1, 10)


@pytest.mark.parametrize(("min_k", "max_k"), [(1, 1), (3, 5), (2, EXPERTS), (EXPERTS, EXPERTS)])
@pytest.mark.parametrize("rule", RuleName)
def test_the_limits_hold_for_every_rule(
    rule: RuleName, min_k: int, max_k: int, recording: Recording
) -> None:
    limited = rule_of(of(rule, min_k=min_k, max_k=max_k), recording)
    check_selection(limited, token_logits(recording), min_k, max_k)
    many = limited.select(1, token_logits(recording))
    for token in range(20):
        indices, weights, raw = limited.select_one(1, token_logits(recording)[token : token + 1])
        used = int(many.counts[token])
        assert raw == int(many.raw_counts[token])
        assert indices.shape == weights.shape == (1, used)
        assert torch.equal(indices[0], many.indices[token, :used])


@pytest.mark.parametrize("name", NAMES)
def test_no_tokens_are_no_selection(name: str, ready: dict[str, RoutingRule]) -> None:
    selection = ready[name].select(0, torch.empty(0, EXPERTS))
    assert selection.indices.shape == selection.weights.shape == (0, 10)
    assert selection.counts.shape == selection.raw_counts.shape == (0,)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_compared_in_float32_whatever_their_dtype(
    name: str, ready: dict[str, RoutingRule], recording: Recording
) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        logits = token_logits(recording).to(dtype)
        expected = ready[name].select(1, logits.float())
        for one, other in zip(ready[name].select(1, logits), expected, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("name", [n for n, p in zip(NAMES, COMBINATIONS, strict=True) if p.is_test])
def test_tests_find_nothing_in_a_token_whose_logits_are_no_numbers(
    name: str, ready: dict[str, RoutingRule]
) -> None:
    logits = torch.full((1, EXPERTS), torch.nan)
    assert ready[name].counts(0, logits)[1].tolist() == [0]
    indices, _, raw = ready[name].select_one(0, logits)
    assert raw == 0
    assert indices.shape == (1, 1)


def test_tied_experts_get_the_same_weights_alone_and_among_many(recording: Recording) -> None:
    # Which of two experts with the same probability is taken, topk decides, and its decision
    # depends on how many it is asked for; what is taken may not.
    logits = token_logits(recording, tokens=200).mul(4).round().div(4)
    rule = rule_of(of(RuleName.BH, max_k=10), recording)
    many = rule.select(1, logits)
    for token in range(len(logits)):
        _, weights, raw = rule.select_one(1, logits[token : token + 1])
        assert raw == int(many.raw_counts[token])
        assert torch.equal(weights[0], many.weights[token, : weights.shape[1]])


@pytest.mark.parametrize("normalizes", [False, True])
@pytest.mark.parametrize("weights", MixingWeights)
def test_scaled_weights_have_the_same_bits_alone_and_among_many(
    weights: MixingWeights, normalizes: bool, recording: Recording
) -> None:
    # The last bit of a sum depends on how many numbers are added, zeros too: from 8 on, here.
    shape = dataclasses.replace(SHAPE, top_k=8, norm_topk_prob=normalizes)
    generator = torch.Generator().manual_seed(7)
    scale = torch.rand(80, 1, generator=generator) * 4
    logits = torch.randn(80, EXPERTS, generator=generator) * scale
    for rule, null, max_k in (
        (RuleName.BH, NullName.DISCARDED, 5),
        (RuleName.BH, NullName.DISCARDED, 8),
        (RuleName.BH, NullName.DISCARDED, 13),
        (RuleName.BH, NullName.PER_EXPERT, 13),
        (RuleName.TOP_P, NullName.DISCARDED, 13),
    ):
        parameters = of(rule, null=null, max_k=max_k, weights=weights)
        routing = rule_of(parameters, recording, shape)
        many = routing.select(1, logits)
        assert len(set(many.counts.tolist())) > 3
        for token in range(len(logits)):
            used = int(many.counts[token])
            indices, mixing, raw = routing.select_one(1, logits[token : token + 1])
            assert raw == int(many.raw_counts[token])
            assert torch.equal(indices[0], many.indices[token, :used])
            assert torch.equal(mixing[0], many.weights[token, :used])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("normalizes", [False, True])
def test_the_models_own_experts_keep_its_weights_and_order_among_more_slots(
    normalizes: bool, dtype: torch.dtype
) -> None:
    # Rounded to few values, so that many probabilities are equal: topk's choice among them depends
    # on how many it is asked for.
    logits = torch.randn(300, EXPERTS, generator=torch.Generator().manual_seed(1))
    logits = logits.mul(4).round().div(4).to(dtype)
    for top_k in (1, 5, 8, 11):
        shape = dataclasses.replace(SHAPE, top_k=top_k, norm_topk_prob=normalizes)
        expected = logits.softmax(-1, torch.float32).topk(top_k)
        weights = expected.values
        if normalizes:
            weights = weights / weights.sum(-1, keepdim=True)
        for max_k in range(top_k, EXPERTS + 1):
            rule = rule_of(of(RuleName.TOP_K, level=top_k, max_k=max_k), None, shape)
            found = rule.select(0, logits)
            assert torch.equal(found.indices[:, :top_k], expected.indices)
            assert torch.equal(found.weights[:, :top_k], weights)
            assert (found.weights[:, top_k:] == 0).all()


# Limits


def test_an_empty_selection_gets_min_k_or_as_many_as_the_models_own(recording: Recording) -> None:
    nothing = of(RuleName.CUT, level=1.5)
    for on_empty, max_k, min_k, expected in (
        (OnEmpty.MIN_K, 10, 2, 2),
        (OnEmpty.TOP_K, 10, 2, TOP_K),
        (OnEmpty.TOP_K, 3, 2, 3),
        (OnEmpty.TOP_K, 10, 6, 6),
    ):
        parameters = dataclasses.replace(nothing, on_empty=on_empty, max_k=max_k, min_k=min_k)
        selection = rule_of(parameters, recording).select(0, token_logits(recording))
        assert (selection.raw_counts == 0).all()
        assert (selection.counts == expected).all()


def test_only_empty_selections_get_as_many_as_the_models_own(recording: Recording) -> None:
    parameters = of(RuleName.CUT, level=0.25, on_empty=OnEmpty.TOP_K)
    logits = recording.logits[0, :500]
    selection = rule_of(parameters, recording).select(0, logits)
    empty = selection.raw_counts == 0
    assert 0 < int(empty.sum()) < len(logits)
    expected = torch.where(empty, TOP_K, selection.raw_counts)
    assert torch.equal(selection.counts, expected)
    for token in range(20):
        indices, _, raw = rule_of(parameters, recording).select_one(0, logits[token : token + 1])
        assert indices.shape[1] == (raw or TOP_K)


# Order


@pytest.mark.parametrize("rule", TESTS)
@pytest.mark.parametrize("name", [n for n in NullName if n is not NullName.PER_EXPERT])
def test_a_common_null_takes_the_most_probable_experts(
    name: NullName, rule: RuleName, recording: Recording
) -> None:
    logits = token_logits(recording)
    selection = rule_of(of(rule, null=name, temperature=2.0), recording).select(1, logits)
    assert torch.equal(selection.indices, logits.argsort(dim=1, descending=True))


@pytest.mark.parametrize("score", FACTOR_SCORES)
@pytest.mark.parametrize("rule", [RuleName.BH, RuleName.CUT])
@pytest.mark.parametrize("max_k", [3, 8, EXPERTS])
def test_a_factor_orders_the_candidates(
    rule: RuleName, score: ScoreName, max_k: int, recording: Recording
) -> None:
    logits = token_logits(recording)
    selection = rule_of(of(rule, score=score, max_k=max_k), recording).select(1, logits)
    scores = Scorer(score, 1.0, recording.factors)(1, logits).tolist()
    differs = False
    for token, row in enumerate(logits.tolist()):
        candidates = sorted(range(EXPERTS), key=lambda e: -row[e])[:max_k]
        expected = sorted(candidates, key=lambda e: -scores[token][e])
        assert selection.indices[token].tolist() == expected
        differs |= expected != candidates
    assert differs
    if rule is RuleName.CUT:
        held = torch.tensor(scores).gather(1, selection.indices)
        assert torch.equal(selection.raw_counts, (held >= LEVELS[rule]).sum(1))


@pytest.mark.parametrize("score", [ScoreName.PROBABILITY, ScoreName.LOGIT, ScoreName.OUTPUT])
@pytest.mark.parametrize("rule", TESTS)
def test_nulls_of_their_own_order_experts_by_p_value_and_then_by_score(
    rule: RuleName, score: ScoreName, recording: Recording
) -> None:
    logits = token_logits(recording, layer=0)
    parameters = of(rule, score=score, null=NullName.PER_EXPERT)
    selection = rule_of(parameters, recording).select(0, logits)
    scorer = Scorer(score, 1.0, recording.factors)
    scores = scorer(0, logits)
    p_values = null_model(NullName.PER_EXPERT, recording, scorer).p_values(0, scores).tolist()
    differs = False
    for token, row in enumerate(scores.tolist()):
        expected = sorted(range(EXPERTS), key=lambda e: (p_values[token][e], -row[e]))
        assert selection.indices[token].tolist() == expected
        differs |= expected != sorted(range(EXPERTS), key=lambda e: -row[e])
    assert differs


def test_a_temperature_changes_counts_and_neither_order_nor_weights(recording: Recording) -> None:
    logits = token_logits(recording)
    one, other = (
        rule_of(of(RuleName.CUT, temperature=t), recording).select(1, logits) for t in (1.0, 2.0)
    )
    assert not torch.equal(one.counts, other.counts)
    assert torch.equal(one.indices, other.indices)
    both = torch.arange(EXPERTS) < torch.minimum(one.counts, other.counts)[:, None]
    assert torch.equal(one.weights[both], other.weights[both])


@pytest.mark.parametrize("rule", TESTS)
def test_a_temperature_says_nothing_to_tests_on_logits(
    rule: RuleName, recording: Recording
) -> None:
    # It divides the null as well. A power of two does not round.
    logits = token_logits(recording)
    for null in (NullName.DISCARDED, NullName.PER_EXPERT, NullName.ROBUST):
        one, other = (
            rule_of(of(rule, score=ScoreName.LOGIT, null=null, temperature=t), recording)
            for t in (1.0, 4.0)
        )
        assert torch.equal(one.counts(1, logits)[1], other.counts(1, logits)[1])


# Mixing weights


@pytest.mark.parametrize("rule", RuleName)
def test_renormalized_weights_sum_to_1_and_keep_their_ratios(
    rule: RuleName, recording: Recording
) -> None:
    logits = token_logits(recording)
    model = rule_of(of(rule), recording).select(1, logits)
    scaled = rule_of(of(rule, weights=MixingWeights.RENORMALIZE), recording).select(1, logits)
    assert torch.equal(scaled.counts, model.counts)
    assert torch.equal(scaled.indices, model.indices)
    torch.testing.assert_close(scaled.weights.sum(1), torch.ones(len(logits)))
    torch.testing.assert_close(scaled.weights, model.weights / model.weights.sum(1, keepdim=True))
    # A model whose own router does so keeps doing so.
    norm = dataclasses.replace(SHAPE, norm_topk_prob=True)
    for weights in MixingWeights:
        found = rule_of(of(rule, weights=weights), recording, norm).select(1, logits)
        assert torch.equal(found.weights, scaled.weights)


@pytest.mark.parametrize("rule", RuleName)
def test_matched_weights_sum_to_what_the_models_own_would(
    rule: RuleName, recording: Recording
) -> None:
    logits = token_logits(recording)
    model = rule_of(of(rule), recording).select(1, logits)
    matched = rule_of(of(rule, weights=MixingWeights.MATCH), recording).select(1, logits)
    native = logits.softmax(-1).sort(dim=1, descending=True).values[:, :TOP_K].sum(1)
    assert torch.equal(matched.counts, model.counts)
    torch.testing.assert_close(matched.weights.sum(1), native)
    expected = model.weights * (native / model.weights.sum(1))[:, None]
    torch.testing.assert_close(matched.weights, expected)
    same = model.counts == TOP_K
    torch.testing.assert_close(matched.weights[same], model.weights[same], rtol=1e-6, atol=0)


@pytest.mark.parametrize("weights", MixingWeights)
@pytest.mark.parametrize("rule", RuleName)
def test_rescaled_weights_of_one_token_are_those_among_many(
    rule: RuleName, weights: MixingWeights, recording: Recording
) -> None:
    selecting = rule_of(of(rule, weights=weights), recording)
    logits = token_logits(recording, tokens=20)
    many = selecting.select(1, logits)
    for token in range(len(logits)):
        indices, found, _ = selecting.select_one(1, logits[token : token + 1])
        used = indices.shape[1]
        # A sum that ends in zeros may be rounded otherwise than one without them.
        torch.testing.assert_close(found[0], many.weights[token, :used], rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm_topk_prob", [False, True])
@pytest.mark.parametrize("weights", [MixingWeights.MODEL, MixingWeights.MATCH])
@torch.inference_mode()
def test_top_k_at_the_models_own_k_is_its_own_router_bit_for_bit(
    weights: MixingWeights, norm_topk_prob: bool, dtype: torch.dtype
) -> None:
    model = tiny_model(dtype=dtype, norm_topk_prob=norm_topk_prob)
    shape = dataclasses.replace(SHAPE, norm_topk_prob=norm_topk_prob)
    rule = rule_of(of(RuleName.TOP_K, level=TOP_K, max_k=TOP_K, weights=weights), None, shape)
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(300, HIDDEN, generator=generator).to(dtype)
    for layer in range(LAYERS):
        logits, own_weights, own_indices = model.model.layers[layer].mlp.gate(hidden)
        selection = rule.select(layer, logits)
        assert torch.equal(selection.indices, own_indices)
        assert torch.equal(selection.weights.to(dtype), own_weights)
        logits, own_weights, own_indices = model.model.layers[layer].mlp.gate(hidden[:1])
        indices, found, raw = rule.select_one(layer, logits)
        assert raw == TOP_K
        assert torch.equal(indices, own_indices)
        assert torch.equal(found.to(dtype), own_weights)


@torch.inference_mode()
def test_top_k_with_slots_to_spare_is_the_models_own_router_too(
    model: OlmoeForCausalLM,
) -> None:
    rule = rule_of(of(RuleName.TOP_K, level=TOP_K), None)
    hidden = torch.randn(300, HIDDEN, generator=torch.Generator().manual_seed(2))
    logits, own_weights, own_indices = model.model.layers[0].mlp.gate(hidden)
    selection = rule.select(0, logits)
    assert torch.equal(selection.indices[:, :TOP_K], own_indices)
    assert torch.equal(selection.weights[:, :TOP_K], own_weights)
    assert (selection.weights[:, TOP_K:] == 0).all()


# Tables


@pytest.mark.parametrize(
    ("weights", "normalizes", "scale"),
    [
        (MixingWeights.MODEL, False, 0),
        (MixingWeights.RENORMALIZE, False, 1),
        (MixingWeights.MATCH, False, 2),
        (MixingWeights.MODEL, True, 1),
        (MixingWeights.MATCH, True, 1),
    ],
)
@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize(
    ("score", "temperature"), [(ScoreName.LOGIT, 0.5), (ScoreName.PROBABILITY, 2.0)]
)
def test_tables_hold_all_that_a_step_up_rule_decides_by(
    score: ScoreName, temperature: float, mode: Mode, weights: MixingWeights, normalizes: bool,
    scale: int, recording: Recording,
) -> None:  # fmt: skip
    shape = dataclasses.replace(SHAPE, norm_topk_prob=normalizes)
    parameters = of(
        RuleName.BH, score=score, temperature=temperature, min_k=2, max_k=5, mode=mode,
        weights=weights,
    )  # fmt: skip
    rule = rule_of(parameters, recording, shape)
    tables = rule.tables()
    assert tables is not None
    assert (tables.thresholds.dtype, tables.used_of_raw.dtype) == (torch.float32, torch.int32)
    logits = token_logits(recording)
    scores = Scorer(score, temperature)(1, logits)
    assert torch.equal(step_up_counts(scores, tables.thresholds[1]), rule.counts(1, logits)[1])
    # Where the rule only counts, experts and weights are the model's own.
    used = parameters.used_counts(EXPERTS, TOP_K)
    if mode is Mode.ANALYZE:
        used, scale = [TOP_K] * (EXPERTS + 1), int(normalizes)
    assert tables.used_of_raw.tolist() == [used] * LAYERS
    assert tables.settings.tolist() == [temperature, score is ScoreName.LOGIT, scale]


def test_tables_without_thresholds_leave_the_counting_to_the_rule(recording: Recording) -> None:
    analyze = Mode.ANALYZE
    for parameters in (
        of(RuleName.TOP_P, temperature=2.0),
        of(RuleName.BH, null=NullName.ROBUST),
        of(RuleName.BH, score=ScoreName.OUTPUT, mode=analyze),
        of(RuleName.BH, null=NullName.PER_EXPERT, mode=analyze),
    ):
        rule = rule_of(parameters, recording)
        tables = rule.tables()
        assert not rule.is_step_up
        assert tables is not None
        assert tables.thresholds.tolist() == [[math.inf] * EXPERTS] * LAYERS
        assert tables.settings.tolist() == [1, 0, 0]
    # Nor can they say which experts are taken in another order than that of the probabilities.
    for parameters in (
        of(RuleName.BH, score=ScoreName.OUTPUT),
        of(RuleName.BH, null=NullName.PER_EXPERT),
    ):
        assert rule_of(parameters, recording).tables() is None


def test_a_rule_that_counts_in_its_own_way_is_no_step_up_rule(recording: Recording) -> None:
    class Doubled(RoutingRule):
        def _raw_counts(self, layer: int, scores: Tensor) -> Tensor:
            return 2 * super()._raw_counts(layer, scores)

    assert rule_of(of(RuleName.BH), recording).is_step_up
    doubled = Doubled(of(RuleName.BH), recording, SHAPE)
    assert not doubled.is_step_up
    tables = doubled.tables()
    assert tables is not None
    assert tables.thresholds.isinf().all()


# What does not fit


@pytest.mark.parametrize("rule", TESTS)
def test_a_test_needs_a_record(rule: RuleName) -> None:
    with pytest.raises(ValueError, match=f"The rule {rule} needs a null"):
        rule_of(of(rule), None)


@pytest.mark.parametrize("score", FACTOR_SCORES)
@pytest.mark.parametrize("rule", [RuleName.BH, RuleName.CUT])
def test_a_factor_must_have_been_measured(
    rule: RuleName, score: ScoreName, recording: Recording
) -> None:
    without = dataclasses.replace(recording, factors={})
    for record in (None, without):
        with pytest.raises(ValueError, match=f"score {score} needs a factor"):
            rule_of(of(rule, score=score), record)


def test_the_rule_must_fit_the_model(recording: Recording) -> None:
    with pytest.raises(ValueError, match="max_k must not exceed the 16 experts"):
        rule_of(of(RuleName.BH, max_k=EXPERTS + 1), recording)
    with pytest.raises(ValueError, match="2 values for the 3 layers"):
        rule_of(of(RuleName.BH, level=(0.1, 0.2)), recording)
    with pytest.raises(ValueError, match="k must not exceed the 16 experts"):
        rule_of(of(RuleName.TOP_K, level=(1, 1, EXPERTS + 1)), recording)


def test_a_null_that_cannot_be_fitted_says_so(recording: Recording) -> None:
    logits = recording.logits.clone()
    logits[0, :, 7] = 50.0
    always = dataclasses.replace(recording, logits=logits)
    with pytest.raises(NullError, match="expert 7 of layer 0"):
        rule_of(of(RuleName.BH, null=NullName.PER_EXPERT), always)


def test_a_layer_that_the_model_has_not_is_an_error(recording: Recording) -> None:
    rule = rule_of(of(RuleName.BH), recording)
    with pytest.raises(IndexError):
        rule.select(LAYERS, token_logits(recording))
    with pytest.raises(IndexError):
        rule.select_one(LAYERS, token_logits(recording)[:1])


def test_levels_of_their_own_reach_their_layers(recording: Recording) -> None:
    together = rule_of(of(RuleName.BH, level=(0.01, 0.2, 0.6)), recording)
    for layer, alpha in enumerate((0.01, 0.2, 0.6)):
        alone = rule_of(of(RuleName.BH, level=alpha), recording)
        logits = token_logits(recording, layer)
        assert torch.equal(together.counts(layer, logits)[1], alone.counts(layer, logits)[1])


def test_a_null_too_small_for_the_level_is_announced(recording: Recording) -> None:
    # 46,500 scores a layer: the smallest p-value is 2.15e-5, of one expert at alpha 3.44e-4 for BH;
    # for BY at 1 + 1/2 + ... + 1/16 = 3.38 times that.
    assert recording.samples == 46_500
    needed = EXPERTS / (recording.samples + 1)
    for rule, factor in ((RuleName.BH, 1.0), (RuleName.STOREY, 1.0), (RuleName.BY, 3.380729)):
        assert rule_of(of(rule, level=needed * factor * 1.01), recording).shortage() is None
        sentence = rule_of(of(rule, level=needed * factor * 0.99), recording).shortage()
        assert sentence is not None
        assert sentence.startswith("The null holds 46500 scores a layer")
        assert "no p-value is below 2.2e-05" in sentence
    # The strictest layer decides.
    many = of(RuleName.BH, level=(0.5, needed * 0.99, 0.5))
    assert rule_of(many, recording).shortage() is not None
    # No level bounds p-values that a formula gives, nor those of higher criticism.
    assert rule_of(of(RuleName.BH, level=1e-9, null=NullName.ROBUST), recording).shortage() is None
    assert rule_of(of(RuleName.HIGHER_CRITICISM, level=1e-9), recording).shortage() is None
    assert rule_of(of(RuleName.TOP_K), None).shortage() is None
