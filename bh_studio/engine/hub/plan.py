"""What a download will fetch: the hub's answer, checked. Runs in the child that fetches."""

from __future__ import annotations

from dataclasses import dataclass

from huggingface_hub import HfApi, constants

from bh_studio import __version__
from bh_studio.engine.errors import EngineError
from bh_studio.engine.hub.cache import RepositoryCache, free_bytes
from bh_studio.engine.hub.events import DownloadPlanned, PlannedFile
from bh_studio.engine.hub.files import HubFile, is_etag, needed_files
from bh_studio.engine.hub.source import HubSource, is_commit


@dataclass(frozen=True, slots=True)
class Plan:
    """The files of a model at one commit."""

    source: HubSource
    commit: str
    files: tuple[HubFile, ...]

    @property
    def total(self) -> int:
        return sum(file.size for file in self.files)

    def present(self, repository: RepositoryCache) -> int:
        """Bytes that need not be fetched."""
        return sum(repository.present(self.commit, file) for file in self.files)

    def message(self, repository: RepositoryCache) -> DownloadPlanned:
        """The plan as it is told."""
        files = tuple(
            PlannedFile(file.name, file.size, repository.present(self.commit, file))
            for file in self.files
        )
        free = free_bytes(repository.cache)
        return DownloadPlanned(self.source, self.commit, files, repository.cache, free)


def ask_hub(source: HubSource, commit: str) -> Plan:
    """Ask the hub what `source` is at `commit`, or now if that is empty; one request.

    Raises what the client raises, and EngineError for a model that cannot be used.
    """
    api = HfApi(library_name="bh-studio", library_version=__version__)
    info = api.model_info(
        source.repo,
        revision=commit or source.revision or None,
        files_metadata=True,
        timeout=constants.HF_HUB_ETAG_TIMEOUT,
    )
    described = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    files = []
    for name in needed_files(described, source.repo):
        sibling = described[name]
        etag = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
        size = sibling.lfs.size if sibling.lfs else sibling.size
        if not is_etag(etag) or not isinstance(size, int) or size < 0:
            raise _odd_answer(source, f"the size and hash of {name!r}")
        files.append(HubFile(name, size, str(etag)))
    if not is_commit(info.sha or ""):
        raise _odd_answer(source, "its commit")
    return Plan(source, str(info.sha), tuple(files))


def _odd_answer(source: HubSource, what: str) -> EngineError:
    return EngineError(
        f"The hub does not say {what} for {source}, so it could not be verified; nothing was "
        "fetched.",
        "If HF_ENDPOINT is set, check that it is a Hugging Face hub.",
    )
