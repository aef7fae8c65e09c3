"""The hub's cache: where it is, and what is done in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bh_studio.engine.hub.cache import RepositoryCache, cache_dir, discard_partial, is_offline
from bh_studio.engine.hub.files import HubFile
from bh_studio.engine.hub.source import HubSource

COMMIT = "c0" * 20
FILE = HubFile("config.json", 5, "0a" * 20)
WEIGHTS = HubFile("model.safetensors", 5, "0b" * 32)


@pytest.fixture
def repository(tmp_path: Path) -> RepositoryCache:
    made = RepositoryCache("owner/name", tmp_path)
    made.blob("x").parent.mkdir(parents=True)
    return made


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"HF_HOME": "~/models"},
        {"HF_HOME": "/a", "HF_HUB_CACHE": "$HOME/hub"},
        {"HUGGINGFACE_HUB_CACHE": "/old"},
        {"XDG_CACHE_HOME": "/x"},
    ],
)
def test_it_is_where_the_client_has_it(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code = "from huggingface_hub import constants as c; print(c.HF_HUB_CACHE, c.HF_HUB_OFFLINE)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert answer.stdout.split() == [str(cache_dir()), str(is_offline())]


@pytest.mark.parametrize(("given", "offline"), [("1", True), ("yes", True), ("0", False)])
def test_offline(given: str, offline: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", given)
    assert is_offline() is offline


def test_verified_bytes_become_a_file_of_the_snapshot(repository: RepositoryCache) -> None:
    repository.partial(FILE.etag).write_bytes(b"12345")
    assert repository.find(COMMIT, FILE) == repository.partial(FILE.etag)
    repository.publish(COMMIT, FILE)
    pointer = repository.snapshot(COMMIT) / FILE.name
    assert pointer.read_bytes() == b"12345"
    assert pointer.resolve() == repository.blob(FILE.etag)
    assert not pointer.readlink().is_absolute()
    repository.publish(COMMIT, FILE)
    assert pointer.read_bytes() == b"12345"


@pytest.mark.parametrize("file", [FILE, WEIGHTS])
def test_where_there_are_no_links(
    repository: RepositoryCache, file: HubFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: object) -> None:
        raise OSError("A required privilege is not held by the client.")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    alike = HubFile("other.json", 5, FILE.etag)
    repository.partial(file.etag).write_bytes(b"12345")
    repository.publish(COMMIT, file)
    assert (repository.snapshot(COMMIT) / file.name).read_bytes() == b"12345"
    assert repository.blob(file.etag).exists() is (file is FILE)
    if file is FILE:
        repository.publish(COMMIT, alike)
        assert (repository.snapshot(COMMIT) / alike.name).read_bytes() == b"12345"


def test_bytes_that_are_here(repository: RepositoryCache) -> None:
    assert repository.present(COMMIT, FILE) == 0
    repository.partial(FILE.etag).write_bytes(b"123")
    assert repository.present(COMMIT, FILE) == 3
    # More bytes than there should be are of no use.
    repository.partial(FILE.etag).write_bytes(b"123456")
    assert repository.present(COMMIT, FILE) == 0
    repository.blob(FILE.etag).write_bytes(b"12345")
    assert repository.present(COMMIT, FILE) == 5
    repository.remove(COMMIT, FILE)
    assert repository.present(COMMIT, FILE) == 0


def test_what_a_branch_stands_for(repository: RepositoryCache) -> None:
    assert repository.resolve("") == ""
    repository.set_ref("", COMMIT)
    repository.set_ref("refs/pr/1", "d1" * 20)
    assert repository.resolve("") == repository.resolve("main") == COMMIT
    assert repository.resolve("refs/pr/1") == "d1" * 20
    assert repository.resolve("e2" * 20) == "e2" * 20
    (repository.folder / "refs" / "main").write_text("../../../etc")
    assert repository.resolve("") == ""


def test_discard_leaves_what_is_complete_or_in_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repository = RepositoryCache.of("owner/name")
    repository.blob("x").parent.mkdir(parents=True)
    repository.blob(FILE.etag).write_bytes(b"12345")
    repository.partial(WEIGHTS.etag).write_bytes(b"12")
    left = repository.blob("0c" * 32 + ".1234abcd.incomplete")
    left.write_bytes(b"123")
    in_use = repository.blob("0d" * 32 + ".1234abcd.incomplete")
    in_use.write_bytes(b"1234")
    with repository.lock("0d" * 32):
        assert discard_partial(HubSource("owner/name")) == 5
    assert sorted(repository.blob("x").parent.iterdir()) == [repository.blob(FILE.etag), in_use]
