"""Downloads by the real client from a hub on this machine that misbehaves when told to."""

from __future__ import annotations

import os
import select
import signal
import site
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from bh_studio.engine.errors import EngineError
from bh_studio.engine.hub.cache import RepositoryCache, discard_partial
from bh_studio.engine.hub.download import Patience, python_path
from bh_studio.engine.hub.events import (
    DownloadEvent,
    DownloadFinished,
    DownloadPlanned,
    DownloadProgress,
    DownloadRetrying,
    DownloadStalled,
    DownloadStopped,
    VerifyProgress,
)
from bh_studio.engine.hub.source import HubSource
from bh_studio.engine.hub.status import HubState, hub_status
from tests.fake_hub_model import SHARDS, fake_model
from tests.hub_server import COMMIT, REPO, HubServer, hub_server, use_hub
from tests.tiny_olmoe import LAYERS, save_tiny_checkpoint
from tests.watched_download import SOURCE, Watched, folder_of, partial_of

# The client's bytes reach the disk in pieces of this size.
PIECE = 2**16
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Looks into /proc or /dev/full")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with hub_server(fake_model()) as server:
        use_hub(server, monkeypatch, tmp_path)
        yield server


def has_events(count: int, events: list[DownloadEvent]) -> bool:
    return len(events) >= count


