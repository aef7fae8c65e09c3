"""The texts of docs/science.md: held-out books, and passages of training books to calibrate on.

    python -m tools.science_texts --data DATA --out TEXTS

Writes TEXTS/test and TEXTS/validation, a file a book, and TEXTS/calibration, a passage from the
middle of each of 32 training books. The test books are only ever evaluated on.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable
from pathlib import Path

from tools.nano_data import read_books, split_books

PASSAGES = 32
PASSAGE_CHARACTERS = 8000
SEED = 0


def middle(text: str) -> str:
    """A passage from the middle of `text` that begins with a line."""
    start = text.find("\n", max(0, len(text) // 2 - PASSAGE_CHARACTERS // 2)) + 1
    return text[start : start + PASSAGE_CHARACTERS]


def write_texts(folder: Path, texts: Iterable[tuple[str, str]]) -> None:
    """Write each (name, text) into `folder` as NAME.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts:
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")


def main() -> None:
    """Write what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with books.txt.xz")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    training, validation, test = split_books(read_books(arguments.data))
    for name, books in (("validation", validation), ("test", test)):
        write_texts(arguments.out / name, ((f"{b.index:03d}", b.text) for b in books))
    chosen = sorted(random.Random(SEED).sample(range(len(training)), PASSAGES))
    write_texts(
        arguments.out / "calibration",
        ((f"{training[i].index:03d}", middle(training[i].text)) for i in chosen),
    )


if __name__ == "__main__":
    main()
