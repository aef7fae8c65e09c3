"""Downloads in the window: reports from other threads, phases, words, and an end in order."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QObject, QThread, Slot
from pytestqt.qtbot import QtBot

from bh_studio.engine.errors import EngineError
from bh_studio.engine.hub.events import (
    DownloadRetrying,
    DownloadStalled,
    FileDamaged,
    VerifyProgress,
)
from bh_studio.engine.hub.source import HubSource
from bh_studio.engine.hub.status import HubState, HubStatus, hub_status
from bh_studio.engine.protocol.events import Failed
from bh_studio.ui.state.models.downloads import Downloads, DownloadView, Phase
from bh_studio.ui.state.models.hub_statuses import HubStatuses
from bh_studio.ui.state.models.words import format_duration, progress_words, short_state, trouble
from tests.fake_download import TOTAL, FakeHub
from tests.fake_hub_model import fake_model
from tests.hub_server import REPO, HubServer, hub_server, use_hub

SOURCE = HubSource("allenai/OLMoE-1B-7B-0924")
KEY = str(SOURCE)


class Witness(QObject):
    """Notes in which thread it is told of a change."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[bool] = []

    @Slot()
    def note(self) -> None:
        self.threads.append(QThread.currentThread() == self.thread())


@pytest.fixture
def hub() -> FakeHub:
    return FakeHub()


@pytest.fixture
def downloads(qapp: object, hub: FakeHub) -> Iterator[Downloads]:
    downloads = Downloads(hub.make)
    yield downloads
    downloads.shutdown()


@pytest.fixture
def statuses(qapp: object, hub: FakeHub) -> Iterator[HubStatuses]:
    statuses = HubStatuses(hub.look_up, hub.list_models, hub.discard)
    yield statuses
    statuses.shutdown()


def view_of(downloads: Downloads, key: str = KEY) -> DownloadView:
    view = downloads.view(key)
    assert view is not None
    return view


