"""What BH Studio knows of the snapshots it fetched: their files, and that they were verified.

Kept in the user's data folder, one file a commit, beside no other program's files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bh_studio import paths
from bh_studio.engine.files.atomic import write_atomically
from bh_studio.engine.files.plain_json import JsonError, decode, encode
from bh_studio.engine.hub.cache import RepositoryCache, cached_repos
from bh_studio.engine.hub.files import HubFile, is_etag, is_inside
from bh_studio.engine.hub.source import HubSource, is_commit

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class _Document:
    """A record as its file has it, which is named after the commit."""

    format: int
    repo: str
    revision: str
    files: tuple[HubFile, ...]
    times: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """The files of a commit.

    revision: what was asked for when it was fetched; empty for the default branch. times: when each
    file was last written (ns) as it was verified; empty if the snapshot has not been.
    """

    source: HubSource
    commit: str
    files: tuple[HubFile, ...]
    times: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def still_holds(self, folder: Path) -> bool:
        """Whether the snapshot was verified and no file of it has been written since."""
        return len(self.times) == len(self.files) and all(
            _version(folder / file.name) == (file.size, time)
            for file, time in zip(self.files, self.times, strict=True)
        )


def verified(record: SnapshotRecord, folder: Path) -> SnapshotRecord:
    """`record` with the files in `folder` verified as they are now. Raises OSError."""
    times = tuple((folder / file.name).stat().st_mtime_ns for file in record.files)
    return SnapshotRecord(record.source, record.commit, record.files, times)


def save_record(record: SnapshotRecord) -> None:
    """Keep `record`, in place of an earlier one of its commit. Raises OSError."""
    source = record.source
    document = _Document(_FORMAT, source.repo, source.revision, record.files, record.times)
    path = _folder(source.repo) / f"{record.commit}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, encode(document, indent=1))


def load_records(repo: str) -> list[SnapshotRecord]:
    """The records of a repository; those that cannot be read are left out."""
    try:
        found = sorted(_folder(repo).glob("*.json"))
    except OSError:
        return []
    records = (_read(path, repo) for path in found)
    return [record for record in records if record is not None]


def recorded_repos() -> list[str]:
    """The repositories that have records."""
    return cached_repos(paths.data_dir() / "hub")


def _read(path: Path, repo: str) -> SnapshotRecord | None:
    try:
        document = decode(_Document, path.read_bytes())
    except (OSError, JsonError):
        return None
    usable = (
        document.format == _FORMAT
        and is_commit(path.stem)
        and all(is_inside(file.name) and is_etag(file.etag) for file in document.files)
    )
    source = HubSource(repo, document.revision)
    return SnapshotRecord(source, path.stem, document.files, document.times) if usable else None


def _folder(repo: str) -> Path:
    return paths.data_dir() / "hub" / RepositoryCache(repo, Path()).name


def _version(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
