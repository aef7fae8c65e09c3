"""Text files and folders of them as the texts of a command. Knows no command and no model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bh_studio.cli.terminal import EXIT_USAGE, CommandError


def read_texts(paths: Sequence[Path]) -> list[tuple[str, str]]:
    """(name, text) of each file; of a folder, of every .txt file in it, by name.

    Raises CommandError for a path that is not there, a folder without text files, and a file that
    is empty or not UTF-8.
    """
    return [(path.name, _read(path)) for given in paths for path in _files(given)]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.txt"))
    if not found:
        raise CommandError(f"The folder {path} holds no .txt file.", EXIT_USAGE)
    return found


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CommandError(f"{path} is not UTF-8 text.", EXIT_USAGE) from None
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.", EXIT_USAGE) from error
    if not text.strip():
        raise CommandError(f"{path} is empty.", EXIT_USAGE)
    return text
