"""How often experts ran, and how evenly: by hand, and piece by piece as at once."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bh_studio.engine.records.decisions.routed_experts import NO_EXPERT as NONE
from bh_studio.engine.records.decisions.utilisation import Utilisation

# Two layers of four experts, two slots.
ROUTED = np.array(
    [
        [[0, 1], [3, NONE]],
        [[0, NONE], [3, NONE]],
        [[1, 0], [3, NONE]],
        [[1, NONE], [NONE, NONE]],
    ],
    np.uint8,
)


def test_each_expert_is_counted_where_it_ran() -> None:
    counted = Utilisation.of(ROUTED, 4)
    assert counted.positions == 4
    assert counted.ran.tolist() == [[3, 3, 0, 0], [0, 0, 0, 3]]
    assert counted.shares.tolist() == [[0.75, 0.75, 0, 0], [0, 0, 0, 0.75]]
    assert counted.idle.tolist() == [2, 3]


def test_balance_is_entropy_over_that_of_an_even_layer() -> None:
    assert Utilisation.of(ROUTED, 4).balance.tolist() == pytest.approx([0.5, 0.0])
    even = np.arange(4, dtype=np.uint8).reshape(4, 1, 1)
    assert Utilisation.of(even, 4).balance.tolist() == pytest.approx([1.0])
    assert math.copysign(1, Utilisation.of(ROUTED, 4).balance[1]) == 1


def test_a_layer_in_which_nothing_ran_has_no_balance() -> None:
    counted = Utilisation(2, 4)
    assert counted.shares.tolist() == [[0] * 4] * 2
    assert counted.idle.tolist() == [4, 4]
    assert np.isnan(counted.balance).all()
    assert Utilisation.of(np.zeros((3, 1, 1), np.uint8), 1).balance.tolist() == [0.0]


def test_positions_that_come_one_by_one_count_as_all_at_once() -> None:
    routed = np.random.default_rng(3).permuted(
        np.tile(np.arange(64, dtype=np.uint8), (50, 16, 1)), axis=2
    )[..., :8]
    counted = Utilisation(16, 64)
    for position in routed:
        counted.extend(position[None])
    whole = Utilisation.of(routed, 64)
    assert (counted.ran == whole.ran).all()
    assert whole.ran.sum() == 50 * 16 * 8
    assert counted.balance.tolist() == whole.balance.tolist()


def test_experts_of_another_model_are_refused() -> None:
    with pytest.raises(ValueError, match="of 2 layers, not of 3"):
        Utilisation(3, 4).extend(ROUTED)
