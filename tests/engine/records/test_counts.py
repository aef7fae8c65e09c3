"""Numbers of a session from its counts."""

from __future__ import annotations

import numpy as np
import pytest

from bh_studio.engine.records.counts import (
    count_statistics,
    first_difference,
    limit_shares,
    tokens_per_second,
)


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


def test_limits_by_layer_are_those_of_all_pairs() -> None:
    counts = np.array([[1, 4], [3, 8], [1, 8]], dtype=np.uint8)
    raw = np.array([[0, 4], [3, 11], [1, 9]], dtype=np.uint8)
    least, most = limit_shares(counts, raw)
    assert least.tolist() == pytest.approx([1 / 3, 0])
    assert most.tolist() == pytest.approx([0, 2 / 3])
    found = count_statistics(counts, raw)
    assert (least.mean(), most.mean()) == pytest.approx(
        (found.share_clamped_min, found.share_clamped_max)
    )


def test_tokens_that_were_counted_together_are_the_tokens_one_by_one() -> None:
    generator = np.random.default_rng(0)
    raw = generator.integers(0, 12, (50, 3), dtype=np.uint8)
    one_by_one = count_statistics(raw.clip(2, 6), raw)
    # (raw count, layer): how many tokens had it.
    times = np.array([np.bincount(layer, minlength=12) for layer in raw.T]).T
    each = np.broadcast_to(np.arange(12)[:, None], times.shape)
    together = count_statistics(each.clip(2, 6), each, times)
    assert together.tokens == 50
    assert together.std == pytest.approx(one_by_one.std)
    assert together.per_layer_std == pytest.approx(one_by_one.per_layer_std)
    # The sums are whole numbers, so that nothing is rounded before the division.
    for name in ("mean", "per_layer_mean", "histogram", "share_clamped_min", "share_clamped_max"):
        assert getattr(together, name) == getattr(one_by_one, name)
    nothing = count_statistics(each, each, np.zeros_like(times))
    assert nothing == count_statistics(raw[:0], raw[:0])


def test_spread_is_what_numpy_says_to_the_last_bit() -> None:
    """Sessions of former versions are compared with what is computed now."""
    counts = np.random.default_rng(1).integers(0, 9, (777, 16), dtype=np.uint8)
    for block in (counts, np.asfortranarray(counts)):
        found = count_statistics(block, block)
        assert found.std == float(block.astype(np.float64).std())
        assert found.per_layer_std == tuple(block.astype(np.float64).std(axis=0).tolist())


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
