"""What is looked at: one side, one token, one layer. QtCore only.

Every view shows it and may set it; none knows of the others.
"""

from __future__ import annotations

from typing import NamedTuple

from PySide6.QtCore import QObject, Signal


class Place(NamedTuple):
    """side: its number. token: of the answer, from 0; the prompt's end with -1, so that it means
    the same in all sides, whatever they have read before. layer: None for all of them."""

    side: int
    token: int
    layer: int | None


class Selection(QObject):
    """place: what is selected; None for nothing. changed: it is another now."""

    changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.place: Place | None = None

    def select(self, side: int, token: int, layer: int | None = None) -> None:
        """Look at this. A layer that is left out stays what it was."""
        if layer is None and self.place is not None:
            layer = self.place.layer
        self._set(Place(side, token, layer))

    def clear(self) -> None:
        """Look at nothing in particular."""
        self._set(None)

    def _set(self, place: Place | None) -> None:
        if place != self.place:
            self.place = place
            self.changed.emit()
