"""Texts that experiments read, and the files they come from. Knows no command and no model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bh_studio import paths
from bh_studio.engine.errors import EngineError, InputError
from bh_studio.engine.files.text import MOST_BYTES, read_text

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


class TextTooLong(EngineError):  # noqa: N818 - names what is wrong, as the event does
    """A text has more tokens than the model reads at once. beginning: of it, as much as fits."""

    def __init__(self, message: str, advice: str, beginning: Text) -> None:
        super().__init__(message, advice)
        self.beginning = beginning


def shipped_text() -> Text:
    """The text that ships with the program, to record router logits on."""
    content = paths.resource("texts/calibration.txt").read_text(encoding="utf-8")
    return Text("calibration.txt", content)


def read_texts(paths: Sequence[Path]) -> tuple[Text, ...]:
    """The text of each file; of a folder, of every .txt file in it that is not hidden, by name.

    Raises InputError for a path that is not there, a folder without text files, and a file that
    is empty, too long or no text.
    """
    return tuple(map(read_named, _all_files(paths)))


def read_named(path: Path, sha256: str | None = None, most_bytes: int = MOST_BYTES) -> Text:
    """The text in `path` under the name of the file.

    sha256: what is known of it; one that an earlier version took, which read every end of a line as
    "\\n" and a mark before the text as part of it, gives the text as it was read then. most_bytes:
    that the file may have. Raises what read_texts raises.
    """
    text = Text(path.name, read_text(path, most_bytes))
    if not text.content.strip():
        raise InputError(f"{path} is empty.")
    if sha256 is None or text.sha256 == sha256:
        return text
    unified = text.content.replace("\r\n", "\n").replace("\r", "\n")
    former = (Text(path.name, mark + unified) for mark in ("", "\ufeff"))
    return next((reading for reading in former if reading.sha256 == sha256), text)


def sources_of(paths: Sequence[Path]) -> dict[str, Path]:
    """Where each text of `paths` lies, by its hash.

    Raises InputError for a pipe, which cannot be read again, and what read_texts raises.
    """
    files = _all_files(paths)
    for path in files:
        if not path.is_file():
            raise InputError(f"{path} is no file that could be read again.", "Name a file.")
    return {read_named(path).sha256: path for path in files}


def _all_files(paths: Sequence[Path]) -> list[Path]:
    return [path for given in paths for path in _files(given)]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    try:
        found = sorted(inside for inside in path.iterdir() if _is_text_file(inside))
    except OSError as error:
        raise InputError(f"The folder {path} cannot be read: {error.strerror}.") from error
    if not found:
        raise InputError(f"The folder {path} holds no .txt file.")
    return found


def _is_text_file(path: Path) -> bool:
    # Systems put files of their own beside those of people, such as ._a.txt, and hide them.
    is_hidden = path.name.startswith(".")
    return path.suffix.lower() == ".txt" and not is_hidden and not path.is_dir()
