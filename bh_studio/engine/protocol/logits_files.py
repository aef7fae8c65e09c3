"""Files of router logits that rules are replayed on. Knows nothing of their format."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from bh_studio.engine.files.bounded import read_bytes

# No recording may unpack to more.
_MOST_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True)
class LogitsFile:
    """An .npz file of router logits, under a name that results can show."""

    name: str
    content: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        """Hash of the content, by which results say what was read."""
        return hashlib.sha256(self.content).hexdigest()


def read_logits_file(path: Path) -> LogitsFile:
    """The file at `path`; what it holds is not looked at.

    Raises InputError for one that cannot be read or is longer than any that could be used.
    """
    return LogitsFile(path.name, read_bytes(path, _MOST_BYTES, "a file of router logits"))
