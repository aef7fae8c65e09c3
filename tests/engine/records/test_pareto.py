"""The front against its definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bh_studio.engine.records.estimates import on_front


def test_hand_case() -> None:
    assert on_front([(1, 5), (2, 3), (3, 3), (2, 4), (4, 1)]) == [True, True, False, False, True]


def test_equal_choices_are_both_on_it() -> None:
    assert on_front([(1, 1), (1, 1), (0, 2)]) == [True, True, True]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20))
def test_everything_off_the_front_is_beaten_by_something_on_it(
    costs: list[tuple[int, int]],
) -> None:
    front = on_front(costs)
    best = [cost for cost, kept in zip(costs, front, strict=True) if kept]
    assert best
    for cost, kept in zip(costs, front, strict=True):
        beaten = any(a <= cost[0] and b <= cost[1] and (a, b) != cost for a, b in best)
        assert beaten != kept
