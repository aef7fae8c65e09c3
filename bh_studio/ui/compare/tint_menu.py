"""The menu of what the background of a token says: the same in View and beside the legend."""

from __future__ import annotations

from PySide6.QtCore import Slot
from PySide6.QtGui import QAction, QActionGroup
from PySide6.QtWidgets import QMenu, QWidget

from bh_studio.ui.state.tints.tint import TINTS
from bh_studio.ui.state.tints.tinting import Tinting


class TintMenu(QMenu):
    """Chooses the tint; one that the runs on screen cannot have is greyed and says why."""

    def __init__(self, tinting: Tinting, parent: QWidget | None = None) -> None:
        super().__init__("&Tint of tokens", parent)
        self._tinting = tinting
        self.setToolTipsVisible(True)
        group = QActionGroup(self)
        for tint in TINTS:
            action = self.addAction(tint.title)
            action.setCheckable(True)
            action.setData(tint.name)
            group.addAction(action)
        group.triggered.connect(self._choose)
        tinting.changed.connect(self.refresh)
        self.aboutToShow.connect(self.refresh)
        self.refresh()

    @Slot()
    def refresh(self) -> None:
        """Show what can be chosen for the runs as they are now."""
        for tint, action in zip(TINTS, self.actions(), strict=True):
            obstacle = self._tinting.obstacle_of(tint)
            action.setEnabled(obstacle is None or obstacle.passes)
            action.setToolTip(tint.meaning if obstacle is None else obstacle.sentence)
            action.setChecked(tint is self._tinting.current)

    @Slot(QAction)
    def _choose(self, action: QAction) -> None:
        self._tinting.choose(action.data())
