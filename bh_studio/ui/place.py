"""A place: one of the pages between the window's lines, of which one is shown."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtWidgets import QSplitter, QWidget


class Place(QWidget):
    """What the window's frame asks of every page. splitters: by the names under which their sizes
    are remembered."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.splitters: Mapping[str, QSplitter] = {}

    def take_focus(self) -> None:
        """Let typing begin where it begins here."""
        raise NotImplementedError

    def sizes(self) -> dict[str, list[int]]:
        """The sizes of its splitters, by their names."""
        return {name: splitter.sizes() for name, splitter in self.splitters.items()}

    def show_sizes(self, remembered: Mapping[str, list[int]]) -> None:
        """Take those of `remembered` that fit its splitters."""
        for name, splitter in self.splitters.items():
            sizes = remembered.get(name, [])
            # Nothing can be made so small: a part without a size was folded away then.
            if len(sizes) == splitter.count() and min(sizes) > 0:
                splitter.setSizes(sizes)
