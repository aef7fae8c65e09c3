"""Which files of a repository a model needs, and which names and hashes a hub may give them.

What a hub says comes from anyone: a name or a hash becomes part of a path only if it passed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bh_studio.engine.errors import EngineError

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
# One of these is enough to make a tokenizer from.
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_OTHERS = (
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
_TEXTS = ("readme.md", "license", "license.txt", "license.md", "notice", "notice.txt")
_SHARD = re.compile(r"model-[0-9]{5}-of-[0-9]{5}\.safetensors")
_DRIVE = re.compile(r"[A-Za-z]:")
_GIT_SHA1, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file as the hub describes it.

    size: bytes. etag: its hash, which names it in the cache: SHA-256 of its bytes for large files
    (64 digits), git's SHA-1 of a blob for small ones (40 digits).
    """

    name: str
    size: int
    etag: str

    @property
    def is_weights(self) -> bool:
        return self.name.endswith(".safetensors")


def needed_files(names: Iterable[str], repo: str) -> list[str]:
    """Those of a repository's `names` that are fetched: safetensors weights and what they need.

    The smallest kind first, so that what is wrong shows early. Raises EngineError for a repository
    that cannot be used, and for one that names a file outside its folder.
    """
    names = sorted(names)
    for name in names:
        if not is_inside(name):
            raise EngineError(
                f"{repo} names a file outside its folder, {name!r}; nothing was fetched.",
                "Do not use this repository.",
            )
    weights = [WEIGHTS] if WEIGHTS in names else [n for n in names if _SHARD.fullmatch(n)]
    if not weights:
        raise EngineError(
            f"{repo} holds no weights in safetensors format.",
            "BH Studio reads no other: files in pickle format can run programs. Choose another "
            "model.",
        )
    if CONFIG not in names:
        raise EngineError(f"{repo} has no {CONFIG}, so it is not a model for transformers.")
    if weights != [WEIGHTS] and INDEX not in names:
        raise EngineError(f"{repo} has weights in several files but no {INDEX}.")
    small = [CONFIG, *([] if weights == [WEIGHTS] else [INDEX]), *TOKENIZERS, *_OTHERS]
    texts = [name for name in names if name.lower() in _TEXTS]
    return [*(name for name in small if name in names), *texts, *weights]


def is_needed(name: str) -> bool:
    """Whether a file of this name is fetched, where the repository has nothing better."""
    return (
        name in (CONFIG, WEIGHTS, INDEX, *TOKENIZERS, *_OTHERS)
        or name.lower() in _TEXTS
        or _SHARD.fullmatch(name) is not None
    )


def is_inside(name: str) -> bool:
    """Whether `name` stays inside the folder it is put in, on every system."""
    return (
        bool(name)
        and "\\" not in name
        and not _DRIVE.match(name)
        and all(part not in ("", ".", "..") for part in name.split("/"))
    )


def is_etag(text: object) -> bool:
    """Whether `text` is a hash that a hub gives a file."""
    return isinstance(text, str) and bool(_GIT_SHA1.fullmatch(text) or _SHA256.fullmatch(text))


def check_index(shards: Iterable[object], files: Sequence[HubFile], repo: str) -> None:
    """Compare the files that the index names with those that are fetched. Raises EngineError."""
    fetched = {file.name for file in files if file.is_weights}
    strange = sorted(str(shard) for shard in set(shards) - fetched)
    if strange:
        raise EngineError(
            f"The index of {repo} names weights that the repository does not hold: {strange[0]!r}.",
            "The repository is incomplete; choose another revision or model.",
        )
