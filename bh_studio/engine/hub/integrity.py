"""Whether the weights in a folder are whole, told from their own index and headers.

Reads no weights, and needs neither torch nor safetensors.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from bh_studio.engine.files.plain_json import parsed
from bh_studio.engine.hub.files import CONFIG, INDEX, TOKENIZERS, WEIGHTS, is_inside

# safetensors itself refuses longer headers.
_MAX_HEADER_BYTES = 100_000_000
_MAX_INDEX_BYTES = 100_000_000


def is_whole(folder: Path) -> bool:
    """Whether `folder` holds a config, a tokenizer, and every file of weights in full length."""
    try:
        return (
            (folder / CONFIG).is_file()
            and any((folder / name).is_file() for name in TOKENIZERS)
            and all(_has_full_length(folder / name) for name in _weights(folder))
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, struct.error):
        return False


def indexed_files(index: Path) -> set[str]:
    """The files that an index of weights names. Raises OSError, ValueError for no such index."""
    if index.stat().st_size > _MAX_INDEX_BYTES:
        raise ValueError("The index is too long.")
    document = parsed(index.read_bytes(), "The index")
    files = document["weight_map"].values() if _is_map(document, "weight_map") else ()
    if not files or not all(isinstance(name, str) for name in files):
        raise ValueError("The index names no weights.")
    return set(files)


def _weights(folder: Path) -> set[str]:
    if (folder / WEIGHTS).is_file():
        return {WEIGHTS}
    files = indexed_files(folder / INDEX)
    if not all(is_inside(name) for name in files):
        raise ValueError("The index names a file outside its folder.")
    return files


def _has_full_length(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says; ValueError if it has none."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _MAX_HEADER_BYTES:
            return False
        header = parsed(file.read(length))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return path.stat().st_size == 8 + length + max(ends, default=0)


def _is_map(document: Any, name: str) -> bool:
    return isinstance(document, dict) and isinstance(document.get(name), dict)
