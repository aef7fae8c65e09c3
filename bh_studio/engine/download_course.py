"""The state of a download over all its child processes, as events for those who watch it."""

from __future__ import annotations

import time
from pathlib import Path

from bh_studio.engine.download_messages import (
    DownloadEvent,
    DownloadFailed,
    DownloadFinished,
    DownloadPlanned,
    DownloadProgress,
    DownloadStopped,
    FileDamaged,
    PlannedFile,
    VerifyProgress,
)
from bh_studio.engine.download_rate import DownloadRate
from bh_studio.engine.download_wire import (
    Complete,
    Damaged,
    Fetching,
    Message,
    Planned,
    Problem,
    Verifying,
)
from bh_studio.engine.hub_source import HubSource
from bh_studio.engine.hub_status import hub_status


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
        """What to report of a child's message; None if it is nothing new."""
        if isinstance(message, Planned):
            return self._planned(message)
        if isinstance(message, Fetching):
            return self._progress(message)
        if isinstance(message, Verifying):
            return VerifyProgress(message.done, message.total, message.file)
        if isinstance(message, Damaged):
            return FileDamaged(message.file)
        return None

    def child_started(self) -> None:
        """From now on another child counts what it fetches, from 0."""
        self._fetched_by_child = 0

    def finished(self, message: Complete) -> DownloadFinished:
        """The last event of a complete model."""
        folder = Path(message.folder)
        return DownloadFinished(self._source, message.commit, folder, self.fetched)

    def stopped(self) -> DownloadStopped:
        """The last event after a stop."""
        return DownloadStopped(self._source, self._present)

    def failed(self, problem: Problem) -> DownloadFailed:
        """The last event after an error."""
        advice = problem.advice
        if hub_status(self._source).folder is not None:
            advice = f"{advice} The copy that is here can be used as it is.".strip()
        return DownloadFailed(self._source, problem.message, advice, problem.details)

    def _planned(self, plan: Planned) -> DownloadPlanned | None:
        files = tuple(PlannedFile(*file) for file in plan.files)
        self._present = sum(file.present for file in files)
        if self.commit:
            return None
        self.commit = plan.commit
        return DownloadPlanned(self._source, plan.commit, files, Path(plan.cache), plan.free)

    def _progress(self, message: Fetching) -> DownloadProgress:
        self.fetched += message.fetched - self._fetched_by_child
        self._fetched_by_child, self._present = message.fetched, message.done
        self._rate.add(time.monotonic(), message.done)
        return DownloadProgress(
            message.done,
            message.total,
            message.file,
            self._rate.bytes_per_second,
            self._rate.seconds_left(message.total),
        )
