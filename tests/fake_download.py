"""A hub without a network: the interface of downloads and statuses, every event on demand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bh_studio.engine.errors import EngineError
from bh_studio.engine.hub.catalogue import HubModel
from bh_studio.engine.hub.events import (
    DownloadEvent,
    DownloadFailed,
    DownloadFinished,
    DownloadPlanned,
    DownloadProgress,
    DownloadStopped,
    PlannedFile,
)
from bh_studio.engine.hub.source import KNOWN_MODELS, HubSource, parse_hub_source
from bh_studio.engine.hub.status import HubState, HubStatus

TOTAL = 13_840_000_000
COMMIT = "3c67ecb" + "0" * 33


class FakeDownload:
    """One download. Tests call the methods below to make it report."""

    def __init__(self, hub: FakeHub, source: HubSource, report: Callable[[DownloadEvent], None]):
        self._hub = hub
        self.source = source
        self.report = report
        self.is_started = False
        self.is_stopping = False
        self.is_over = False
        self.done = 0

    # --- the interface ---

    def start(self) -> None:
        self.is_started = True

    def stop(self) -> None:
        self.is_stopping = True

    def wait(self, timeout: float | None = None) -> bool:
        """Waiting is what lets a real one end."""
        if self.is_stopping and not self.is_over:
            self.end_by_stop()
        return self.is_over

    # --- what a test makes it say ---

    def plan(self, present: int = 0) -> None:
        self.done = present
        files = (PlannedFile("model.safetensors", TOTAL, present),)
        self.report(DownloadPlanned(self.source, COMMIT, files, Path("/cache"), 2 * TOTAL))

    def progress(
        self, done: int, rate: float | None = None, seconds_left: float | None = None
    ) -> None:
        self.done = done
        self.report(DownloadProgress(done, TOTAL, "model.safetensors", rate, seconds_left))

    def end_by_stop(self) -> None:
        self.is_over = True
        state = HubState.PARTIAL if self.done else HubState.NOT_THERE
        self._hub.statuses[str(self.source)] = HubStatus(state, self.done, TOTAL)
        self.report(DownloadStopped(self.source, self.done))

    def fail(self, message: str = "The connection was lost.", advice: str = "Try later.") -> None:
        self.is_over = True
        if self.done:
            self._hub.statuses[str(self.source)] = HubStatus(HubState.PARTIAL, self.done, TOTAL)
        self.report(DownloadFailed(self.source, message, advice, "Traceback: …"))

    def finish(self) -> None:
        self.is_over = True
        self._hub.complete(str(self.source))
        self.report(DownloadFinished(self.source, COMMIT, Path("/cache/snapshot"), TOTAL))


class FakeHub:
    """Makes downloads and knows what is on this machine."""

    def __init__(self) -> None:
        self.downloads: list[FakeDownload] = []
        self.statuses: dict[str, HubStatus] = {}
        self.others: list[str] = []
        self.discarded: list[str] = []
        self.discard_error: EngineError | None = None

    @property
    def last(self) -> FakeDownload:
        """The download that was made last."""
        return self.downloads[-1]

    def complete(self, source: str, state: HubState = HubState.COMPLETE) -> None:
        """Have all of `source` on this machine."""
        self.statuses[source] = HubStatus(state, TOTAL, TOTAL, COMMIT, Path("/cache/snapshot"))

    def make(self, source: HubSource, report: Callable[[DownloadEvent], None]) -> FakeDownload:
        self.downloads.append(FakeDownload(self, source, report))
        return self.last

    def look_up(self, source: HubSource) -> HubStatus:
        return self.statuses.get(str(source), HubStatus(HubState.NOT_THERE))

    def list_models(self) -> list[HubModel]:
        known = [HubModel(k.source, self.look_up(k.source), k.description) for k in KNOWN_MODELS]
        sources = filter(None, map(parse_hub_source, self.others))
        return known + [HubModel(source, self.look_up(source)) for source in sources]

    def discard(self, source: HubSource) -> int:
        if self.discard_error is not None:
            raise self.discard_error
        self.discarded.append(str(source))
        return self.statuses.pop(str(source), HubStatus(HubState.NOT_THERE)).present