def in_another_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def test_reports_reach_the_window_in_its_own_thread(
    downloads: Downloads, hub: FakeHub, qtbot: QtBot
) -> None:
    downloads.start(SOURCE)
    witness = Witness()
    downloads.changed.connect(witness.note)
    in_another_thread(lambda: hub.last.progress(TOTAL // 2, 40e6, 173.0))
    # Reported, and not yet applied: this thread has not come to its event loop.
    assert view_of(downloads).phase is Phase.PLANNING
    qtbot.waitUntil(lambda: view_of(downloads).phase is Phase.FETCHING)
    assert view_of(downloads).share == 0.5
    assert witness.threads == [True]


def test_phases_and_words_of_a_download(downloads: Downloads, hub: FakeHub) -> None:
    said: list[tuple[str, str, str]] = []

    def note() -> None:
        view = view_of(downloads)
        said.append((short_state(view), progress_words(view), trouble(view)))

    downloads.changed.connect(note)
    downloads.start(SOURCE)
    download = hub.last
    download.progress(4_730_000_000, 43_600_000, 209.0)
    download.report(DownloadStalled(23.0, 60.0))
    download.report(DownloadRetrying("The connection was lost.", 1, 5, 4.0))
    download.progress(4_740_000_000)
    download.report(VerifyProgress(TOTAL, TOTAL, "model.safetensors"))
    download.report(FileDamaged("model.safetensors"))
    download.finish()
    kept = "what is here is kept."
    stall = f"No data for 23 s. The connection is made anew after 1 min; {kept}"
    damage = "model.safetensors was damaged on the way and is fetched again."
    hashes = "Comparing with the hub's hashes: 13.8 of 13.8 GB"
    assert said == [
        ("Starting…", "Asking the hub what there is to fetch…", ""),
        ("34 %", "4.7 of 13.8 GB  ·  43.6 MB/s  ·  3 min left", ""),
        ("No data", "4.7 of 13.8 GB", stall),
        ("Reconnecting", "4.7 of 13.8 GB", f"The connection was lost. Trying again in 4 s; {kept}"),
        ("34 %", "4.7 of 13.8 GB", ""),
        ("Verifying 100 %", hashes, ""),
        ("Verifying 100 %", hashes, damage),
        ("", "13.8 of 13.8 GB", ""),
    ]
    assert downloads.running == []


def test_pause_holds_until_the_download_has_ended(downloads: Downloads, hub: FakeHub) -> None:
    ended: list[str] = []
    downloads.ended.connect(ended.append)
    downloads.start(SOURCE)
    first = hub.last
    first.progress(5_000_000_000)
    downloads.pause(SOURCE)
    assert first.is_stopping
    first.progress(5_100_000_000)
    assert view_of(downloads).phase is Phase.STOPPING
    downloads.start(SOURCE)
    assert len(hub.downloads) == 1
    first.end_by_stop()
    assert view_of(downloads).phase is Phase.PAUSED
    assert ended == [KEY]
    downloads.start(SOURCE)
    assert len(hub.downloads) == 2
    assert hub.last.is_started
    # What was known stays on screen until the hub has answered again.
    assert view_of(downloads).done == 5_100_000_000


def test_a_failure_is_kept_and_tried_again(downloads: Downloads, hub: FakeHub) -> None:
    downloads.start(SOURCE)
    hub.last.progress(1_000_000_000)
    hub.last.fail("The disk is full.", "Make room.")
    view = view_of(downloads)
    assert (view.phase, trouble(view)) == (Phase.FAILED, "The disk is full. Make room.")
    downloads.start(SOURCE)
    assert view_of(downloads).is_running
    assert trouble(view_of(downloads)) == ""


def test_two_sources_are_two_downloads(downloads: Downloads, hub: FakeHub) -> None:
    other = HubSource("somebody/other", "v2")
    for source in (SOURCE, other):
        downloads.start(source)
    hub.downloads[0].finish()
    assert [view.source for view in downloads.running] == [other]
    assert short_state(view_of(downloads, str(other))) == "Starting…"


def test_shutdown_waits_for_every_download(downloads: Downloads, hub: FakeHub) -> None:
    for name in ("a/a", "b/b"):
        downloads.start(HubSource(name))
    downloads.shutdown()
    assert [download.is_over for download in hub.downloads] == [True, True]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (45.4, "45 s"), (59.6, "1 min"), (3540, "59 min"), (7800, "2 h 10 min"),
     (7200, "2 h"), (200_000, "56 h")],
)  # fmt: skip
def test_durations_are_as_coarse_as_estimates_are(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


def test_statuses_are_looked_up_in_another_thread(hub: FakeHub, qtbot: QtBot) -> None:
    threads: list[int] = []

    def look_up(source: HubSource) -> HubStatus:
        threads.append(threading.get_ident())
        return hub.look_up(source)

    hub.complete(KEY)
    statuses = HubStatuses(look_up, hub.list_models, hub.discard)
    before = statuses.status(KEY)
    with qtbot.waitSignal(statuses.changed):
        statuses.refresh(SOURCE)
    statuses.shutdown()
    found = statuses.status(KEY)
    assert before is None
    assert found is not None
    assert found.state is HubState.COMPLETE
    assert threads != [threading.get_ident()]


def test_other_models_of_the_cache_are_found(
    statuses: HubStatuses, hub: FakeHub, qtbot: QtBot
) -> None:
    hub.others = ["somebody/other"]
    hub.complete("somebody/other", HubState.UNVERIFIED)
    with qtbot.waitSignal(statuses.changed):
        statuses.refresh_all()
    assert statuses.found == ("somebody/other",)
    known = statuses.status(KEY)
    assert known == HubStatus(HubState.NOT_THERE)


def test_what_cannot_be_discarded_is_told(
    statuses: HubStatuses, hub: FakeHub, qtbot: QtBot
) -> None:
    hub.discard_error = EngineError("It is being downloaded right now.", "Stop that first.")
    with qtbot.waitSignal(statuses.failed) as told:
        statuses.discard(SOURCE)
    failure = told.args[0] if told.args else None
    assert isinstance(failure, Failed)
    assert (failure.message, failure.advice) == (
        "It is being downloaded right now.",
        "Stop that first.",
    )


# --- the real thing, from a hub on this machine ---


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with hub_server(fake_model()) as server:
        use_hub(server, monkeypatch, tmp_path)
        yield server


@pytest.fixture
def real(qapp: object) -> Iterator[Downloads]:
    downloads = Downloads()
    yield downloads
    downloads.shutdown()


def children() -> set[str]:
    """The processes that this one has started and that have not ended."""
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {pid for task in tasks for pid in task.read_text().split()}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are counted in /proc")
def test_a_real_download_is_ended_by_the_window_and_goes_on_later(
    server: HubServer, real: Downloads, qtbot: QtBot
) -> None:
    shard = "model-00002-of-00002.safetensors"
    server.faults.stall_after[shard] = 200_000
    before = children()
    source = HubSource(REPO)
    real.start(source)
    qtbot.waitUntil(server.stalled.is_set, timeout=60_000)
    running = children() - before
    real.shutdown()
    left = children() - before
    assert (len(running), left) == (1, set())
    assert hub_status(source).state is HubState.PARTIAL
    qtbot.waitUntil(lambda: view_of(real, REPO).phase is Phase.PAUSED)
    server.faults.stall_after.clear()
    with qtbot.waitSignal(real.ended, timeout=60_000):
        real.start(source)
    assert view_of(real, REPO).phase is Phase.FINISHED
    assert hub_status(source).state is HubState.COMPLETE
