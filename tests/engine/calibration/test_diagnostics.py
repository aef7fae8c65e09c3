"""Diagnostics of a null: by hand, against scipy, and on nulls that fit well and badly."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from bh_studio.engine.calibration.diagnostics import diagnose, ks_distance, null_fit
from bh_studio.engine.records.diagnostics import BINS, FIT_QUANTILES, NullDiagnostics, NullFit
from bh_studio.engine.records.recording import RecordingOrigin
from bh_studio.engine.routing.nulls import NullError, null_model
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.scores import Scorer
from bh_studio.engine.routing.selection import RoutingRule
from bh_studio.engine.rules.parameters import NullName, RouterShape, ScoreName
from bh_studio.engine.rules.text import parse_rule

TOP_K = 2


def record_of(logits: Tensor, top_k: int = TOP_K) -> Recording:
    origin = RecordingOrigin("model", "text", logits.shape[1], 0, logits.shape[1], top_k)
    return Recording(logits, origin)


@pytest.fixture
def recording() -> Recording:
    """Three layers of 16 experts whose tokens all come from one distribution, each layer's own."""
    torch.manual_seed(0)
    return record_of(torch.randn(3, 800, 16) * torch.tensor([1.0, 2.0, 0.5])[:, None, None])


def test_by_hand() -> None:
    # Scores are logits. First half: 0 and 1, 2 and 3 are discarded. Second half: 0.5 and 2.5,
    # 5 and 6 are, with 4, 2, 1 and 1 of (1 + the four) at least as large.
    logits = torch.tensor([[[0.0, 1, 9], [2, 3, 9], [0.5, 2.5, 9], [5, 6, 9]]])
    found = diagnose(record_of(logits, top_k=1), score=ScoreName.LOGIT, alpha=0.4)
    (layer,) = found.layers
    assert (found.fitted_tokens, found.held_out_tokens) == (2, 2)
    assert found.needed_p == pytest.approx(0.4 / 3)
    assert layer.samples == 8
    assert layer.smallest_p == pytest.approx(1 / 9)
    # p-values of the held-out null scores: 0.2, 0.2, 0.4, 0.8.
    assert layer.null_share_at_alpha == 0.75
    assert layer.ks_distance == pytest.approx(0.35)
    assert {i: share for i, share in enumerate(layer.null_histogram) if share} == {
        4: 0.5, 8: 0.25, 16: 0.25,
    }  # fmt: skip
    assert layer.null_quantiles[49] == pytest.approx(0.3)
    # Of all six, the two kept experts have 0.2 as well.
    assert layer.all_histogram[4] == pytest.approx(4 / 6)
    assert layer.pi0 == pytest.approx((1 + 1) / (0.5 * 6))


@pytest.mark.parametrize("size", [1, 2, 99, 1000])
def test_the_distance_is_scipys(size: int) -> None:
    values = np.sort(np.random.default_rng(size).uniform(0, 1, size).round(2))
    expected = stats.kstest(values, "uniform").statistic
    assert ks_distance(values) == pytest.approx(expected)


def test_held_out_scores_of_a_null_that_fits_are_uniform(recording: Recording) -> None:
    for null in (NullName.DISCARDED, NullName.PER_EXPERT, NullName.ALL):
        for layer in diagnose(recording, null).layers:
            assert layer.ks_distance < 0.04
            assert layer.null_share_at_alpha == pytest.approx(0.05, abs=0.02)
            assert sum(layer.null_histogram) == pytest.approx(1)
            assert max(layer.null_histogram) < 1.6 / BINS
            expected = np.arange(1, 100) / 100
            assert np.abs(np.array(layer.null_quantiles) - expected).max() < 0.04


def test_pi0_is_about_the_share_of_discarded_experts(recording: Recording) -> None:
    for layer in diagnose(recording).layers:
        assert layer.pi0 == pytest.approx(1 - TOP_K / 16, abs=0.04)
        assert sum(layer.all_histogram) == pytest.approx(1)
        assert layer.all_histogram[0] > layer.null_histogram[0]


