"""The --out option: a file whose ending says its format, checked before any work is done."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

from bh_studio.cli.terminal import CommandError


def output_file(endings: Iterable[str]) -> Callable[[str], Path]:
    """An argparse type: the path of a file with one of `endings`, in a folder that exists."""
    endings = tuple(endings)

    def parse(text: str) -> Path:
        path = Path(text)
        if path.suffix not in endings:
            raise argparse.ArgumentTypeError(
                f"{text}: use one of {', '.join(endings)} as the ending"
            )
        if not path.parent.is_dir():
            raise argparse.ArgumentTypeError(f"{text}: the folder {path.parent} does not exist")
        return path

    return parse


def write_output(write: Callable[[Path], None], path: Path) -> None:
    """Call `write` with `path`. Raises CommandError with a sentence if the disk refuses."""
    try:
        write(path)
    except OSError as error:
        raise CommandError(f"{path} could not be written: {error.strerror}.") from error
