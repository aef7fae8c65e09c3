"""The steps of a download: fetch what is missing, verify all of it, publish it as a snapshot.

Runs in the child. Nothing is published before every file of the plan was verified.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import constants, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from bh_studio import __version__
from bh_studio.engine.errors import EngineError
from bh_studio.engine.hub.cache import RepositoryCache
from bh_studio.engine.hub.catalogue import check_config
from bh_studio.engine.hub.events import DownloadProgress, FileDamaged, Message, VerifyProgress
from bh_studio.engine.hub.files import CONFIG, INDEX, HubFile, check_index
from bh_studio.engine.hub.integrity import indexed_files
from bh_studio.engine.hub.plan import Plan
from bh_studio.engine.hub.snapshots import SnapshotRecord, save_record, verified

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# WORKAROUND: the client writes 10 MiB at a time, a minute's worth on a slow line, of which a kill
# would lose all and progress would show nothing. It reads this variable for every file.
constants.DOWNLOAD_CHUNK_SIZE = 2**16
_TELL_EVERY_S = 0.1
_BYTES_AT_ONCE = 2**20


@dataclass(slots=True)
class Steps:
    """One download by a child.

    done: bytes here of all files. fetched: bytes that came, those that came twice counted twice.
    """

    plan: Plan
    repository: RepositoryCache
    tell: Callable[[Message], None]
    done: int = 0
    fetched: int = 0

    def fetch(self) -> None:
        """Fetch every file that is not here.

        Raises what the client raises, OSError of the disk, EngineError for a model of no use.
        """
        for file in self.plan.files:
            # Counted anew: a file that was fetched may have been all of another that is alike.
            self.done = self.plan.present(self.repository)
            if self._find(file) is None:
                self._fetch(file)
            if file.name in (CONFIG, INDEX):
                self._check(file)

    def verify(self) -> None:
        """Compare every file with its hash; fetch a damaged one anew, once.

        Raises what fetch raises; EngineError for a file that is damaged again.
        """
        read = 0
        for file in self.plan.files:
            if not self._is_intact(file, read):
                self._replace(file, read)
            read += file.size

    def publish(self) -> Path:
        """Make the verified files a snapshot of the cache, and its folder. Raises OSError."""
        commit, source = self.plan.commit, self.plan.source
        for file in self.plan.files:
            self.repository.publish(commit, file)
        folder = self.repository.snapshot(commit)
        self.repository.set_ref(source.revision, commit)
        save_record(verified(SnapshotRecord(source, commit, self.plan.files), folder))
        return folder

    def _find(self, file: HubFile) -> Path | None:
        return self.repository.find(self.plan.commit, file)

    def _fetch(self, file: HubFile) -> None:
        partial = self.repository.partial(file.etag)
        partial.parent.mkdir(parents=True, exist_ok=True)

        def came(count: int) -> None:
            self.done += count
            self.fetched += max(count, 0)

        def progress() -> DownloadProgress:
            return DownloadProgress(self.done, self.plan.total, file.name, fetched=self.fetched)

        with told_regularly(progress, self.tell):
            fetch_file(self.plan.source.repo, self.plan.commit, file, partial, came)

    def _check(self, file: HubFile) -> None:
        """Find out before the weights are fetched what would make them useless."""
        repo = self.plan.source.repo
        if not self._is_intact(file, 0):
            self._replace(file, 0)
        path = self._find(file)
        assert path is not None
        if file.name == CONFIG:
            check_config(path, repo)
            return
        try:
            names = indexed_files(path)
        except ValueError:
            raise EngineError(f"The {INDEX} of {repo} cannot be read.") from None
        check_index(names, self.plan.files, repo)

    def _is_intact(self, file: HubFile, before: int) -> bool:
        """Whether the file is here and is what the hub says. before: bytes compared before it."""
        path = self._find(file)
        if path is None:
            return False
        read = before

        def compared(count: int) -> None:
            nonlocal read
            read += count

        def progress() -> VerifyProgress:
            return VerifyProgress(read, self.plan.total, file.name)

        if not file.is_weights:
            return is_intact(path, file, compared)
        with told_regularly(progress, self.tell):
            return is_intact(path, file, compared)

    def _replace(self, file: HubFile, before: int) -> None:
        self.repository.remove(self.plan.commit, file)
        self.done = self.plan.present(self.repository)
        self.tell(FileDamaged(file.name))
        self._fetch(file)
        if not self._is_intact(file, before):
            self.repository.remove(self.plan.commit, file)
            raise EngineError(
                f"{file.name} came damaged twice: it is not what the hub says it is.",
                "Try again later. If it stays so, the network, a proxy or the disk alters files.",
            )


def fetch_file(
    repo: str, commit: str, file: HubFile, path: Path, came: Callable[[int], None]
) -> None:
    """Fetch `file` into `path`, from the bytes on that are in it already.

    came: told how many bytes were written; a negative number takes bytes back that a server sends
    anew. Raises what the client raises, and OSError of the disk.
    """
    present = path.stat().st_size if path.exists() else 0
    if present > file.size:
        path.unlink()
        present = 0
    headers = build_hf_headers(library_name="bh-studio", library_version=__version__)
    # Compressed, a file could not be continued in the middle.
    headers["Accept-Encoding"] = "identity"
    url = hf_hub_url(repo, file.name, revision=commit)
    with _CountedFile(path, came) as target:
        http_get(url, target, resume_size=present, headers=headers, expected_size=file.size)


class _CountedFile(io.FileIO):
    """A file that is continued at its end and tells how many bytes it took."""

    def __init__(self, path: Path, came: Callable[[int], None]) -> None:
        super().__init__(path, "ab")
        self._came = came

    def write(self, data: ReadableBuffer) -> int:
        rest = memoryview(data)
        while rest:
            written = super().write(rest)
            self._came(written)
            rest = rest[written:]
        return memoryview(data).nbytes

    def truncate(self, size: int | None = None) -> int:
        kept = self.tell() if size is None else size
        before = self.seek(0, io.SEEK_END)
        super().truncate(kept)
        self.seek(kept)
        self._came(kept - before)
        return kept


@contextmanager
def told_regularly(
    message: Callable[[], Message], tell: Callable[[Message], None]
) -> Iterator[None]:
    """Tell what `message` returns whenever it has changed, from a thread, and at the end.

    A value told only as it comes would be old for as long as a connection stalls.
    """
    ended = threading.Event()

    def run() -> None:
        told = None
        is_last = False
        while not is_last:
            is_last = ended.wait(_TELL_EVERY_S)
            now = message()
            if now != told:
                tell(now)
                told = now

    thread = threading.Thread(target=run, name="ticker", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def is_intact(path: Path, file: HubFile, read: Callable[[int], None]) -> bool:
    """Whether the bytes in `path` are those of `file`, all of them and no others.

    read: told how many bytes were compared. Raises OSError.
    """
    size = path.stat().st_size
    if size != file.size:
        return False
    digest = hashlib.sha256()
    if len(file.etag) == 40:
        # Git's name for a blob; nothing secret depends on it.
        digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    buffer = bytearray(_BYTES_AT_ONCE)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            digest.update(view[:count])
            read(count)
    return digest.hexdigest() == file.etag
