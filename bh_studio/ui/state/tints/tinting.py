"""Which tint the tokens of all sides have. QtCore and colours only."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from bh_studio.ui.state.run_sides import RunSides
from bh_studio.ui.state.tints.tint import EXPERTS, TINTS, Obstacle, Tint


class Tinting(QObject):
    """current: the tint that a person has chosen, whether the runs on screen have it or not.
    changed: it is another now."""

    changed = Signal()

    def __init__(self, sides: RunSides, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._sides = sides
        self.current: Tint = EXPERTS

    def choose(self, name: str) -> None:
        """Tint by that from now on; a name that no tint has changes nothing."""
        for tint in TINTS:
            if tint.name == name and tint is not self.current:
                self.current = tint
                self.changed.emit()

    def obstacle_of(self, tint: Tint) -> Obstacle | None:
        """Why the runs on screen cannot be tinted so; None if they can."""
        return tint.obstacle_of(self._sides.runs)
