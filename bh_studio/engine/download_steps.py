"""The steps of a download: fetch what is missing, verify all of it, publish it as a snapshot.

Runs in the child. Nothing is published before every file of the plan was verified.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bh_studio.engine.download_fetch import fetch_file
from bh_studio.engine.download_plan import Plan
from bh_studio.engine.download_ticker import told_regularly
from bh_studio.engine.download_verify import is_intact
from bh_studio.engine.download_wire import Damaged, Fetching, Message, Verifying
from bh_studio.engine.errors import EngineError
from bh_studio.engine.hub_cache import RepositoryCache
from bh_studio.engine.hub_files import CONFIG, INDEX, HubFile, check_index
from bh_studio.engine.hub_models import check_config
from bh_studio.engine.hub_record import SnapshotRecord, save_record, verified
from bh_studio.engine.hub_weights import indexed_files


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

        def progress() -> Fetching:
            return Fetching(self.done, self.plan.total, file.name, self.fetched)

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

        def progress() -> Verifying:
            return Verifying(read, self.plan.total, file.name)

        if not file.is_weights:
            return is_intact(path, file, compared)
        with told_regularly(progress, self.tell):
            return is_intact(path, file, compared)

    def _replace(self, file: HubFile, before: int) -> None:
        self.repository.remove(self.plan.commit, file)
        self.done = self.plan.present(self.repository)
        self.tell(Damaged(file.name))
        self._fetch(file)
        if not self._is_intact(file, before):
            self.repository.remove(self.plan.commit, file)
            raise EngineError(
                f"{file.name} came damaged twice: it is not what the hub says it is.",
                "Try again later. If it stays so, the network, a proxy or the disk alters files.",
            )
