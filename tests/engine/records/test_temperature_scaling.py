"""Temperatures of their own: against a minimiser, fitted without the window that they judge."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from bh_studio.engine.records.temperature_scaling import TEMPERATURES, scaled_nats


def predictions(windows: int, overconfidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits (window, token, word) of a model so much surer of itself than it is right, and the
    words (window, token) that came."""
    generator = np.random.default_rng(5)
    logits = generator.normal(0, 2, (windows, 80, 30))
    p = np.exp(log_softmax(logits, axis=-1))
    words = np.array([[generator.choice(30, p=row) for row in window] for window in p])
    return overconfidence * logits, words


def nats(logits: np.ndarray, words: np.ndarray, temperature: float) -> np.ndarray:
    """(window,) sums of -ln p."""
    log_p = log_softmax(logits / temperature, axis=-1)
    return -np.take_along_axis(log_p, words[..., None], -1)[..., 0].sum(1)


@pytest.mark.parametrize("overconfidence", [0.8, 1.0, 1.5, 2.3])
def test_each_window_is_judged_at_what_the_others_ask_for(overconfidence: float) -> None:
    logits, words = predictions(6, overconfidence)
    at_grid = np.stack([nats(logits, words, t) for t in TEMPERATURES], axis=1)
    found = scaled_nats(at_grid)

    def fitted(chosen: np.ndarray) -> float:
        best = minimize_scalar(
            lambda log_t: nats(logits[chosen], words[chosen], np.exp(log_t)).sum(),
            bounds=(-0.5, 1.0),
            method="bounded",
        )
        return float(np.exp(best.x))

    everything = np.ones(6, dtype=bool)
    assert found.temperature == pytest.approx(fitted(everything), rel=0.005)
    # The model is right once it is as sure as it should be.
    assert found.temperature == pytest.approx(overconfidence, rel=0.1)
    for window in range(6):
        others = everything.copy()
        others[window] = False
        expected = nats(logits, words, fitted(others))[window]
        assert found.nats[window] / 80 == pytest.approx(expected / 80, abs=2e-4)


def test_flattening_alone_gains_nothing() -> None:
    logits, words = predictions(6, 2.0)
    sharp = np.stack([nats(logits, words, t) for t in TEMPERATURES], axis=1)
    flat = np.stack([nats(logits / 1.3, words, t) for t in TEMPERATURES], axis=1)
    as_they_are = int(np.abs(TEMPERATURES - 1).argmin())
    assert flat[:, as_they_are].sum() < sharp[:, as_they_are].sum()
    gap = (scaled_nats(flat).nats - scaled_nats(sharp).nats).sum() / words.size
    assert gap == pytest.approx(0, abs=2e-4)


def test_a_best_temperature_beyond_the_grid_is_its_end() -> None:
    rising = np.tile(np.arange(1.0, len(TEMPERATURES) + 1), (3, 1))
    assert scaled_nats(rising).temperature == pytest.approx(TEMPERATURES[0])
    assert scaled_nats(rising[:, ::-1]).temperature == pytest.approx(TEMPERATURES[-1])
    assert scaled_nats(rising).nats.tolist() == [1, 1, 1]


def test_one_window_has_nothing_to_be_fitted_on() -> None:
    with pytest.raises(ValueError, match="there is but one"):
        scaled_nats(np.ones((1, len(TEMPERATURES))))
