"""What the messages of a download's child processes come to: sums over all of them, and rates.

Knows no process: `download` starts them.
"""

from __future__ import annotations

import collections
import time
from dataclasses import replace

from bh_studio.engine.hub.events import (
    DownloadEvent,
    DownloadFailed,
    DownloadFinished,
    DownloadPlanned,
    DownloadProgress,
    DownloadStopped,
    Message,
)
from bh_studio.engine.hub.source import HubSource
from bh_studio.engine.hub.status import hub_status

_WINDOW_SECONDS = 5.0
_FIRST_SECONDS = 0.5


class DownloadCourse:
    """Adds up what the children of one download tell.

    commit: what the first of them found out; empty before that. fetched: bytes of all of them.
    """

    def __init__(self, source: HubSource) -> None:
        self.commit = ""
        self.fetched = 0
        self._source = source
        self._rate = DownloadRate()
        self._present = 0
        self._fetched_by_child = 0

    def event(self, message: Message) -> DownloadEvent | None:
        """What to report of a child's message on the way; None if it is nothing new."""
        if isinstance(message, DownloadPlanned):
            return self._planned(message)
        if isinstance(message, DownloadProgress):
            return self._progress(message)
        return message

    def child_started(self) -> None:
        """From now on another child counts what it fetches, from 0."""
        self._fetched_by_child = 0

    def finished(self, message: DownloadFinished) -> DownloadFinished:
        """The last event of a complete model."""
        return replace(message, source=self._source, fetched=self.fetched)

    def stopped(self) -> DownloadStopped:
        """The last event after a stop."""
        return DownloadStopped(self._source, self._present)

    def failed(self, message: DownloadFailed) -> DownloadFailed:
        """The last event after an error."""
        advice = message.advice
        if hub_status(self._source).folder is not None:
            advice = f"{advice} The copy that is here can be used as it is.".strip()
        return replace(message, source=self._source, advice=advice)

    def _planned(self, plan: DownloadPlanned) -> DownloadPlanned | None:
        self._present = plan.present
        if self.commit:
            return None
        self.commit = plan.commit
        return replace(plan, source=self._source)

    def _progress(self, message: DownloadProgress) -> DownloadProgress:
        self.fetched += message.fetched - self._fetched_by_child
        self._fetched_by_child, self._present = message.fetched, message.done
        self._rate.add(time.monotonic(), message.done)
        return replace(
            message,
            bytes_per_second=self._rate.bytes_per_second,
            seconds_left=self._rate.seconds_left(message.total),
            fetched=self.fetched,
        )


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
