"""A plot in a card: a title, a read-out line, and room that is empty while there is no data."""

from __future__ import annotations

from typing import Any

import pyqtgraph as pg
from PySide6.QtCore import QEvent, QObject, Qt, Slot
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from bh_studio.ui.charts.drawing.axes import paint_axes
from bh_studio.ui.widgets.elided_label import ElidedLabel
from bh_studio.ui.widgets.theme import GAP, GAP_SMALL, GAP_TINY, Theme

# Of a plot, each as many pixels as a letter has points: the least, and from where on there is room
# for the names of what is in it.
_LEAST_LINES, _NAMED_LINES = 2, 14


class PlotCard(QFrame):
    """Holds one plot. A subclass fills it and paints it in `take_theme`."""

    def __init__(self, title: str, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.theme = theme
        self.setProperty("role", "card")
        self._title = QLabel(title)
        self._title.setProperty("role", "section")
        self._readout = ElidedLabel("muted")
        self._readout.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.plot = pg.PlotWidget(background=None, enableMenu=False)
        self.plot.setFrameShape(QFrame.Shape.NoFrame)
        item = self.plot.getPlotItem()
        item.hideButtons()
        item.setMouseEnabled(x=False, y=False)
        item.disableAutoRange()
        header = QHBoxLayout()
        header.setSpacing(GAP_SMALL)
        header.addWidget(self._title)
        header.addWidget(self._readout, 1)
        self.body = QWidget()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(GAP, GAP_SMALL, GAP, GAP_SMALL)
        layout.setSpacing(GAP_TINY)
        layout.addLayout(header)
        layout.addWidget(self.body, 1)
        self.plot.installEventFilter(self)
        theme.changed.connect(self.take_theme)
        self.show_empty(True)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.plot and event.type() is QEvent.Type.Resize:
            self.show_names(self._has_room)
        return super().eventFilter(watched, event)

    @property
    def readout(self) -> str:
        """The line that tells what is under the pointer."""
        return self._readout.text()

    @property
    def title(self) -> str:
        """What the plot shows."""
        return self._title.text()

    def set_readout(self, text: str) -> None:
        """Tell what is under the pointer."""
        if text != self._readout.text():
            self._readout.setText(text)

    def set_title(self, title: str) -> None:
        """Name what the plot shows."""
        self._title.setText(title)

    def show_empty(self, is_empty: bool) -> None:
        """Leave the plot out while there is nothing to draw."""
        self.body.setVisible(not is_empty)
        self._readout.setVisible(not is_empty)

    def axis(self, name: str) -> Any:
        """A plot axis, "left" or "bottom"."""
        return self.plot.getPlotItem().getAxis(name)

    def name_axes(self, bottom: str, left: str) -> None:
        """Label both axes."""
        self._axis_names = {"bottom": bottom, "left": left}
        self.take_theme()

    @Slot()
    def take_theme(self) -> None:
        """Paint the axes in the theme's colours and text size."""
        self.plot.setMinimumHeight(round(self.theme.point_size * _LEAST_LINES))
        paint_axes(self.plot, self.theme, getattr(self, "_axis_names", {}))
        self.show_names(self._has_room)

    def show_names(self, has_room: bool) -> None:
        """Name what is in the plot, or leave the plot the room that the names would take."""
        for side in getattr(self, "_axis_names", {}):
            self.axis(side).showLabel(has_room)

    @property
    def _has_room(self) -> bool:
        return self.plot.height() >= self.theme.point_size * _NAMED_LINES
