"""The speed of a download over its last seconds, and the time that remains."""

from __future__ import annotations

import collections

_WINDOW_SECONDS = 5.0
_FIRST_SECONDS = 0.5


class DownloadRate:
    """Told how many bytes are here and when, in seconds of a steady clock."""

    def __init__(self) -> None:
        self._samples: collections.deque[tuple[float, int]] = collections.deque()

    def add(self, now: float, done: int) -> None:
        """Bytes here at `now`; fewer than before start the measurement anew."""
        if self._samples and done < self._samples[-1][1]:
            self._samples.clear()
        self._samples.append((now, done))
        while len(self._samples) > 2 and self._samples[1][0] <= now - _WINDOW_SECONDS:
            self._samples.popleft()

    @property
    def bytes_per_second(self) -> float | None:
        """The mean of the last seconds; None until half a second was seen."""
        if len(self._samples) < 2:
            return None
        (first, before), (last, after) = self._samples[0], self._samples[-1]
        return (after - before) / (last - first) if last - first >= _FIRST_SECONDS else None

    def seconds_left(self, total: int) -> float | None:
        """At this speed, until `total` bytes are here; None where there is no telling."""
        speed = self.bytes_per_second
        return (total - self._samples[-1][1]) / speed if speed else None