def test_a_text_that_changes_in_its_middle_shows(recording: Recording) -> None:
    changed = recording.logits.clone()
    changed[1, 400:] *= 3
    unchanged, other, _ = diagnose(record_of(changed)).layers
    assert unchanged.ks_distance < 0.04
    assert other.ks_distance > 0.2


def test_one_null_for_layers_that_differ_shows(recording: Recording) -> None:
    assert max(layer.ks_distance for layer in diagnose(recording, NullName.POOLED).layers) > 0.2


def test_formulas_have_no_smallest_p_value(recording: Recording) -> None:
    for null in (NullName.GAUSSIAN, NullName.ROBUST):
        for layer in diagnose(recording, null, ScoreName.LOGIT, alpha=1e-9).layers:
            assert (layer.samples, layer.smallest_p) == (None, None)
            assert layer.ks_distance < 0.1
    softmax = diagnose(recording, NullName.SOFTMAX)
    assert all(layer.ks_distance > 0.6 for layer in softmax.layers)  # 1 - p is no p-value


def test_samples_are_those_of_the_whole_recording(recording: Recording) -> None:
    def samples(null: NullName) -> list[int | None]:
        return [layer.samples for layer in diagnose(recording, null).layers]

    assert samples(NullName.DISCARDED) == [800 * 14] * 3
    assert samples(NullName.POOLED) == [800 * 14 * 3] * 3
    assert samples(NullName.ALL) == [800 * 16] * 3
    kept = recording.logits.topk(TOP_K, dim=-1).indices
    fewest = [800 - int(torch.bincount(of_layer.flatten()).max()) for of_layer in kept]
    assert samples(NullName.PER_EXPERT) == fewest


def test_a_recording_too_small_for_alpha_is_said(recording: Recording) -> None:
    assert diagnose(recording, alpha=0.05).warnings == ()
    (warning,) = diagnose(recording, alpha=0.001).warnings
    assert warning.startswith("The null holds 11200 scores a layer, so no p-value is below 8.9e-05")
    assert diagnose(recording, NullName.POOLED, alpha=0.001).warnings == ()
    assert diagnose(recording, NullName.ROBUST, alpha=0.001).warnings == ()


def test_json_has_every_number(recording: Recording) -> None:
    found = diagnose(recording)
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values == found.to_dict()
    assert values["null"] == "discarded"
    assert len(values["layers"]) == 3
    assert len(values["layers"][0]["null_histogram"]) == BINS
    assert len(values["layers"][0]["null_quantiles"]) == 99


def test_what_cannot_be_diagnosed_is_refused(recording: Recording) -> None:
    with pytest.raises(ValueError, match="recorded from a single token"):
        diagnose(record_of(recording.logits[:, :1]))
    with pytest.raises(ValueError, match="alpha must lie between 0 and 1"):
        diagnose(recording, alpha=1.0)
    with pytest.raises(ValueError, match="softmax is made of probabilities"):
        diagnose(recording, NullName.SOFTMAX, ScoreName.LOGIT)
    with pytest.raises(ValueError, match="factor of each expert that was not measured"):
        diagnose(recording, score=ScoreName.OUTPUT)
    always_kept = recording.logits.clone()
    always_kept[1, :400, 5] = 100.0
    with pytest.raises(NullError, match="never discarded expert 5 of layer 1"):
        diagnose(record_of(always_kept), NullName.PER_EXPERT)


def test_factors_are_those_of_the_recording(recording: Recording) -> None:
    torch.manual_seed(1)
    factors = {ScoreName.OUTPUT: torch.rand(3, 16) + 0.5}
    found = diagnose(Recording(recording.logits, recording.origin, factors), score=ScoreName.OUTPUT)
    assert isinstance(found, NullDiagnostics)
    assert all(layer.ks_distance < 0.04 for layer in found.layers)
    assert found.layers != diagnose(recording).layers


# The null of a rule


