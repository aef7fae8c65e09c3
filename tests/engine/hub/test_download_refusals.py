"""Downloads that damage, a refusal, the disk or a bad repository gets in the way of."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bh_studio.engine.hub.download import Patience
from bh_studio.engine.hub.events import FileDamaged
from bh_studio.engine.hub.source import HubSource
from bh_studio.engine.hub.status import HubState, hub_status
from tests.fake_hub_model import SHARDS, fake_model
from tests.hub_server import REPO, HubServer, hub_server, use_hub
from tests.watched_download import SOURCE, Watched, folder_of, partial_of

CONFIG = "config.json"
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Looks into /proc or /dev/full")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with hub_server(fake_model()) as server:
        use_hub(server, monkeypatch, tmp_path)
        yield server


def test_a_damaged_file_is_fetched_once_more(hub: HubServer) -> None:
    hub.faults.damaged.update({SHARDS[1]: 1, CONFIG: 1})
    watched = Watched()
    folder = watched.finished().folder
    damaged = [event.file for event in watched.events if isinstance(event, FileDamaged)]
    assert damaged == [CONFIG, SHARDS[1]]
    for name in (CONFIG, *SHARDS):
        assert (folder / name).read_bytes() == hub.files[name]
    assert len(hub.file_requests(SHARDS[0])) == 1


def test_a_file_that_stays_damaged_is_an_error(hub: HubServer) -> None:
    hub.faults.damaged[SHARDS[1]] = 2
    failed = Watched().failed()
    assert SHARDS[1] in failed.message
    assert "damaged twice" in failed.message
    status = hub_status(SOURCE)
    assert status.state is HubState.PARTIAL
    assert not partial_of(hub, SHARDS[1]).exists()
    assert not folder_of(hub).exists()


def test_a_file_damaged_on_the_disk_is_mended(hub: HubServer) -> None:
    folder = Watched().finished().folder
    blob = (folder / SHARDS[0]).resolve()
    blob.write_bytes(b"\0" + blob.read_bytes()[1:])
    os.utime(blob, ns=(0, 0))
    assert hub_status(SOURCE).state is not HubState.COMPLETE
    hub.forget()
    watched = Watched()
    assert watched.finished().fetched == len(hub.files[SHARDS[0]])
    assert set(hub.sent) == {SHARDS[0]}
    assert (folder / SHARDS[0]).read_bytes() == hub.files[SHARDS[0]]


def test_no_network(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.close()
    failed = Watched(patience=Patience(first_delay=0.01, attempts=1)).failed()
    assert failed.message.startswith(f"The hub at {hub.url} cannot be reached")
    assert "network" in failed.advice


def test_offline_touches_no_network(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    failed = Watched().failed()
    assert "HF_HUB_OFFLINE" in failed.message
    assert hub.asked == []


@pytest.mark.parametrize(
    ("source", "denied", "message", "advice"),
    [
        (HubSource("owner/nothing"), None, "has no model owner/nothing", "hf auth login"),
        (HubSource(REPO, "v2"), None, "has no revision 'v2'", "a branch, a tag"),
        (SOURCE, (403, "GatedRepo", "Ask."), "accepted its terms", f"/{REPO} in a browser"),
        (SOURCE, (401, "GatedRepo", "Ask."), "accepted its terms", "HF_TOKEN"),
        (SOURCE, (403, "", "No."), "refuses access", "HF_TOKEN"),
    ],
)
def test_refusals_are_explained(
    hub: HubServer,
    source: HubSource,
    denied: tuple[int, str, str] | None,
    message: str,
    advice: str,
) -> None:
    hub.faults.files_denied = denied
    failed = Watched(source).failed()
    assert message in failed.message
    assert advice in failed.advice


def test_the_token_goes_to_the_hub_alone(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_openSesame123")
    watched = Watched()
    watched.finished()
    sent = {
        asked.server: {a.authorization for a in hub.asked if a.server == asked.server}
        for asked in hub.asked
    }
    assert sent == {"hub": {"Bearer hf_openSesame123"}, "cdn": {None}}
    assert "openSesame" not in repr(watched.events)


def test_the_token_is_never_shown(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "open-sesame")
    said = "Invalid credentials in Authorization header: Bearer open-sesame"
    hub.faults.denied = (401, "", said)
    failed = Watched().failed()
    assert "access token" in failed.message
    assert "open-sesame" not in repr(failed)
    assert "Authorization header" in failed.details


@pytest.mark.parametrize(
    ("name", "listed", "message"),
    [
        ("x", {"rfilename": "../../../evil.json"}, "outside its folder"),
        ("config.json", {"blobId": "../../../../evil"}, "could not be verified"),
        (SHARDS[0], {"lfs": {"sha256": "../evil", "size": 9, "pointerSize": 1}}, "verified"),
        (SHARDS[0], {"lfs": {"sha256": "a" * 64, "size": 10**15, "pointerSize": 1}}, "no room"),
        (SHARDS[1], {"rfilename": "weights.bin"}, "does not hold"),
    ],
)
def test_nothing_is_fetched_of_what_cannot_be_trusted(
    hub: HubServer, tmp_path: Path, name: str, listed: dict[str, object], message: str
) -> None:
    hub.files.setdefault(name, b"x")
    hub.listed[name] = listed
    failed = Watched().failed()
    assert message in failed.message
    assert not set(hub.sent) & set(SHARDS)
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]


def test_no_room_names_the_numbers_and_the_place(hub: HubServer, tmp_path: Path) -> None:
    hub.listed[SHARDS[0]] = {"lfs": {"sha256": "a" * 64, "size": 10**15, "pointerSize": 1}}
    failed = Watched().failed()
    assert "1,000,000 GB are to be fetched" in failed.message
    assert "GB are free" in failed.message
    assert str(tmp_path / "hub") in failed.message


@on_linux
def test_a_disk_that_fills_up(hub: HubServer) -> None:
    full = partial_of(hub, SHARDS[1])
    full.parent.mkdir(parents=True)
    full.symlink_to("/dev/full")
    failed = Watched().failed()
    assert failed.message.startswith("The disk is full")
    assert hub_status(SOURCE).state is HubState.PARTIAL
    full.unlink()
    hub.forget()
    Watched().finished()
    assert set(hub.sent) == {SHARDS[1]}


def test_a_cache_that_cannot_be_used(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "file"))
    failed = Watched().failed()
    assert f"{tmp_path / 'file'}" in failed.message
    assert "cannot be used" in failed.message
    assert "HF_HOME" in failed.advice


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b'{"model_type": "llama"}', "type llama has no experts"),
        (b'{"model_type": "olmoe", "num_experts": "many", "num_experts_per_tok": 8}', "no sense"),
        (b"[]", "cannot be read"),
    ],
)
def test_a_model_of_another_kind_is_refused_before_its_weights(
    hub: HubServer, config: bytes, message: str
) -> None:
    hub.files[CONFIG] = config
    failed = Watched().failed()
    assert message in failed.message
    assert failed.advice
    assert set(hub.sent) == {CONFIG}
