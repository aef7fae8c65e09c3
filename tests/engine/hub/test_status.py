"""What is told of a model in the cache without the network."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bh_studio.engine.errors import EngineError
from bh_studio.engine.hub.cache import RepositoryCache
from bh_studio.engine.hub.catalogue import hub_models
from bh_studio.engine.hub.files import HubFile, is_needed
from bh_studio.engine.hub.snapshots import SnapshotRecord, load_records, save_record, verified
from bh_studio.engine.hub.source import KNOWN_MODELS, HubSource
from bh_studio.engine.hub.status import HubState, hub_folder, hub_status
from tests.fake_hub_model import fake_model

COMMIT, OTHER = "c0" * 20, "d1" * 20
SOURCE = HubSource("owner/name")
FILES = {name: data for name, data in fake_model(20_000).items() if is_needed(name)}
SHARD, CONFIG, INDEX = (
    "model-00002-of-00002.safetensors",
    "config.json",
    "model.safetensors.index.json",
)
TOTAL = sum(map(len, FILES.values()))


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RepositoryCache:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    return RepositoryCache.of(SOURCE.repo)


def lay(repository: RepositoryCache, commit: str = COMMIT, files: dict[str, bytes] = FILES) -> Path:
    """Put `files` into the cache as another program does; the folder of the snapshot."""
    for number, (name, data) in enumerate(files.items()):
        etag = f"{number:040x}"
        repository.blob(etag).parent.mkdir(parents=True, exist_ok=True)
        repository.partial(etag).write_bytes(data)
        repository.publish(commit, HubFile(name, len(data), etag))
    repository.set_ref("", commit)
    return repository.snapshot(commit)


def record_of(commit: str = COMMIT, source: HubSource = SOURCE) -> SnapshotRecord:
    files = tuple(HubFile(n, len(d), f"{i:040x}") for i, (n, d) in enumerate(FILES.items()))
    return SnapshotRecord(source, commit, files)


def test_nothing(repository: RepositoryCache) -> None:
    status = hub_status(SOURCE)
    assert (status.state, status.present, status.folder) == (HubState.NOT_THERE, 0, None)
    with pytest.raises(EngineError, match="not on this computer") as error:
        hub_folder(SOURCE)
    assert "bh-studio download owner/name" in error.value.advice
    assert "HF_HUB_OFFLINE" in error.value.advice


def test_whole_by_its_headers_but_never_verified(repository: RepositoryCache) -> None:
    folder = lay(repository)
    status = hub_status(SOURCE)
    assert (status.state, status.folder, status.commit) == (HubState.UNVERIFIED, folder, COMMIT)
    assert (status.present, status.total) == (TOTAL, TOTAL)
    assert hub_folder(SOURCE) == folder
    assert hub_folder(HubSource(SOURCE.repo, COMMIT)) == folder


@pytest.mark.parametrize("missing", [CONFIG, "tokenizer.json", INDEX, SHARD])
def test_a_snapshot_that_lacks_a_file(repository: RepositoryCache, missing: str) -> None:
    folder = lay(repository)
    (folder / missing).unlink()
    status = hub_status(SOURCE)
    assert status.state is HubState.PARTIAL
    assert status.present == TOTAL - len(FILES[missing])
    with pytest.raises(EngineError, match="Only a part") as error:
        hub_folder(SOURCE)
    assert "bh-studio download owner/name" in error.value.advice


@pytest.mark.parametrize(
    "weights",
    [
        FILES[SHARD][:-1],
        FILES[SHARD] + b"x",
        FILES[SHARD][:5],
        b"",
        b"\xff" * 100,
        (2).to_bytes(8, "little") + b"[]",
        (9).to_bytes(8, "little") + b'{"a": []}',
    ],
)
def test_weights_of_another_length_than_they_say(
    repository: RepositoryCache, weights: bytes
) -> None:
    lay(repository, files={**FILES, SHARD: weights})
    assert hub_status(SOURCE).state is HubState.PARTIAL


@pytest.mark.parametrize("index", [b"", b"[]", b'{"weight_map": {}}', b'{"weight_map": {"a": 3}}'])
def test_an_index_that_is_none(repository: RepositoryCache, index: bytes) -> None:
    lay(repository, files={**FILES, INDEX: index})
    assert hub_status(SOURCE).state is HubState.PARTIAL


def test_an_index_that_leads_out_of_its_folder(repository: RepositoryCache) -> None:
    index = {"weight_map": {"tensor": f"../{COMMIT}/{SHARD}"}}
    lay(repository, files={**FILES, INDEX: json.dumps(index).encode()})
    assert hub_status(SOURCE).state is HubState.PARTIAL


def test_verified_until_a_file_changes(repository: RepositoryCache) -> None:
    folder = lay(repository)
    save_record(verified(record_of(), folder))
    status = hub_status(SOURCE)
    assert (status.state, status.folder, status.total) == (HubState.COMPLETE, folder, TOTAL)
    blob = (folder / SHARD).resolve()
    os.utime(blob, ns=(1, 1))
    assert hub_status(SOURCE).state is HubState.UNVERIFIED
    blob.write_bytes(FILES[SHARD][:-1])
    assert hub_status(SOURCE).state is HubState.PARTIAL
    blob.unlink()
    assert hub_status(SOURCE).state is HubState.PARTIAL


def test_a_download_that_did_not_come_far(repository: RepositoryCache) -> None:
    save_record(record_of())
    partial = repository.partial(record_of().files[0].etag)
    assert hub_status(SOURCE).state is HubState.NOT_THERE
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"123")
    status = hub_status(SOURCE)
    assert (status.state, status.present, status.total) == (HubState.PARTIAL, 3, TOTAL)
    assert hub_status(HubSource(SOURCE.repo, "v2")).state is HubState.NOT_THERE


def test_the_model_that_was_complete_stays_while_a_newer_is_fetched(
    repository: RepositoryCache,
) -> None:
    folder = lay(repository)
    save_record(verified(record_of(), folder))
    save_record(record_of(OTHER))
    repository.snapshot(OTHER).mkdir(parents=True)
    repository.set_ref("", OTHER)
    assert hub_folder(SOURCE) == folder


def test_records_that_cannot_be_trusted_are_left_out(repository: RepositoryCache) -> None:
    record = record_of()
    save_record(record)
    assert load_records(SOURCE.repo) == [record]
    path = next(Path(os.environ["XDG_DATA_HOME"]).rglob(f"{COMMIT}.json"))
    good = json.loads(path.read_text())
    for change in (
        {"format": 99},
        {"files": [{"name": "../x", "size": 1, "etag": "0a" * 20}]},
        {"files": [{"name": "x", "size": 1, "etag": "../x"}]},
        {"files": [{"name": "x"}]},
        {"times": None},
        {"times": ["1"]},
        {"revision": None},
        {"surprise": 1},
    ):
        path.write_text(json.dumps({**good, **change}))
        assert load_records(SOURCE.repo) == []
    for text in ("no json", "[" * 10**5):
        path.write_text(text)
        assert load_records(SOURCE.repo) == []


def test_a_record_is_written_as_ever(repository: RepositoryCache) -> None:
    record = record_of(source=HubSource(SOURCE.repo, "v2"))
    save_record(record)
    path = next(Path(os.environ["XDG_DATA_HOME"]).rglob(f"{COMMIT}.json"))
    document = {
        "format": 1,
        "repo": SOURCE.repo,
        "revision": "v2",
        "files": [{"name": f.name, "size": f.size, "etag": f.etag} for f in record.files],
        "times": [],
    }
    assert path.read_text() == json.dumps(document, indent=1)
    assert list(path.parent.iterdir()) == [path]


def test_models_that_are_known_and_found(repository: RepositoryCache) -> None:
    lay(repository)
    for number, config in enumerate(
        (b'{"model_type": "llama"}', b'{"model_type": []}', b"[" * 9999)
    ):
        lay(RepositoryCache.of(f"owner/other{number}"), files={**FILES, CONFIG: config})
    models = hub_models()
    assert [model.source for model in models[:-1]] == [known.source for known in KNOWN_MODELS]
    assert {model.status.state for model in models[:-1]} == {HubState.NOT_THERE}
    assert (models[-1].source, models[-1].status.state) == (SOURCE, HubState.UNVERIFIED)