def fit_of(recording: Recording, text: str) -> NullFit:
    layers, _, experts = recording.logits.shape
    shape = RouterShape(layers, experts, TOP_K, norm_topk_prob=False)
    return null_fit(RoutingRule(parse_rule(text), recording, shape))


@pytest.mark.parametrize("null", list(NullName))
def test_the_fit_of_a_rule_is_the_diagnosis_of_its_null(
    null: NullName, recording: Recording
) -> None:
    found = fit_of(recording, f"bh:0.07,null={null}")
    expected = diagnose(recording, null, alpha=0.07)
    assert found.layers == expected.layers
    assert (found.fitted_tokens, found.held_out_tokens) == (400, 400)
    assert found.levels == (0.07,) * 3
    assert found.needed_p == pytest.approx([0.07 / 16] * 3)
    assert found.is_about_discarded == expected.is_about_discarded
    assert found.held_out_scores == 400 * (14 if found.is_about_discarded else 16)


def test_the_fit_of_a_rule_is_scipys(recording: Recording) -> None:
    found = fit_of(recording, "bh:0.05,temperature=2")
    scorer = Scorer(ScoreName.PROBABILITY, 2.0)
    halves = [record_of(recording.logits[:, part]) for part in (slice(400), slice(400, None))]
    fitted = null_model(NullName.DISCARDED, halves[0], scorer)
    for layer, logits in enumerate(halves[1].logits):
        order = logits.argsort(dim=-1, descending=True)[:, TOP_K:]
        p_values = fitted.p_values(layer, scorer(layer, logits)).gather(-1, order).numpy().ravel()
        of_layer = found.layers[layer]
        assert of_layer.ks_distance == pytest.approx(stats.kstest(p_values, "uniform").statistic)
        assert of_layer.null_share_at_alpha == (p_values <= 0.05).mean()
        known = np.array(FIT_QUANTILES) * len(p_values) >= 1
        assert not known[:5].any()
        expected = stats.mstats.mquantiles(p_values, FIT_QUANTILES, alphap=1, betap=1)
        np.testing.assert_allclose(found.quantiles[layer, known], expected[known])
        assert np.isnan(found.quantiles[layer, ~known]).all()


def test_each_layer_is_judged_at_its_own_level(recording: Recording) -> None:
    found = fit_of(recording, "bh:0.05/0.1/0.2")
    for layer, alpha in enumerate((0.05, 0.1, 0.2)):
        alone = diagnose(recording, alpha=alpha)
        assert found.layers[layer] == alone.layers[layer]
    assert found.needed_p == pytest.approx([0.05 / 16, 0.1 / 16, 0.2 / 16])


def test_what_a_single_expert_needs_is_what_the_rule_compares(recording: Recording) -> None:
    harmonic = sum(1 / rank for rank in range(1, 17))
    assert fit_of(recording, "by:0.05").needed_p == pytest.approx([0.05 / 16 / harmonic] * 3)
    storey = fit_of(recording, "storey:0.05").needed_p
    pi0 = [layer.pi0 for layer in diagnose(recording).layers]
    assert storey == pytest.approx([0.05 / 16 / share for share in pi0], rel=0.05)
    higher = fit_of(recording, "hc:0.5")
    assert higher.needed_p is None
    assert higher.selects_no_single_expert == (False,) * 3


def test_a_layer_that_can_select_no_single_expert_is_said(recording: Recording) -> None:
    smallest = 1 / (800 * 14 + 1)
    level = smallest * 16
    found = fit_of(recording, f"bh:{level * 0.99}/{level * 1.01}/0.05")
    assert found.selects_no_single_expert == (True, False, False)
    assert not any(fit_of(recording, "bh:1e-6,null=gaussian").selects_no_single_expert)


def test_a_rule_without_a_null_or_with_one_of_one_token_has_no_fit(recording: Recording) -> None:
    with pytest.raises(ValueError, match="top-p needs a null"):
        fit_of(recording, "top-p:0.5")
    with pytest.raises(ValueError, match=r"from a single token.*Calibrate on a longer text"):
        fit_of(record_of(recording.logits[:, :1]), "bh:0.05")
