"""What is in the cache of a hub's model, told without the network and without hashing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bh_studio.engine.errors import EngineError
from bh_studio.engine.hub.cache import RepositoryCache, is_offline
from bh_studio.engine.hub.files import is_needed
from bh_studio.engine.hub.integrity import is_whole
from bh_studio.engine.hub.snapshots import SnapshotRecord, load_records
from bh_studio.engine.hub.source import HubSource
from bh_studio.engine.units import format_bytes


class HubState(StrEnum):
    """How much of a model is here.

    NOT_THERE: nothing that a download could use. PARTIAL: a part; a download goes on from it.
    UNVERIFIED: every file is there and every file of weights has the length that its own header
        implies, but BH Studio never compared it with the hub's hashes, for example because another
        program fetched it. It can be loaded; a download verifies it and fetches nothing.
    COMPLETE: BH Studio verified it, and no file has changed since.
    """

    NOT_THERE = "not there"
    PARTIAL = "partial"
    UNVERIFIED = "unverified"
    COMPLETE = "complete"


@dataclass(frozen=True, slots=True)
class HubStatus:
    """What is here of a model.

    present: bytes that are here. total: bytes of the whole model; None where that is not known.
    commit, folder: of the snapshot that can be loaded; empty and None in other states.
    """

    state: HubState
    present: int = 0
    total: int | None = None
    commit: str = ""
    folder: Path | None = None


def hub_status(source: HubSource) -> HubStatus:
    """What is here of `source`. Offline, takes milliseconds, raises nothing."""
    repository = RepositoryCache.of(source.repo)
    records = {record.commit: record for record in load_records(source.repo)}
    # First what the revision stands for here; then downloads of it that have not come so far.
    asked = [commit for commit, record in records.items() if record.source == source]
    commits = dict.fromkeys(filter(None, [repository.resolve(source.revision), *asked]))
    found = [_snapshot_status(repository, commit, records.get(commit)) for commit in commits]
    return max(found, key=_usefulness, default=HubStatus(HubState.NOT_THERE))


def hub_folder(source: HubSource) -> Path:
    """The folder to load `source` from, if it is COMPLETE or UNVERIFIED.

    Raises EngineError with advice if it is not.
    """
    status = hub_status(source)
    if status.folder is not None:
        return status.folder
    command = f"bh-studio download {source}"
    offline = " with HF_HUB_OFFLINE unset" if is_offline() else ""
    if status.state is HubState.NOT_THERE:
        raise EngineError(
            f"{source} is not on this computer.", f"Fetch it with `{command}`{offline}."
        )
    part = format_bytes(status.present)
    part = f"{part} of {format_bytes(status.total)}" if status.total else part
    raise EngineError(
        f"Only a part of {source} is on this computer ({part}).",
        f"Go on with `{command}`{offline}.",
    )


def _snapshot_status(
    repository: RepositoryCache, commit: str, record: SnapshotRecord | None
) -> HubStatus:
    folder = repository.snapshot(commit)
    if record is not None and record.still_holds(folder):
        return HubStatus(HubState.COMPLETE, record.total, record.total, commit, folder)
    if is_whole(folder):
        size = _bytes_in(folder)
        return HubStatus(HubState.UNVERIFIED, size, size, commit, folder)
    if record is None:
        present, total = _bytes_in(folder), None
    else:
        present = sum(repository.present(commit, file) for file in record.files)
        total = record.total
    return HubStatus(HubState.PARTIAL if present else HubState.NOT_THERE, present, total)


def _usefulness(status: HubStatus) -> tuple[int, int]:
    rank = list(HubState).index(status.state)
    return rank, status.present if status.state is HubState.PARTIAL else 0


def _bytes_in(folder: Path) -> int:
    """Bytes of the files in `folder` that a download would use."""
    try:
        return sum(path.stat().st_size for path in folder.iterdir() if is_needed(path.name))
    except OSError:
        return 0