def real_client(code: str, **environment: str) -> str:
    """What `code` prints in another program that uses the hub's client and nothing of ours."""
    answer = subprocess.run(
        [sys.executable, "-c", f"from huggingface_hub import snapshot_download\n{code}"],
        env={**os.environ, "HF_HUB_DISABLE_XET": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def test_fetches_what_a_model_needs_and_nothing_else(hub: HubServer) -> None:
    watched = Watched()
    finished = watched.finished()
    needed = {
        name
        for name in hub.files
        if name not in (".gitattributes", "pytorch_model.bin", "modeling_olmoe.py", "model.gguf")
        and "/" not in name
    }
    assert finished.folder == folder_of(hub)
    assert {path.name for path in finished.folder.iterdir()} == needed
    for name in needed:
        assert (finished.folder / name).read_bytes() == hub.files[name]
    assert finished.commit == COMMIT
    assert set(hub.sent) <= needed
    plan = watched.events[0]
    assert isinstance(plan, DownloadPlanned)
    assert plan.total == sum(len(hub.files[name]) for name in needed) == plan.needed
    assert watched.kinds() == [DownloadPlanned, DownloadProgress, VerifyProgress, DownloadFinished]
    assert hub_status(SOURCE).state is HubState.COMPLETE
    assert not list(RepositoryCache.of(REPO).incomplete_files())


def test_other_programs_find_what_was_fetched(hub: HubServer) -> None:
    folder = Watched().finished().folder
    hub.forget()
    offline = real_client(f"print(snapshot_download({REPO!r}))", HF_HUB_OFFLINE="1")
    assert Path(offline) == folder
    assert hub.asked == []
    # Online as well, they take every byte from the cache.
    patterns = [path.name for path in folder.iterdir()]
    online = real_client(f"print(snapshot_download({REPO!r}, allow_patterns={patterns!r}))")
    assert Path(online) == folder
    assert hub.sent == {}


def test_what_is_complete_is_not_fetched_again(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Watched().finished().folder
    hub.forget()
    again = Watched()
    assert again.finished() == DownloadFinished(SOURCE, COMMIT, folder, fetched=0)
    assert VerifyProgress not in again.kinds()
    assert [asked.path for asked in hub.asked] == [f"/api/models/{REPO}"]
    # A commit never changes: nobody needs to be asked.
    hub.forget()
    assert Watched(HubSource(REPO, COMMIT)).finished().folder == folder
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert Watched().finished().folder == folder
    assert hub.asked == []


def test_what_another_program_fetched_is_verified_only(hub: HubServer) -> None:
    folder = Path(real_client(f"print(snapshot_download({REPO!r}))"))
    status = hub_status(SOURCE)
    assert (status.state, status.folder) == (HubState.UNVERIFIED, folder)
    hub.forget()
    watched = Watched()
    assert watched.finished() == DownloadFinished(SOURCE, COMMIT, folder, fetched=0)
    assert VerifyProgress in watched.kinds()
    assert hub.sent == {}
    assert hub_status(SOURCE).state is HubState.COMPLETE


def test_a_cut_connection_costs_no_byte_that_was_here(hub: HubServer) -> None:
    hub.faults.cut_after[SHARDS[0]] = [3 * PIECE, 2 * PIECE]
    assert Watched().finished().fetched == hub.sent.get(SHARDS[0], 0) + sum(
        sent for name, sent in hub.sent.items() if name != SHARDS[0]
    )
    starts = [asked.first_byte for asked in hub.file_requests(SHARDS[0])]
    assert starts == [None, 3 * PIECE, 5 * PIECE]
    assert hub.sent[SHARDS[0]] == len(hub.files[SHARDS[0]])


def test_pause_and_go_on(hub: HubServer) -> None:
    hub.faults.stall_after[SHARDS[0]] = 3 * PIECE
    first = Watched()
    kept = partial_of(hub, SHARDS[0])
    first.wait_for(lambda events: kept.exists() and kept.stat().st_size == 3 * PIECE)
    first.download.stop()
    stopped = first.last()
    assert isinstance(stopped, DownloadStopped)
    small = sum(len(hub.files[name]) for name in hub.sent if name != SHARDS[0])
    assert stopped.present == 3 * PIECE + small
    status = hub_status(SOURCE)
    assert (status.state, status.present, status.folder) == (
        HubState.PARTIAL,
        stopped.present,
        None,
    )
    hub.faults.stall_after.clear()
    hub.forget()
    second = Watched()
    finished = second.finished()
    plan = second.events[0]
    assert isinstance(plan, DownloadPlanned)
    assert plan.present == stopped.present
    assert status.total == plan.total
    assert finished.fetched == plan.needed == plan.total - stopped.present
    assert [asked.first_byte for asked in hub.file_requests(SHARDS[0])] == [3 * PIECE]
    assert set(hub.sent) == set(SHARDS)


def test_stopped_at_any_moment_it_never_looks_complete(hub: HubServer) -> None:
    last: DownloadEvent | None = None
    for count in (1, 2, 5, 8, 12, 14):
        watched = Watched()
        watched.wait_for(partial(has_events, count))
        watched.download.stop()
        last = watched.last()
        state = hub_status(SOURCE).state
        if isinstance(last, DownloadFinished):
            break
        assert state in (HubState.NOT_THERE, HubState.PARTIAL)
        assert not folder_of(hub).exists() or len(list(folder_of(hub).iterdir())) < 8
    folder = Watched().finished().folder
    for path in folder.iterdir():
        assert path.read_bytes() == hub.files[path.name]


@on_linux
def test_a_killed_child_is_replaced(hub: HubServer) -> None:
    # Processes of other tests' libraries may be there for as long as the tests run.
    others = children_of(os.getpid())
    hub.faults.stall_after[SHARDS[1]] = 2 * PIECE
    watched = Watched()
    kept = partial_of(hub, SHARDS[1])
    watched.wait_for(lambda events: kept.exists() and kept.stat().st_size == 2 * PIECE)
    hub.faults.stall_after.clear()
    (child,) = children_of(os.getpid()) - others
    os.kill(child, signal.SIGKILL)
    watched.finished()
    assert DownloadRetrying in watched.kinds()
    assert [asked.first_byte for asked in hub.file_requests(SHARDS[1])] == [None, 2 * PIECE]
    assert children_of(os.getpid()) == others


@on_linux
def test_the_child_ends_with_its_parent(hub: HubServer) -> None:
    hub.faults.stall_after[SHARDS[0]] = PIECE
    code = (
        "from bh_studio.engine.hub.download import Download\n"
        "from bh_studio.engine.hub.source import HubSource\n"
        f"a = Download(HubSource({REPO!r}), print)\n"
        "a.start()\n"
        "a.wait()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    try:
        assert hub.stalled.wait(30)
        (child,) = children_of(parent.pid)
        ends = os.pidfd_open(child)
    finally:
        parent.kill()
        parent.wait()
    try:
        ready, _, _ = select.select([ends], [], [], 20)
        assert ready
    finally:
        os.close(ends)


def test_a_stall_is_reported_and_then_mended(hub: HubServer) -> None:
    hub.faults.stall_after[SHARDS[0]] = 2 * PIECE
    watched = Watched(patience=Patience(stalled=0.5, restart=2.0, first_delay=0.01))
    watched.wait_for(lambda events: any(isinstance(e, DownloadStalled) for e in events))
    hub.faults.stall_after.clear()
    watched.finished()
    assert DownloadRetrying in watched.kinds()
    assert [asked.first_byte for asked in hub.file_requests(SHARDS[0])] == [None, 2 * PIECE]


def test_a_server_without_ranges_sends_the_file_anew(hub: HubServer) -> None:
    hub.faults.cut_after[SHARDS[0]] = [2 * PIECE]
    hub.faults.ignores_range = True
    watched = Watched()
    folder = watched.finished().folder
    assert (folder / SHARDS[0]).read_bytes() == hub.files[SHARDS[0]]
    done = [event.done for event in watched.events if isinstance(event, DownloadProgress)]
    total = [event.total for event in watched.events if isinstance(event, DownloadProgress)][-1]
    assert max(done) <= total


def test_a_busy_server_is_asked_again(hub: HubServer) -> None:
    hub.faults.status = [503, 500]
    watched = Watched()
    watched.finished()
    retries = [event for event in watched.events if isinstance(event, DownloadRetrying)]
    assert [retry.attempt for retry in retries] == [1, 2]
    assert "HTTP 503" in retries[0].message


def test_files_that_are_alike(hub: HubServer) -> None:
    hub.files["tokenizer_config.json"] = hub.files["generation_config.json"]
    folder = Watched().finished().folder
    for name in ("generation_config.json", "tokenizer_config.json"):
        assert (folder / name).read_bytes() == hub.files[name]
    assert hub_status(SOURCE).state is HubState.COMPLETE


def test_a_new_commit_fetches_what_changed(hub: HubServer) -> None:
    old = Watched().finished().folder
    hub.commit = "d1" * 20
    hub.files["README.md"] = b"# A better tiny model\n"
    hub.faults.cut_after["README.md"] = [3]
    hub.forget()
    finished = Watched().finished()
    assert finished.folder != old
    assert set(hub.sent) == {"README.md"}
    assert (finished.folder / "README.md").read_bytes() == hub.files["README.md"]
    assert hub_status(SOURCE).commit == hub.commit
    assert hub_status(HubSource(REPO, COMMIT)).state is HubState.COMPLETE


def test_one_download_of_a_model_at_a_time_and_discard(hub: HubServer) -> None:
    hub.faults.stall_after[SHARDS[0]] = PIECE
    first = Watched()
    assert hub.stalled.wait(30)
    assert "another BH Studio" in Watched().failed().message
    with pytest.raises(EngineError, match="right now"):
        discard_partial(SOURCE)
    first.download.stop()
    present = first.last()
    assert isinstance(present, DownloadStopped)
    assert discard_partial(SOURCE) == present.present
    assert hub_status(SOURCE).state is HubState.NOT_THERE
    assert discard_partial(SOURCE) == 0


@pytest.mark.slow
def test_what_was_fetched_loads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from bh_studio.engine.loading import load_model

    checkpoint = save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    with hub_server(files) as server:
        use_hub(server, monkeypatch, tmp_path)
        folder = Watched().finished().folder
    # The server is gone: what follows needs no network.
    info = load_model(str(SOURCE)).info
    assert (info.id, info.revision, info.layers) == (SOURCE.repo, folder.name, LAYERS)


def children_of(pid: int) -> set[int]:
    """The processes that `pid` started and that are not gone."""
    return {child.pid for child in psutil.Process(pid).children()}


def test_the_child_finds_a_checkout_and_hides_nothing_of_python(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/given")
    assert python_path(tmp_path) == os.pathsep.join([str(tmp_path), "/given"])
    # What lies beside an installed program may bear a name of the standard library.
    assert python_path(Path(site.getsitepackages()[0]).resolve()) == "/given"
    monkeypatch.delenv("PYTHONPATH")
    assert python_path(Path(site.getsitepackages()[0]).resolve()) == ""
