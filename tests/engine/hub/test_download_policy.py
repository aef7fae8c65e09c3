"""When a download waits, tries again, gives up and ends, with children that follow a script."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bh_studio.engine.hub import download
from bh_studio.engine.hub.download import Download, Patience
from bh_studio.engine.hub.events import (
    DownloadEvent,
    DownloadFailed,
    DownloadFinished,
    DownloadPlanned,
    DownloadProgress,
    DownloadRetrying,
    DownloadStalled,
    DownloadStopped,
    Message,
    PlannedFile,
)
from bh_studio.engine.hub.source import HubSource

SOURCE = HubSource("owner/name")
COMMIT = "c0" * 20
QUICK = Patience(stalled=30, restart=30, attempts=3, first_delay=0.001, longest_delay=0.002)
FILES = (PlannedFile("config.json", 10, 0), PlannedFile("model.safetensors", 90, 5))
PLAN = DownloadPlanned(SOURCE, COMMIT, FILES, Path("/cache"), 1000)
LOST = DownloadFailed(
    SOURCE, "The hub cannot be reached.", "Check the network.", "details", is_temporary=True
)
REFUSED = DownloadFailed(SOURCE, "No such model.", "Check the spelling.", "details")
COMPLETE = DownloadFinished(SOURCE, COMMIT, Path("/cache/folder"))

Script = Sequence[Message | None]


@dataclass
class Children:
    """Makes children that follow scripts. commits: what each was told. closed: how many were."""

    scripts: list[Script] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    closed: int = 0

    def make(self, source: HubSource, commit: str, *, plan_only: bool) -> ScriptedChild:
        self.commits.append(commit)
        return ScriptedChild(self, self.scripts.pop(0))


class ScriptedChild:
    """Tells the messages of its script; None ends it, and after the last it falls silent."""

    def __init__(self, children: Children, script: Script) -> None:
        self._children = children
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        for message in script:
            self._messages.put(message)

    def next_message(self, timeout: float) -> Message | None:
        return self._messages.get(timeout=timeout)

    def kill(self) -> None:
        self._messages.put(None)

    def close(self) -> None:
        self._children.closed += 1

    def unexpected_end(self) -> DownloadFailed:
        return LOST


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Children:
    made = Children()
    monkeypatch.setattr(download, "ChildProcess", made.make)
    return made


def run(
    children: Children, *scripts: Script, patience: Patience = QUICK, plan_only: bool = False
) -> list[DownloadEvent]:
    """The events of a download whose children follow `scripts`, one after the other."""
    children.scripts[:] = scripts
    events: list[DownloadEvent] = []
    a_download = Download(SOURCE, events.append, patience=patience, plan_only=plan_only)
    a_download.start()
    assert a_download.wait(10)
    assert not a_download.is_running
    assert children.closed == len(children.commits)
    return events


def fetching(done: int, fetched: int) -> DownloadProgress:
    return DownloadProgress(done, 100, "model.safetensors", fetched=fetched)


def test_events_of_an_undisturbed_download(children: Children) -> None:
    events = run(children, [PLAN, fetching(50, 45), fetching(100, 95), COMPLETE])
    plan, first, second, last = events
    assert plan == PLAN
    assert (PLAN.total, PLAN.present, PLAN.needed, PLAN.fits) == (100, 5, 95, True)
    assert isinstance(first, DownloadProgress)
    assert isinstance(second, DownloadProgress)
    assert (first.done, second.done, second.total) == (50, 100, 100)
    assert (first.fetched, second.fetched) == (45, 95)
    assert last == DownloadFinished(SOURCE, COMMIT, Path("/cache/folder"), fetched=95)


def test_a_lost_connection_is_made_anew_and_the_plan_told_once(children: Children) -> None:
    events = run(
        children,
        [LOST],
        [PLAN, fetching(50, 45), LOST],
        [PLAN, fetching(60, 10), None],
        [PLAN, fetching(100, 40), COMPLETE],
    )
    assert sum(isinstance(event, DownloadPlanned) for event in events) == 1
    # The count starts anew, for bytes came in between.
    attempts = [event.attempt for event in events if isinstance(event, DownloadRetrying)]
    assert attempts == [1, 1, 1]
    # What the first child found out holds for the others, even if the branch moves.
    assert children.commits == ["", "", COMMIT, COMMIT]
    assert isinstance(events[-1], DownloadFinished)
    assert events[-1].fetched == 95


def test_gives_up_after_attempts_without_a_byte(children: Children) -> None:
    script: Script = [PLAN, LOST]
    events = run(children, [PLAN, fetching(50, 45), LOST], *[script] * 3)
    retries = [event for event in events if isinstance(event, DownloadRetrying)]
    assert [retry.attempt for retry in retries] == [1, 2, 3]
    assert [retry.seconds for retry in retries] == [0.001, 0.002, 0.002]
    assert retries[0].message == LOST.message
    assert events[-1] == LOST


def test_does_not_try_again_where_that_is_of_no_use(children: Children) -> None:
    events = run(children, [REFUSED])
    assert events == [REFUSED]


def test_a_stall_is_reported_once_and_then_the_child_replaced(children: Children) -> None:
    patience = Patience(stalled=0.05, restart=0.1, attempts=2, first_delay=0.001)
    events = run(
        children,
        [PLAN, fetching(50, 45)],
        [PLAN, fetching(100, 50), COMPLETE],
        patience=patience,
    )
    kinds = [type(event) for event in events]
    assert kinds == [
        DownloadPlanned,
        DownloadProgress,
        DownloadStalled,
        DownloadRetrying,
        DownloadProgress,
        DownloadFinished,
    ]
    stalled = events[2]
    assert isinstance(stalled, DownloadStalled)
    assert stalled.seconds >= 0.05
    assert stalled.restart_seconds == 0.1


def test_the_plan_only(children: Children) -> None:
    plan, last = run(children, [PLAN, None], plan_only=True)
    assert isinstance(plan, DownloadPlanned)
    assert last == DownloadStopped(SOURCE, present=5)


@pytest.mark.parametrize("script", [[], [PLAN], [PLAN, fetching(50, 45)]])
def test_stop_ends_it_at_once(children: Children, script: Script) -> None:
    children.scripts[:] = [script]
    events: list[DownloadEvent] = []
    seen = threading.Semaphore(0)

    def report(event: DownloadEvent) -> None:
        events.append(event)
        seen.release()

    a_download = Download(SOURCE, report, patience=QUICK)
    a_download.start()
    for _ in script:
        assert seen.acquire(timeout=10)
    assert a_download.is_running
    a_download.stop()
    a_download.stop()
    assert a_download.wait(10)
    assert len(events) == len(script) + 1
    assert events[-1] == DownloadStopped(SOURCE, present={0: 0, 1: 5, 2: 50}[len(script)])
    assert children.closed == len(children.commits)


def test_stop_while_it_waits_to_try_again(children: Children) -> None:
    children.scripts[:] = [[LOST]]
    events: list[DownloadEvent] = []
    waits = threading.Event()

    def report(event: DownloadEvent) -> None:
        events.append(event)
        waits.set()

    a_download = Download(SOURCE, report, patience=Patience(first_delay=60, longest_delay=60))
    a_download.start()
    assert waits.wait(10)
    a_download.stop()
    assert a_download.wait(10)
    assert [type(event) for event in events] == [DownloadRetrying, DownloadStopped]


def test_an_object_is_used_once(children: Children) -> None:
    children.scripts[:] = [[REFUSED]]
    a_download = Download(SOURCE, lambda event: None)
    assert not a_download.is_running
    a_download.start()
    assert a_download.wait(10)
    with pytest.raises(RuntimeError):
        a_download.start()
