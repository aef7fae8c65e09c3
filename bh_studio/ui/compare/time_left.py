"""How long an answer goes on being written, at the pace of its last tokens."""

from __future__ import annotations

import math
from collections import deque

# Of the last tokens: long enough to be steady, short enough to notice that another side has ended.
_WINDOW_S = 4.0
_FEWEST_MOMENTS = 8
# Before that nothing is known.
_LEAST_MOMENTS, _LEAST_S = 4, 1.0
# How much longer than was said it may take before that is said.
_SLACK = 0.25


class TimeLeft:
    """In wall time, the turns of the other sides included. What it says only falls, by whole
    seconds, unless the pace has become clearly slower."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Another answer begins."""
        self._moments: deque[tuple[int, float]] = deque()
        self._said: int | None = None

    def note(self, tokens: int, now: float) -> None:
        """There are so many tokens at `now`, in seconds of a clock that never goes back."""
        moments = self._moments
        if tokens == 0 or (moments and moments[-1][0] == tokens):
            return
        moments.append((tokens, now))
        while len(moments) > _FEWEST_MOMENTS and now - moments[0][1] > _WINDOW_S:
            moments.popleft()

    def seconds(self, most_tokens: int) -> int | None:
        """Until there are `most_tokens`; None while that cannot be known, and at the end."""
        moments = self._moments
        if len(moments) < _LEAST_MOMENTS:
            return None
        (first, began), (last, now) = moments[0], moments[-1]
        if now - began < _LEAST_S or last >= most_tokens:
            return None
        estimate = (most_tokens - last) * (now - began) / (last - first)
        said = self._said
        if said is None or estimate <= said - 1 or estimate > said + max(1.0, _SLACK * said):
            self._said = max(1, math.ceil(estimate))
        return self._said
