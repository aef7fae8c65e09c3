"""Names of what lies beside a file for a while: they fit wherever the file's own name does."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

# What nearly every file system has.
_USUAL_BYTES = 255
_HASH_CHARACTERS = 8


def beside(path: Path, prefix: str, suffix: str) -> Path:
    """`path` with `prefix` before its name and `suffix` behind it.

    Where that would be too long for its folder, the name is cut and ends in a hash of itself, so
    that no two names get the same.
    """
    room = _most_bytes(path.parent) - len(os.fsencode(prefix + suffix))
    name = os.fsencode(path.name)
    if len(name) <= room:
        return path.with_name(f"{prefix}{path.name}{suffix}")
    mark = f"~{hashlib.sha256(name).hexdigest()[:_HASH_CHARACTERS]}"
    # A character that is cut in two is left out: some file systems take no halves.
    start = name[: room - len(mark)].decode(errors="ignore")
    return path.with_name(f"{prefix}{start}{mark}{suffix}")


def _most_bytes(folder: Path) -> int:
    """The longest name in `folder`."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # not on Windows, not known, not there
        return _USUAL_BYTES
