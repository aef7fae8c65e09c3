"""Bars of mean experts by layer, with their spread and the model's own top-k as a line."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QRectF, Qt, Slot
from PySide6.QtGui import QFontMetricsF

from bh_studio.engine.rules.sides import MOST_SIDES
from bh_studio.ui.charts.chart import Cell
from bh_studio.ui.charts.grouped_bars import GroupedBars
from bh_studio.ui.charts.numbers import Numbers
from bh_studio.ui.charts.shown import ShownSide
from bh_studio.ui.state.selection import Place

_HEADROOM = 1.18
# What a name is from the ends of its line, in pixels.
_MARGIN = 16


class LayerChart(GroupedBars):
    """Whiskers are one standard deviation, as far as there can be so many experts.

    reference_name: what is written at the line of the model's own number.
    """

    title = "Experts by layer"
    meaning = (
        "Bars will show how many experts each side uses in each layer: the mean over the tokens "
        "so far, with its spread, against the model's own fixed number."
    )
    bottom_name, left_name = "Layer", "Experts per token"

    def build(self) -> None:
        super().build()
        self._spreads = tuple(
            pg.ErrorBarItem(x=np.zeros(1), y=np.zeros(1), top=0, bottom=0)
            for _ in range(MOST_SIDES)
        )
        self._reference = pg.InfiniteLine(
            angle=0, label="", labelOpts={"position": 0.99, "anchors": [(1, 1), (1, 1)]}
        )
        for item in (*self._spreads, self._reference):
            self.plot.addItem(item)
        self.reference_name = ""
        self.plot.getPlotItem().vb.sigResized.connect(self._name_reference)

    def heights(self, side: ShownSide) -> np.ndarray:
        return np.array(side.statistics.per_layer_mean)

    def whiskers(self, side: ShownSide) -> tuple[np.ndarray, np.ndarray]:
        """(layer,) the lower and the upper end of each."""
        means, stds = self.heights(side), np.array(side.statistics.per_layer_std)
        least, most = side.possible
        # A mean is what it is, whatever should have been possible.
        low = np.minimum(means, np.maximum(means - stds, least))
        return low, np.maximum(means, np.minimum(means + stds, most))

    def top(self) -> float:
        return self.shown.sides[0].about.scale.high * _HEADROOM

    def grid(self) -> Cell:
        return self.shown.layers, len(self.shown.written)

    def draw(self) -> None:
        super().draw()
        shown = self.shown
        if self._reference.value() != shown.top_k:
            self._reference.setValue(shown.top_k)
        self._name_reference()
        for spread in self._spreads:
            spread.setVisible(False)
        for place, side in enumerate(shown.written):
            means = self.heights(side)
            low, high = self.whiskers(side)
            spread = self._spreads[side.number]
            spread.setData(
                x=np.arange(len(means)) + self.offset(place), y=means,
                bottom=means - low, top=high - means, beam=self._width / 3,
            )  # fmt: skip
            spread.setVisible(True)

    @property
    def reference(self) -> float:
        """Where the line of the model's own number is drawn."""
        return float(self._reference.value())

    def hint(self) -> str:
        counted = [side.title for side in self.shown.written if side.about.note]
        note = f"  ·  {', '.join(counted)}" if counted else ""
        return f"Mean over tokens, ± 1 std{note}"

    def describe(self, column: int, row: int) -> str:
        """The numbers of all sides in a layer."""
        parts = []
        for side in self.shown.written:
            mean, std = side.statistics.per_layer_mean, side.statistics.per_layer_std
            parts.append(f"{side.title} {mean[column]:.2f} ± {std[column]:.2f}")
        return f"Layer {column}: {', '.join(parts)} experts"

    def choose(self, column: int, row: int) -> None:
        side = self.shown.written[row]
        place = self.selection.place
        token = side.tokens - 1 if place is None else place.token
        self.selection.select(side.number, token, column)

    def selected_outline(self, place: Place) -> QRectF | None:
        return None if place.layer is None else self.group_outline(place.layer)

    def numbers(self) -> Numbers:
        written = self.shown.written
        values = [
            column
            for side in written
            for column in (side.statistics.per_layer_mean, side.statistics.per_layer_std)
        ]
        names = [f"{side.name} {what}" for side in written for what in ("mean", "std")]
        return Numbers(("Layer",), tuple(names), np.array(values).T)

    def take_theme(self) -> None:
        super().take_theme()
        colors = self.theme.colors
        for spread in self._spreads:
            spread.setData(pen=pg.mkPen(colors.text, width=1))
        dashes = pg.mkPen(colors.text, width=1.4, style=Qt.PenStyle.DashLine)
        self._reference.setPen(dashes)
        self._reference.label.setColor(colors.text)
        self._reference.label.setFont(self.small_font)

    def show_names(self, has_room: bool) -> None:
        super().show_names(has_room)
        self._reference.label.setVisible(has_room)

    @Slot()
    def _name_reference(self) -> None:
        room, top_k = self.plot.getPlotItem().vb.width(), self.shown.top_k
        advance = QFontMetricsF(self.small_font).horizontalAdvance
        names = f"Model's own: {top_k} in every layer", f"Own: {top_k}", ""
        self.reference_name = next(
            name for name in names if not name or advance(name) + _MARGIN < room
        )
        self._reference.label.setFormat(self.reference_name)
