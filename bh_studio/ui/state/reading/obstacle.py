"""Why something cannot be shown of what is on screen, in words. Knows no widget."""

from __future__ import annotations

from typing import NamedTuple


class Obstacle(NamedTuple):
    """words: a few. sentence: what can be done about it, too. passes: whether it goes away without
    anything being done."""

    words: str
    sentence: str
    passes: bool = False
