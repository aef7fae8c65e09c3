"""Numbers of a session from its counts."""

from __future__ import annotations

import numpy as np
import pytest

from bh_studio.engine.records.counts import count_statistics, first_difference, tokens_per_second


def test_count_statistics_of_a_hand_case() -> None:
    counts = np.array([[1, 4], [3, 8]], dtype=np.uint8)
    raw = np.array([[0, 4], [3, 11]], dtype=np.uint8)
    found = count_statistics(counts, raw)
    assert found.tokens == 2
    assert found.mean == 4.0
    assert found.std == pytest.approx(np.std([1, 4, 3, 8]))
    assert found.per_layer_mean == (2.0, 6.0)
    assert found.per_layer_std == (1.0, 2.0)
    assert found.histogram == (0, 1, 0, 1, 1, 0, 0, 0, 1)
    assert found.share_clamped_min == 0.25
    assert found.share_clamped_max == 0.25


def test_no_tokens_have_no_mean() -> None:
    empty = np.empty((0, 16), dtype=np.uint8)
    found = count_statistics(empty, empty)
    assert (found.tokens, found.mean, found.std, found.share_clamped_min) == (0, None, None, None)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="shape"):
        count_statistics(np.ones((2, 3), np.uint8), np.ones((2, 4), np.uint8))


def test_speed_leaves_out_the_first_token() -> None:
    assert tokens_per_second(np.array([5.0, 5.5, 6.0])) == pytest.approx(2.0)
    assert tokens_per_second(np.array([5.0])) is None
    assert tokens_per_second(np.array([])) is None


def test_first_difference() -> None:
    assert first_difference((1, 2, 3), (1, 2, 3)) is None
    assert first_difference((1, 2, 3), (1, 9, 3)) == 1
    # A side that was stopped earlier does not differ for that.
    assert first_difference((1, 2, 3), (1, 2)) is None
