"""Finds what the bar asks for in the answers on screen, and goes from match to match."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence

from PySide6.QtCore import QObject, Slot

from bh_studio.engine.rules.sides import side_letter
from bh_studio.ui.compare.find_bar import FindBar
from bh_studio.ui.compare.token_text import TokenText
from bh_studio.ui.state.text_search import TextSearch
from bh_studio.ui.state.words import listed


class Finding(QObject):
    """Searches the texts as the model wrote them, side after side; one match is the current one."""

    def __init__(self, bar: FindBar, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._bar = bar
        self._texts: tuple[TokenText, ...] = ()
        self._epochs: list[int] = []
        self._searches: list[TextSearch] = []
        # Side and number of the current match.
        self._current: tuple[int, int] | None = None
        bar.asked.connect(self._begin)
        bar.stepped.connect(self._step)
        bar.closed.connect(self._end)

    def refresh(self, texts: Sequence[TokenText]) -> None:
        """Search what the texts on screen have gained; all of them where they are others now."""
        shown, epochs = tuple(texts), [text.epoch for text in texts]
        if (self._texts, self._epochs) != (shown, epochs):
            self._texts = shown
            self._search_anew()
            return
        has_grown = [search.extend(text.source) for text, search in self._pairs()]
        if any(has_grown):
            self._show()

    @Slot()
    def _begin(self) -> None:
        """Go to the first match from the former one on: a longer word may begin there."""
        side, number = self._current or (0, 0)
        places = self._searches[side].places if self._searches else []
        place = places[number] if number < len(places) else (0, 0)
        self._search_anew()
        found = [bool(search.places) for search in self._searches]
        if not any(found):
            return
        number = bisect.bisect_left(self._searches[side].places, place)
        if number == len(self._searches[side].places):
            behind = [other for other in range(side + 1, len(found)) if found[other]]
            side, number = behind[0] if behind else found.index(True), 0
        self._go_to(side, number)

    @Slot(int)
    def _step(self, step: int) -> None:
        ends = list(itertools.accumulate(len(search.places) for search in self._searches))
        if not ends or not ends[-1]:
            return
        if self._current is None:
            place = 0 if step > 0 else -1
        else:
            place = self._rank(self._current) + step
        place %= ends[-1]
        side = bisect.bisect_right(ends, place)
        self._go_to(side, place - (ends[side - 1] if side else 0))

    @Slot()
    def _end(self) -> None:
        self._search_anew()
        if self._texts:
            self._texts[0].setFocus()

    def _go_to(self, side: int, number: int) -> None:
        self._current = side, number
        self._show()
        self._texts[side].reveal_place(self._searches[side].places[number][0])

    def _search_anew(self) -> None:
        wanted, match_case = self._bar.wanted, self._bar.match_case.isChecked()
        self._current = None
        self._epochs = [text.epoch for text in self._texts]
        self._searches = [TextSearch(wanted, match_case=match_case) for _ in self._texts if wanted]
        for text, search in self._pairs():
            search.extend(text.source)
        if not wanted:
            for text in self._texts:
                text.show_found((), None)
        self._show()

    def _show(self) -> None:
        for side, (text, search) in enumerate(self._pairs()):
            is_here = self._current is not None and self._current[0] == side
            current = search.places[self._current[1]] if self._current and is_here else None
            text.show_found(search.places, current)
        self._bar.show_count(self._count(), has_any=any(one.places for one in self._searches))

    def _count(self) -> str:
        if not self._searches:
            return ""
        total = sum(len(search.places) for search in self._searches)
        if not total:
            return "Not found"
        found = [side for side, search in enumerate(self._searches) if search.places]
        where = f"{total} in {listed([side_letter(side) for side in found])}"
        return where if self._current is None else f"{self._rank(self._current) + 1} of {where}"

    def _rank(self, current: tuple[int, int]) -> int:
        side, number = current
        return sum(len(search.places) for search in self._searches[:side]) + number

    def _pairs(self) -> list[tuple[TokenText, TextSearch]]:
        # Without anything to find there is no search.
        return list(zip(self._texts, self._searches, strict=False))
