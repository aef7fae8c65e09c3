"""A name for a file, from the beginning of a text: one that every file system takes."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from PySide6.QtCore import QTextBoundaryFinder

_WORDS = 6
_LONGEST = 48
# The most that file systems take for a name, less what a file bears while it is being written.
_MOST_BYTES = 255 - 16
_SIGNS = " -_.'’"
# Within a word they decide how letters join.
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
# Windows keeps these for devices, whatever the ending.
_DEVICES = {"con", "prn", "aux", "nul"} | {
    f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"
}


def name_from(text: str, instead: str) -> str:
    """The first words of `text` as letters, numbers and a few signs; `instead` if there are none.

    Nothing that is seen as one character is cut in two.
    """
    start = unicodedata.normalize("NFC", " ".join(text.split()[:_WORDS]))
    kept = ["".join(_kept(seen)) for seen in _seen_as_one(start)]
    name = "".join(kept[:_LONGEST]).strip(_SIGNS)
    is_device = name.partition(".")[0].rstrip().casefold() in _DEVICES
    return f"_{name}" if is_device else name or instead


def fitting(name: str, ending: str) -> str:
    """As much of `name` as there is room for before `ending`, and that."""
    room = _MOST_BYTES - len(ending.encode())
    kept = ""
    for seen in _seen_as_one(name):
        if len((kept + seen).encode()) > room:
            return kept.rstrip(_SIGNS) + ending
        kept += seen
    return kept + ending


def _kept(seen: str) -> Iterator[str]:
    """What of something seen as one character may be in a name."""
    if seen[0] in _SIGNS or unicodedata.category(seen[0])[0] in "LN":
        yield seen[0]
        for mark in seen[1:]:
            if mark in _JOINERS or unicodedata.category(mark)[0] in "LMN":
                yield mark


def _seen_as_one(text: str) -> Iterator[str]:
    """What of `text` can be seen, piece by piece."""
    plain = "".join(c for c in text if c in _JOINERS or unicodedata.category(c)[0] != "C")
    finder = QTextBoundaryFinder(QTextBoundaryFinder.BoundaryType.Grapheme, plain)
    # Qt counts in UTF-16 units.
    units = plain.encode("utf-16-le")
    start = 0
    while (end := finder.toNextBoundary()) > 0:
        yield units[2 * start : 2 * end].decode("utf-16-le")
        start = end
