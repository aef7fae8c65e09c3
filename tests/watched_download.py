"""A real download whose events a test waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from bh_studio.engine.hub.cache import RepositoryCache
from bh_studio.engine.hub.download import Download, Patience
from bh_studio.engine.hub.events import (
    DownloadEvent,
    DownloadFailed,
    DownloadFinished,
    DownloadStopped,
)
from bh_studio.engine.hub.source import HubSource
from tests.hub_server import REPO, HubServer

SOURCE = HubSource(REPO)
QUICK = Patience(first_delay=0.01, attempts=2)
LAST = DownloadFinished | DownloadStopped | DownloadFailed


class Watched:
    """A download that is watched, and ended with the test."""

    def __init__(self, source: HubSource = SOURCE, patience: Patience = QUICK) -> None:
        self.events: list[DownloadEvent] = []
        self._changed = threading.Condition()
        self.download = Download(source, self._report, patience=patience)
        self.download.start()

    def _report(self, event: DownloadEvent) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait_for(self, happened: Callable[[list[DownloadEvent]], object]) -> None:
        """Wait until `happened` is true of the events so far, or the last of them has come."""

        def is_over() -> bool:
            return bool(self.events) and isinstance(self.events[-1], LAST)

        with self._changed:
            assert self._changed.wait_for(lambda: happened(self.events) or is_over(), timeout=30), (
                self.events
            )

    def last(self) -> DownloadEvent:
        """The last event, when it has come."""
        try:
            assert self.download.wait(30), self.events
        finally:
            self.download.stop()
        assert [isinstance(event, LAST) for event in self.events].count(True) == 1
        return self.events[-1]

    def finished(self) -> DownloadFinished:
        """The last event, which must be success."""
        last = self.last()
        assert isinstance(last, DownloadFinished), last
        return last

    def failed(self) -> DownloadFailed:
        """The last event, which must be an error."""
        last = self.last()
        assert isinstance(last, DownloadFailed), last
        return last

    def kinds(self) -> list[type[DownloadEvent]]:
        """The kinds of the events so far, repetitions left out."""
        return list(dict.fromkeys(type(event) for event in self.events))


def folder_of(hub: HubServer) -> Path:
    """The snapshot that a download from `hub` makes."""
    return RepositoryCache.of(REPO).snapshot(hub.commit)


def partial_of(hub: HubServer, name: str) -> Path:
    """Where the bytes of a file are kept until they are verified."""
    return RepositoryCache.of(REPO).partial(hub.etag(name))
