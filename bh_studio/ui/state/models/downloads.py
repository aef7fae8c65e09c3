"""Downloads of the window: owns them, and brings their reports into the GUI thread. QtCore only."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from PySide6.QtCore import QObject, Signal, Slot

from bh_studio.engine.hub.events import (
    DownloadEvent,
    DownloadFailed,
    DownloadFinished,
    DownloadPlanned,
    DownloadProgress,
    DownloadRetrying,
    DownloadStalled,
    DownloadStopped,
    FileDamaged,
    VerifyProgress,
)
from bh_studio.engine.hub.source import HubSource

_log = logging.getLogger(__name__)

_LONGEST_END_S = 15.0


class Phase(Enum):
    """Where a download is."""

    PLANNING = auto()
    FETCHING = auto()
    STALLED = auto()
    RETRYING = auto()
    VERIFYING = auto()
    STOPPING = auto()
    PAUSED = auto()
    FAILED = auto()
    FINISHED = auto()


_ENDED = (Phase.PAUSED, Phase.FAILED, Phase.FINISHED)


@dataclass(frozen=True, slots=True)
class DownloadView:
    """What the window knows of a download.

    done, total: bytes that are here, or that were verified, of all; total is 0 until it is known.
    rate: bytes a second; None while there is no telling, as seconds_left. waited: seconds without a
    byte. retry_s: seconds until the connection is made anew. damaged: a file that was fetched
    again. message, advice, details: of what went wrong last.
    """

    source: HubSource
    phase: Phase = Phase.PLANNING
    done: int = 0
    total: int = 0
    rate: float | None = None
    seconds_left: float | None = None
    waited: float = 0.0
    retry_s: float = 0.0
    damaged: str = ""
    message: str = ""
    advice: str = ""
    details: str = ""

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.phase not in _ENDED

    @property
    def share(self) -> float | None:
        """How much is done, from 0 to 1; None where that is not known."""
        return min(1.0, self.done / self.total) if self.total else None


class DownloadLike(Protocol):
    """What the window needs of engine.hub.download.Download."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def wait(self, timeout: float | None = None) -> bool: ...


MakeDownload = Callable[[HubSource, Callable[[DownloadEvent], None]], DownloadLike]


class Downloads(QObject):
    """At most one download of each source; they go on whatever window is open."""

    changed = Signal(str)
    ended = Signal(str)
    _reported = Signal(str, object)

    def __init__(self, make: MakeDownload | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._make = make or _real_download
        self._running: dict[str, DownloadLike] = {}
        self._views: dict[str, DownloadView] = {}
        # Reports come in the downloads' own threads; a slot of this object runs in its own.
        self._reported.connect(self._take)

    def view(self, source: str) -> DownloadView | None:
        """What is known of the download of `source`; None if none was started."""
        return self._views.get(source)

    @property
    def running(self) -> list[DownloadView]:
        """The downloads that have not ended, the oldest first."""
        return [self._views[source] for source in self._running]

    def start(self, source: HubSource) -> None:
        """Start a download, or go on with one that has ended; ignored while it runs."""
        key = str(source)
        if key in self._running:
            return

        def report(event: DownloadEvent) -> None:
            self._reported.emit(key, event)

        former = self._views.get(key)
        done, total = (former.done, former.total) if former is not None else (0, 0)
        self._views[key] = DownloadView(source, done=done, total=total)
        self._running[key] = download = self._make(source, report)
        download.start()
        self.changed.emit(key)

    def pause(self, source: HubSource) -> None:
        """End the download and keep what is here; `ended` follows."""
        key = str(source)
        if key in self._running and self._views[key].phase is not Phase.STOPPING:
            self._running[key].stop()
            self._show(key, phase=Phase.STOPPING)

    def forget(self, source: HubSource) -> None:
        """Drop what is known of a download that has ended."""
        key = str(source)
        if key not in self._running and self._views.pop(key, None) is not None:
            self.changed.emit(key)

    def shutdown(self) -> None:
        """End every download, keeping what is here; returns when their processes have gone."""
        # A copy, for a download leaves the dictionary when its end is reported.
        running = list(self._running.items())
        for _, download in running:
            download.stop()
        for key, download in running:
            if not download.wait(_LONGEST_END_S):
                _log.error("The download of %s does not end.", key)

    @Slot(str, object)
    def _take(self, key: str, event: DownloadEvent) -> None:
        if key not in self._running:
            return
        match event:
            case DownloadPlanned():
                self._show(key, done=event.present, total=event.total)
            case DownloadProgress():
                self._move(
                    key,
                    Phase.FETCHING,
                    done=event.done,
                    total=event.total,
                    rate=event.bytes_per_second,
                    seconds_left=event.seconds_left,
                )
            case DownloadStalled():
                self._move(key, Phase.STALLED, waited=event.seconds, retry_s=event.restart_seconds)
            case DownloadRetrying():
                self._move(key, Phase.RETRYING, message=event.message, retry_s=event.seconds)
            case VerifyProgress():
                self._move(key, Phase.VERIFYING, done=event.done, total=event.total)
            case FileDamaged(file):
                self._show(key, damaged=file)
            case DownloadStopped(_, present):
                self._end(key, Phase.PAUSED, done=present)
            case DownloadFailed(_, message, advice, details):
                _log.info("The download of %s failed: %s\n%s", key, message, details)
                self._end(key, Phase.FAILED, message=message, advice=advice, details=details)
            case DownloadFinished():
                self._end(key, Phase.FINISHED)

    def _move(self, key: str, phase: Phase, **values: object) -> None:
        """Show progress, unless Pause was pressed: then only the end is news."""
        if self._views[key].phase is not Phase.STOPPING:
            self._show(key, phase=phase, **values)

    def _end(self, key: str, phase: Phase, **values: object) -> None:
        del self._running[key]
        self._show(key, phase=phase, rate=None, seconds_left=None, **values)
        self.ended.emit(key)

    def _show(self, key: str, **values: object) -> None:
        self._views[key] = dataclasses.replace(self._views[key], **values)  # type: ignore[arg-type]
        self.changed.emit(key)


def _real_download(source: HubSource, report: Callable[[DownloadEvent], None]) -> DownloadLike:
    from bh_studio.engine.hub.download import Download

    return Download(source, report)
