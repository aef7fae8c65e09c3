"""Texts that experiments read, and the files they come from. Knows no command and no model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bh_studio import paths
from bh_studio.engine.errors import InputError
from bh_studio.engine.files.text import read_text

# The most that a model sees at once unless it is asked for more or can read less.
DEFAULT_WINDOW = 2048


@dataclass(frozen=True, slots=True)
class Text:
    """A text to read, under a name that results can show."""

    name: str
    content: str

    @property
    def sha256(self) -> str:
        """Hash of the content, by which results say what was read."""
        return hashlib.sha256(self.content.encode()).hexdigest()


def shipped_text() -> Text:
    """The text that ships with the program, to record router logits on."""
    content = paths.resource("texts/calibration.txt").read_text(encoding="utf-8")
    return Text("calibration.txt", content)


def read_texts(paths: Sequence[Path]) -> tuple[Text, ...]:
    """The text of each file; of a folder, of every .txt file in it, by name.

    Raises InputError for a path that is not there, a folder without text files, and a file that
    is empty, too long or not UTF-8.
    """
    return tuple(Text(path.name, _read(path)) for path in _all_files(paths))


def sources_of(paths: Sequence[Path]) -> dict[str, Path]:
    """Where each text of `paths` lies, by its hash. Raises what read_texts raises."""
    return {Text(path.name, _read(path)).sha256: path for path in _all_files(paths)}


def _all_files(paths: Sequence[Path]) -> list[Path]:
    return [path for given in paths for path in _files(given)]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.txt"))
    if not found:
        raise InputError(f"The folder {path} holds no .txt file.")
    return found


def _read(path: Path) -> str:
    text = read_text(path)
    if not text.strip():
        raise InputError(f"{path} is empty.")
    return text
