"""Names of models on a Hugging Face hub, as people write them. Imports nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass

# What the hub accepts as names; a name never starts or ends with "-" or "." and holds no "--" or
# "..", so that no two repositories share a folder of the cache and none leaves it.
_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_REPO = re.compile(rf"{_NAME}/{_NAME}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]*")
_MAX_REPO, _MAX_REVISION = 96, 200
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class HubSource:
    """A model repository on the hub. str() is the text that parse_hub_source read.

    repo: OWNER/NAME. revision: a branch, a tag or a commit; empty for the default branch.
    """

    repo: str
    revision: str = ""

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}" if self.revision else self.repo

    @property
    def commit(self) -> str:
        """The revision if it is a whole commit, which never changes; empty otherwise."""
        return self.revision if _COMMIT.fullmatch(self.revision) else ""


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that BH Studio was made for. description: what it is, one line."""

    source: HubSource
    description: str


KNOWN_MODELS = (
    KnownModel(
        HubSource("allenai/OLMoE-1B-7B-0924"),
        "OLMoE of September 2024, base model: continues a text",
    ),
    KnownModel(
        HubSource("allenai/OLMoE-1B-7B-0924-Instruct"),
        "OLMoE of September 2024, instruct model: answers in a conversation",
    ),
    KnownModel(
        HubSource("allenai/OLMoE-1B-7B-0125"),
        "OLMoE of January 2025, base model: continues a text",
    ),
    KnownModel(
        HubSource("allenai/OLMoE-1B-7B-0125-Instruct"),
        "OLMoE of January 2025, instruct model: answers in a conversation",
    ),
)


def parse_hub_source(text: str) -> HubSource | None:
    """The source that `text` names, OWNER/NAME or OWNER/NAME@REVISION; None if it is not one.

    Reads nothing: a folder such as models/olmoe looks the same, so look for a folder first.
    """
    repo, at, revision = text.partition("@")
    if not _REPO.fullmatch(repo) or len(repo) > _MAX_REPO or "--" in repo or ".." in repo:
        return None
    if at and not is_revision(revision):
        return None
    return HubSource(repo, revision)


def is_revision(text: str) -> bool:
    """Whether `text` can be a branch, a tag or a commit, and a file's name below a folder."""
    return (
        _REVISION.fullmatch(text) is not None
        and len(text) <= _MAX_REVISION
        and not any(part in ("", ".", "..") or part.endswith(".") for part in text.split("/"))
    )


def is_commit(text: str) -> bool:
    """Whether `text` is a whole commit: 40 lower-case hexadecimal digits."""
    return _COMMIT.fullmatch(text) is not None
