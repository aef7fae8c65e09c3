"""Named numbers in one line, as many as fit; the tooltip says all, and what each is."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QWidget

from bh_studio.ui.widgets.part_line import PartLine
from bh_studio.ui.widgets.visible_text import plain_tooltip


class NumberLine(PartLine):
    """meanings: what each number is, a sentence, by its name; the most important first, which stays
    where there is least room. values: those that are shown."""

    def __init__(self, meanings: Mapping[str, str], parent: QWidget | None = None) -> None:
        super().__init__("number", parent)
        self._meanings = dict(meanings)
        self._weights = {name: -place for place, name in enumerate(meanings)}
        self.values = dict.fromkeys(meanings, "")
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._tell()

    def show_values(self, values: Mapping[str, str]) -> None:
        """Show these in their order, with their units, by name; an empty text where there is no
        number yet."""
        if values != self.values:
            self.values = dict(values)
            shown = ((value, "", self._weights[name]) for name, value in values.items() if value)
            self.show_parts(tuple(shown))
            self._tell()

    def _tell(self) -> None:
        said = ", ".join(f"{name}: {value or 'none yet'}" for name, value in self.values.items())
        self.setAccessibleName(said)
        lines = [
            f"{name}: {value or '–'}\n{self._meanings[name]}" for name, value in self.values.items()
        ]
        self.setToolTip(plain_tooltip("\n\n".join(lines)))
