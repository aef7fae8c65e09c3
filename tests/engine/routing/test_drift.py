"""Whether a text is like the null's: numbers against slow loops, the level in simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from bh_studio.engine.records.decisions.drift import LEAST_TOKENS, TAIL
from bh_studio.engine.records.recording import RecordingOrigin
from bh_studio.engine.routing import drift
from bh_studio.engine.routing.drift import ALPHA, TOLERANCE, DriftMeter, drift_of
from bh_studio.engine.routing.recordings import Recording

LAYERS, EXPERTS, TOP_K = 3, 16, 4
SKIPPED = 4


def logits_of(tokens: int, seed: int, scale: float = 1.0) -> np.ndarray:
    """(token, layer, expert) of a text whose tokens, and layers, have something in common."""
    random = np.random.default_rng(seed)
    common = np.empty(tokens)
    value = random.standard_normal()
    for token, step in enumerate(random.standard_normal(tokens)):
        value = 0.8 * value + 0.6 * step
        common[token] = value
    own = random.standard_normal((tokens, LAYERS, EXPERTS))
    sharpness = scale * np.exp(0.2 * common)[:, None, None]
    return (own * sharpness).astype(np.float32)


def recording_of(logits: np.ndarray, top_k: int = TOP_K) -> Recording:
    origin = RecordingOrigin("model", "text", len(logits), SKIPPED, 512, top_k)
    return Recording(torch.from_numpy(logits).transpose(0, 1).contiguous(), origin)


@pytest.fixture(scope="module")
def meter() -> DriftMeter:
    return DriftMeter(recording_of(logits_of(6000, 0)))


def exact_numbers(null: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Slow loops: mid-ranks and tail shares among the exact discarded probabilities."""
    found = np.empty((2, LAYERS, len(logits)))
    for layer in range(LAYERS):
        scores = np.sort(discarded(null[:, layer]).ravel())
        line = np.quantile(scores, 1 - TAIL)
        for token, row in enumerate(discarded(logits[:, layer])):
            places = [np.mean(scores < s) / 2 + np.mean(scores <= s) / 2 for s in row]
            found[:, layer, token] = np.mean(places), np.mean(row > line)
    return found


def discarded(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64))
    probabilities = powers / powers.sum(-1, keepdims=True)
    return np.sort(probabilities, axis=-1)[:, : EXPERTS - TOP_K]


def test_numbers_are_those_of_slow_loops() -> None:
    null, text = logits_of(2000, 1), logits_of(40, 2, scale=1.5)
    found = DriftMeter(recording_of(null)).numbers(text)
    expected = exact_numbers(null, text)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-3)
    # A bin that the line of the tail goes through counts in part.
    np.testing.assert_allclose(found[1], expected[1], atol=0.03)
    np.testing.assert_allclose(found[1].mean(-1), expected[1].mean(-1), atol=3e-3)


def test_null_lies_at_the_middle_of_itself() -> None:
    null = logits_of(2000, 3)
    judged = DriftMeter(recording_of(null)).judge_numbers(
        DriftMeter(recording_of(null)).numbers(null)
    )
    np.testing.assert_allclose(judged.mean_places, 0.5, atol=1e-6)
    np.testing.assert_allclose(judged.tail_shares, TAIL, atol=1e-6)
    assert judged.distance == pytest.approx(0, abs=1e-4)
    assert judged.verdict == "like"


@pytest.mark.parametrize("tokens", [64, 256])
def test_level_in_simulation(meter: DriftMeter, tokens: int) -> None:
    texts = 300
    numbers = [meter.numbers(logits_of(tokens, 1000 + text)) for text in range(texts)]
    distances = np.array([meter.judge_numbers(of_text).distance for of_text in numbers])
    beyond = (distances > meter.limit(tokens) / TOLERANCE).mean()
    # Of a binomial with a share of three times ALPHA, 99.9 % lie below.
    assert beyond <= stats.binom.ppf(0.999, texts, 3 * ALPHA) / texts
    # The limit is not so far off that nothing could reach it.
    assert np.quantile(distances, 0.99) > 0.6 * meter.limit(tokens) / TOLERANCE
    assert (distances > meter.limit(tokens)).mean() <= ALPHA


@pytest.mark.parametrize("scale", [0.7, 1.4])
def test_other_scores_are_told(meter: DriftMeter, scale: float) -> None:
    judged = meter.judge(logits_of(256 + SKIPPED, 5, scale))
    assert judged.is_unlike
    assert judged.tokens == 256
    assert judged.factor is not None
    assert judged.factor > 1.5


def test_first_positions_are_left_out(meter: DriftMeter) -> None:
    text = logits_of(128 + SKIPPED, 6)
    other = text.copy()
    other[:SKIPPED] *= 100
    assert meter.judge(text) == meter.judge(other)


def test_short_text_is_not_judged(meter: DriftMeter) -> None:
    judged = meter.judge(logits_of(LEAST_TOKENS + SKIPPED - 1, 7, scale=3.0))
    assert (judged.tokens, judged.distance, judged.limit) == (LEAST_TOKENS - 1, None, None)
    assert judged.verdict == "too short to tell"
    assert not judged.is_unlike
    assert meter.judge(logits_of(LEAST_TOKENS + SKIPPED, 7, scale=3.0)).is_unlike


def test_nothing_read_says_nothing(meter: DriftMeter) -> None:
    judged = meter.judge(logits_of(2, 8))
    assert judged.tokens == 0
    assert judged.mean_places == (0.5,) * LAYERS
    assert judged.tail_shares == (TAIL,) * LAYERS


def test_short_recording_has_no_limit() -> None:
    least = drift.STRETCHES * drift.BLOCK
    text = logits_of(200, 9)
    assert DriftMeter(recording_of(logits_of(least - 1, 10))).judge(text).distance is None
    assert DriftMeter(recording_of(logits_of(least, 10))).judge(text).distance is not None


def test_long_text_is_held_to_the_limit_of_a_part(meter: DriftMeter) -> None:
    assert meter.limit(5000) == meter.limit(6000 // drift.FOLDS)
    assert meter.limit(750) < meter.limit(64)


def test_scores_that_never_vary_are_alike() -> None:
    constant = np.zeros((2000, LAYERS, EXPERTS), np.float32)
    judged = DriftMeter(recording_of(constant)).judge(constant[:100])
    assert judged.verdict == "like"
    np.testing.assert_allclose(judged.mean_places, 0.5)


def test_router_that_discards_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="discards no expert"):
        DriftMeter(recording_of(logits_of(100, 11), top_k=EXPERTS))


def test_meter_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = recording_of(logits_of(100, 12))
    assert drift_of(recording, logits_of(20, 13)) == drift_of(recording, logits_of(20, 13))
    monkeypatch.delattr(drift, "DriftMeter")
    assert drift_of(recording, logits_of(20, 13)) is not None


def test_nothing_is_said_of_a_router_that_discards_nothing() -> None:
    recording = recording_of(logits_of(100, 11), top_k=EXPERTS)
    assert drift_of(recording, logits_of(20, 13)) is None


def test_t_quantile() -> None:
    for freedom in (29, 60, 1000):
        assert math.isclose(
            drift._t_quantile(0.99, freedom), stats.t.ppf(0.99, freedom), abs_tol=1e-4
        )
