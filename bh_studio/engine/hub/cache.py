"""The user's cache of a hub's files: where it is, how it is laid out, what is incomplete in it.

It is shared with every other program that uses the hub's client, and laid out as that does:
blobs/HASH holds the bytes, snapshots/COMMIT/NAME points to them, refs/BRANCH holds a commit.
Knows no network and does not import the client.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from bh_studio.engine.errors import EngineError
from bh_studio.engine.files.atomic import write_atomically
from bh_studio.engine.hub.files import HubFile
from bh_studio.engine.hub.source import HubSource, is_commit

_DEFAULT_BRANCH = "main"
# Not the client's own ".incomplete" alone: from version 2 on it neither continues such a file nor
# leaves one that can be continued, and a name of its own keeps other programs' hands off.
_PARTIAL = ".bh-studio.incomplete"
_TRUE = ("1", "ON", "YES", "TRUE")


def cache_dir() -> Path:
    """The hub client's cache by HF_HUB_CACHE and HF_HOME as they are now; it need not exist."""
    user_cache = os.getenv("XDG_CACHE_HOME", os.path.join(os.path.expanduser("~"), ".cache"))
    home = _expand(os.getenv("HF_HOME", os.path.join(user_cache, "huggingface")))
    legacy = os.getenv("HUGGINGFACE_HUB_CACHE", os.path.join(home, "hub"))
    return Path(_expand(os.getenv("HF_HUB_CACHE", legacy))).resolve()


def is_offline() -> bool:
    """Whether the environment forbids the hub's client the network."""
    given = os.getenv("HF_HUB_OFFLINE") or os.getenv("TRANSFORMERS_OFFLINE") or ""
    return given.upper() in _TRUE


def free_bytes(folder: Path) -> int:
    """Bytes free on the file system of `folder`, which need not exist."""
    existing = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    return shutil.disk_usage(existing).free


def cached_repos(cache: Path) -> list[str]:
    """The model repositories, OWNER/NAME each, that have a folder in `cache`."""
    names = sorted(path.name for path in cache.glob("models--*--*"))
    return [name.removeprefix("models--").replace("--", "/") for name in names]


@dataclass(frozen=True, slots=True)
class RepositoryCache:
    """The part of the cache that belongs to one repository. repo: OWNER/NAME."""

    repo: str
    cache: Path

    @classmethod
    def of(cls, repo: str) -> RepositoryCache:
        """The repository's part of the cache that the environment names."""
        return cls(repo, cache_dir())

    @property
    def name(self) -> str:
        return "models--" + self.repo.replace("/", "--")

    @property
    def folder(self) -> Path:
        return self.cache / self.name

    def blob(self, etag: str) -> Path:
        """The file with the bytes of hash `etag`; it need not exist."""
        return self.folder / "blobs" / etag

    def partial(self, etag: str) -> Path:
        """The file that a download of `etag` writes to until it is verified."""
        return self.folder / "blobs" / (etag + _PARTIAL)

    def snapshot(self, commit: str) -> Path:
        """The folder of a commit's files; it need not exist."""
        return self.folder / "snapshots" / commit

    def commits(self) -> list[str]:
        """The commits that have a snapshot here, whole or not."""
        try:
            names = sorted(path.name for path in (self.folder / "snapshots").iterdir())
        except OSError:
            return []
        return [name for name in names if is_commit(name)]

    def resolve(self, revision: str) -> str:
        """The commit that `revision` stood for when a snapshot of it was last made; or empty."""
        if is_commit(revision):
            return revision
        try:
            commit = self._ref(revision).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""
        return commit if is_commit(commit) else ""

    def set_ref(self, revision: str, commit: str) -> None:
        """Let `revision` stand for `commit` from now on. Raises OSError."""
        if is_commit(revision):
            return
        path = self._ref(revision)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, commit.encode())

    def find(self, commit: str, file: HubFile) -> Path | None:
        """Where all bytes of a file of `commit` are, by their number; None if they are not here."""
        places = (self.snapshot(commit) / file.name, self.blob(file.etag), self.partial(file.etag))
        return next((path for path in places if _size(path) == file.size), None)

    def present(self, commit: str, file: HubFile) -> int:
        """Bytes of a file of `commit` that need not be fetched."""
        if self.find(commit, file) is not None:
            return file.size
        size = _size(self.partial(file.etag)) or 0
        return size if size < file.size else 0

    def publish(self, commit: str, file: HubFile) -> None:
        """Make the verified bytes of `file` a file of the snapshot of `commit`. Raises OSError."""
        blob, pointer = self.blob(file.etag), self.snapshot(commit) / file.name
        is_new = self.partial(file.etag).exists()
        if is_new:
            self.partial(file.etag).replace(blob)
        elif pointer.exists():
            return
        pointer.parent.mkdir(parents=True, exist_ok=True)
        pointer.unlink(missing_ok=True)
        try:
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError:
            # Windows makes no links for everyone; the client copies and moves there as well. Small
            # files may be alike, and what was moved could not be copied for the next.
            if file.is_weights:
                blob.replace(pointer)
            else:
                shutil.copyfile(blob, pointer)

    def remove(self, commit: str, file: HubFile) -> None:
        """Remove a damaged file of `commit` wherever it lies. Raises OSError."""
        etag = file.etag
        for path in (self.snapshot(commit) / file.name, self.blob(etag), self.partial(etag)):
            path.unlink(missing_ok=True)

    def incomplete_files(self) -> list[Path]:
        """Every incomplete file of the repository, other programs' too."""
        return sorted((self.folder / "blobs").glob("*.incomplete"))

    @contextlib.contextmanager
    def lock(self, name: str = "bh-studio") -> Iterator[None]:
        """Hold a lock of the repository, by default the one for downloading it with BH Studio.

        Raises TimeoutError at once if another program has it.
        """
        path = self.cache / ".locks" / self.name / f"{name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path, timeout=0)
        try:
            lock.acquire()
        except NotImplementedError:  # a file system without locks
            yield
            return
        try:
            yield
        finally:
            lock.release()

    def _ref(self, revision: str) -> Path:
        return self.folder / "refs" / (revision or _DEFAULT_BRANCH)


def discard_partial(source: HubSource) -> int:
    """Remove the incomplete files of this repository; the bytes that came free.

    Takes milliseconds; what is complete stays, and so does a file that another program is writing.
    Raises EngineError while a download of the repository is running, and for a file that cannot be
    removed.
    """
    repository = RepositoryCache.of(source.repo)
    files = repository.incomplete_files()
    if not files:
        return 0
    try:
        with repository.lock():
            return sum(_discard(repository, path) for path in files)
    except TimeoutError:
        raise EngineError(
            f"{source.repo} is being downloaded right now.", "Stop that first."
        ) from None
    except OSError as error:
        raise EngineError(
            f"{error.filename or repository.folder} cannot be removed: {error.strerror}."
        ) from error


def _discard(repository: RepositoryCache, path: Path) -> int:
    etag = path.name.partition(".")[0]
    try:
        with repository.lock(etag):
            size = path.stat().st_size
            path.unlink()
            return size
    except (TimeoutError, FileNotFoundError):
        return 0


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _expand(path: str) -> str:
    return os.path.expandvars(os.path.expanduser(path))
