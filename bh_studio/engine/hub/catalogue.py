"""The hub's models that BH Studio can use: those it knows, and those found in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bh_studio.engine.architectures import architecture_of, model_problem
from bh_studio.engine.errors import EngineError
from bh_studio.engine.files.plain_json import JsonError, parsed
from bh_studio.engine.hub.cache import RepositoryCache, cache_dir, cached_repos
from bh_studio.engine.hub.files import CONFIG
from bh_studio.engine.hub.snapshots import load_records, recorded_repos
from bh_studio.engine.hub.source import KNOWN_MODELS, HubSource
from bh_studio.engine.hub.status import HubState, HubStatus, hub_status


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model and what is here of it. description: one line; empty for one that is not known."""

    source: HubSource
    status: HubStatus
    description: str = ""


def hub_models() -> list[HubModel]:
    """The known models, and then those that are in the cache besides, by name.

    Offline; takes milliseconds for each repository in the cache.
    """
    known = [HubModel(k.source, hub_status(k.source), k.description) for k in KNOWN_MODELS]
    sources = {model.source for model in known}
    repos = sorted({*cached_repos(cache_dir()), *recorded_repos()})
    others = [source for repo in repos for source in _sources(repo) if source not in sources]
    found = [HubModel(source, hub_status(source)) for source in others]
    return known + [model for model in found if _is_usable(model)]


def check_config(config: Path, repo: str) -> None:
    """Raise EngineError if `config`, a config.json, is of a model that BH Studio cannot use."""
    document = _read(config)
    if document is None:
        raise EngineError(f"The {CONFIG} of {repo} cannot be read.", "Choose another model.")
    try:
        found = model_problem(document)
    except (TypeError, ValueError, AttributeError, KeyError):
        found = f"The {CONFIG} of {repo} holds values that make no sense."
    if found:
        raise EngineError(found, f"No weights of {repo} were fetched; choose another model.")


def _sources(repo: str) -> list[HubSource]:
    """The main branch if it was ever fetched; the revisions that were recorded or are there."""
    repository = RepositoryCache.of(repo)
    records = load_records(repo)
    named = {record.source for record in records}
    commits = {record.commit for record in records}
    main = repository.resolve("")
    if main:
        named.add(HubSource(repo))
        commits.add(main)
    unnamed = {HubSource(repo, commit) for commit in repository.commits() if commit not in commits}
    return sorted({*named, *unnamed}, key=str)


def _is_usable(model: HubModel) -> bool:
    if model.status.state is HubState.PARTIAL:
        return any(record.source == model.source for record in load_records(model.source.repo))
    folder = model.status.folder
    document = None if folder is None else _read(folder / CONFIG)
    if document is None or not isinstance(document.get("model_type"), str):
        return False
    return architecture_of(document) is not None


def _read(config: Path) -> dict[str, Any] | None:
    try:
        document = parsed(config.read_bytes())
    except (OSError, JsonError):
        return None
    return document if isinstance(document, dict) else None
