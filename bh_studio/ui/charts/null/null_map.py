"""How the held-out p-values of a side's null spread over 0 to 1, layer by layer."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QBrush

from bh_studio.engine.records.diagnostics import BINS, NullFit
from bh_studio.ui.charts.cell_map import CellMap
from bh_studio.ui.charts.chart import Cell
from bh_studio.ui.charts.difference_map import difference_table
from bh_studio.ui.charts.drawing.filled_rects import FilledRects
from bh_studio.ui.charts.null.null_chart import NullChart
from bh_studio.ui.charts.numbers import Numbers
from bh_studio.ui.charts.table_legend import TableLegend
from bh_studio.ui.state.selection import Place

# The colours end where a bin has so many times its share, or a share so many times as small.
_MOST_TIMES = 4
_MIDDLE = 128


class NullMap(NullChart, CellMap):
    """A cell is one twentieth of 0 to 1 in one layer; as many as there should be is the ground.

    A layer in which no p-value can select a single expert is hatched in the alarm colour.
    """

    title = "Null: p-values by layer"
    meaning = (
        "A cell will show which share of held-out null scores has a p-value in one twentieth of 0 "
        "to 1, layers from bottom to top: 5 % everywhere where the null of a rule fits."
    )
    bottom_name, left_name = "p-value", "Layer"

    def build(self) -> None:
        super().build()
        self._cut_off = FilledRects(outlined=True)
        self.plot.addItem(self._cut_off, ignoreBounds=True)
        self._drawn: NullFit | None = None
        marks = [(BINS * fifth / 5 - 0.5, f"{fifth / 5:g}") for fifth in range(6)]
        self.axis("bottom").setTicks([marks])

    def new_legend(self) -> TableLegend:
        self._legend = TableLegend(self.theme, "Share")
        return self._legend

    def draw(self) -> None:
        fit = self.fit
        if fit is self._drawn:
            return
        self._drawn = fit
        columns, rows = self.grid()
        self.plot.setRange(xRange=(-0.5, columns - 0.5), yRange=(-0.5, rows - 0.5), padding=0)
        with np.errstate(divide="ignore"):
            times = np.log2(self.shares.T * BINS) / np.log2(_MOST_TIMES)
        steps = np.rint(times.clip(-1, 1) * (_MIDDLE - 1)) + _MIDDLE
        self.paint_cells(steps.astype(np.uint8))
        cut_off = fit.selects_no_single_expert
        rects = [self._row(layer) for layer, is_so in enumerate(cut_off) if is_so]
        self._cut_off.show_rects(rects)

    @property
    def shares(self) -> np.ndarray:
        """(layer, bin) of the held-out null scores."""
        return np.array([layer.null_histogram for layer in self.fit.layers])

    @property
    def cut_off(self) -> tuple[int, ...]:
        """The layers that are hatched."""
        return tuple(round(rect.center().y()) for rect in self._cut_off.rects)

    def grid(self) -> Cell:
        return BINS, len(self.fit.layers)

    def describe(self, column: int, row: int) -> str:
        """The numbers of one bin, and of its layer."""
        share = self.fit.layers[row].null_histogram[column]
        return (
            f"Layer {row}, p {column / BINS:.2f} to {(column + 1) / BINS:.2f}: "
            f"{100 * share:.2f} % of {self.fit.held_out_scores:,} ({100 / BINS:g} if it fits)  ·  "
            f"{self.layer_words(row)}"
        )

    def selected_outline(self, place: Place) -> QRectF | None:
        return None if place.layer is None else self._row(place.layer)

    def numbers(self) -> Numbers:
        bins = tuple(f"p {n / BINS:.2f} to {(n + 1) / BINS:.2f}" for n in range(BINS))
        of_layers = [self.layer_values(layer) for layer in range(len(self.fit.layers))]
        values = np.column_stack([of_layers, self.shares])
        return Numbers(("Layer",), (*self.layer_names, *bins), values)

    def take_theme(self) -> None:
        super().take_theme()
        colors = self.theme.colors
        self._cut_off.fill(QBrush(colors.alarm, Qt.BrushStyle.BDiagPattern))
        table = difference_table(colors.surface, colors.is_dark, least=0.0)
        self.take_colors(table)
        even = 100 / BINS
        marks = (
            (0.0, f"≤ {even / _MOST_TIMES:g} %"), (1.0, f"≥ {even * _MOST_TIMES:g} %"),
            (0.5, f"{even:g} %"), (0.25, f"{even / 2:g} %"), (0.75, f"{even * 2:g} %"),
        )  # fmt: skip
        self._legend.show_table(
            table[1:], marks,
            "Colour of a cell: share of the held-out null scores, which should be 5 %; hatched in "
            "red: no p-value of the layer can select a single expert",
        )  # fmt: skip

    def _row(self, layer: int) -> QRectF:
        return QRectF(-0.5, layer - 0.5, BINS, 1)
