"""Texts of many kinds, cut into the part that choices are made on and the part that they are
measured on.

    python -m tools.kind_texts choosing --kinds KINDS --out TEXTS
    python -m tools.kind_texts measuring --kinds KINDS --out TEXTS

KINDS: a folder with manifest.tsv, which has a line a kind: at least "kind", "file" and "sha256".
Writes TEXTS/KIND.txt of each. What choices are made on begins every file; only of the kinds named
in CHOSEN_ON is anything written. What is measured on ends it; docs/science.md says what of it was
read before.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from pathlib import Path

from tools.science_texts import write_texts

CHOSEN_ON = ("hard_lines", "verse", "code", "law", "maths", "old_spelling")
_CHOOSING = slice(0, 60_000)
_MEASURING = slice(120_000, None)
# Of these the first trials had read further.
_MEASURING_LATER = dict.fromkeys(("code", "german", "maths"), slice(140_000, None))


def read_kinds(folder: Path) -> dict[str, str]:
    """The text of each kind. Raises ValueError for one that is not what the manifest says."""
    texts = {}
    with (folder / "manifest.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            data = (folder / row["file"]).read_bytes()
            if hashlib.sha256(data).hexdigest() != row["sha256"]:
                raise ValueError(f"{row['file']} is not the file that manifest.tsv names.")
            texts[row["kind"]] = data.decode("utf-8")
    return texts


def part_of(kinds: dict[str, str], part: str) -> dict[str, str]:
    """What `part`, "choosing" or "measuring", has of each kind."""
    if part == "choosing":
        return {kind: kinds[kind][_CHOOSING] for kind in CHOSEN_ON if kind in kinds}
    return {kind: text[_MEASURING_LATER.get(kind, _MEASURING)] for kind, text in kinds.items()}


def main() -> None:
    """Write the part that the command line names."""
    parser = argparse.ArgumentParser(description="Texts of many kinds, cut into two parts.")
    parser.add_argument("part", choices=("choosing", "measuring"))
    parser.add_argument("--kinds", type=Path, required=True, help="folder with manifest.tsv")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    write_texts(arguments.out, part_of(read_kinds(arguments.kinds), arguments.part).items())


if __name__ == "__main__":
    main()
