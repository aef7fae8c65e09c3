"""Which tint the tokens of all sides have. QtCore and colours only."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal, Slot

from bh_studio.ui.state.reading.obstacle import Obstacle
from bh_studio.ui.state.reading.written_kl import WrittenKl
from bh_studio.ui.state.run_sides import RunSides
from bh_studio.ui.state.tints.tint import EXPERTS, KL, TINTS, Tint


class Tinting(QObject):
    """current: the tint that a person has chosen, whether the runs on screen have it or not. What
    each side writes and what all read have one each, experts and KL at first. changed: it is
    another now.

    written_kl: who has KL measured of what the sides wrote, once that is the tint.
    """

    changed = Signal()

    def __init__(
        self, sides: RunSides, written_kl: WrittenKl, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._sides = sides
        self._written_kl = written_kl
        self.of_written: Tint = EXPERTS
        self._of_read: Tint = KL
        self._is_read = False
        sides.changed.connect(self._follow)
        for changed in (self.changed, sides.changed, written_kl.changed):
            changed.connect(self._want)

    @property
    def current(self) -> Tint:
        return self._of_read if self._is_read else self.of_written

    def choose(self, name: str) -> None:
        """Tint by that from now on; a name that no tint has changes nothing."""
        for tint in TINTS:
            if tint.name == name and tint is not self.current:
                if self._is_read:
                    self._of_read = tint
                else:
                    self.of_written = tint
                self.changed.emit()

    @Slot()
    def _follow(self) -> None:
        former = self.current
        self._is_read = self._sides.is_same_text
        if self.current is not former:
            self.changed.emit()

    @Slot()
    def _want(self) -> None:
        if self.current is KL:
            self._written_kl.want()

    def obstacle_of(self, tint: Tint) -> Obstacle | None:
        """Why the runs on screen cannot be tinted so, or not yet; None if they can."""
        obstacle = tint.obstacle_of(self._sides.runs)
        return self._written_kl.obstacle() if tint is KL else obstacle
