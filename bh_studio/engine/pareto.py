"""Which of several choices nobody beats at both of two things. Knows numbers only."""

from __future__ import annotations

from collections.abc import Sequence


def on_front(costs: Sequence[tuple[float, float]]) -> list[bool]:
    """For each pair of costs, whether no other has at most the same of both and less of one."""

    def is_beaten(cost: tuple[float, float]) -> bool:
        return any(a <= cost[0] and b <= cost[1] and (a, b) != cost for a, b in costs)

    return [not is_beaten(cost) for cost in costs]
