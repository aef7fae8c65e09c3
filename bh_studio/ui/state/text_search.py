"""Where something is in a text that grows, counted as a document counts."""

from __future__ import annotations

import re


class TextSearch:
    """Finds `wanted`, which is not empty; what has been searched is not searched again.

    places: start and end of each match in UTF-16 units, in order; matches do not overlap.
    """

    def __init__(self, wanted: str, *, match_case: bool) -> None:
        self._pattern = re.compile(re.escape(wanted), 0 if match_case else re.IGNORECASE)
        self._length = len(wanted)
        self.places: list[tuple[int, int]] = []
        self._searched = 0
        # From here on there may be more, in characters and in units.
        self._next = 0
        self._next_unit = 0

    def extend(self, text: str) -> bool:
        """Search what `text` has gained at its end; whether there was anything."""
        if len(text) == self._searched:
            return False
        for match in self._pattern.finditer(text, self._next):
            start = self._go_to(text, match.start())
            self.places.append((start, self._go_to(text, match.end())))
        self._searched = len(text)
        # The beginning of a match may be there already.
        self._go_to(text, max(self._next, len(text) - self._length + 1))
        return True

    def _go_to(self, text: str, place: int) -> int:
        passed = text[self._next : place].encode("utf-16-le", "surrogatepass")
        self._next = place
        self._next_unit += len(passed) // 2
        return self._next_unit
