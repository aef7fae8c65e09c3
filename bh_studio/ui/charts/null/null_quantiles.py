"""The quantiles of the held-out p-values of a side's null against those they should be."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QRectF, Qt, Slot

from bh_studio.engine.records.diagnostics import FIT_QUANTILES, NullFit
from bh_studio.ui.charts.chart import Cell
from bh_studio.ui.charts.null.null_chart import NullChart
from bh_studio.ui.charts.numbers import Numbers
from bh_studio.ui.state.selection import Place

# Lower p-values, which only a formula gives, are drawn here.
_LEAST_P = 1e-8
_LEVELS = np.array(FIT_QUANTILES)
_PLAIN, _LOUD, _BOLD = 1.0, 1.8, 2.8


class NullQuantiles(NullChart):
    """Both axes are logarithms: single experts are selected by p-values far below 1 %.

    A cell is a quantile of one layer. The line of the selected layer is bold, and that of a layer
    in which no p-value can select a single expert has the alarm colour.

    lines: of each layer.
    """

    title = "Null: QQ by layer"
    meaning = (
        "A line for each layer will show the quantiles of held-out null p-values against uniform "
        "ones: on the diagonal where the null of a rule fits, below it where p is too small."
    )
    bottom_name, left_name = "log₁₀ p, uniform", "log₁₀ p, held out"

    def build(self) -> None:
        self.lines: list[pg.PlotCurveItem] = []
        self._diagonal = pg.InfiniteLine(angle=45)
        self._needed = pg.InfiniteLine(
            angle=0, label="", labelOpts={"position": 0.98, "anchors": [(1, 0), (1, 1)]}
        )
        for item in (self._diagonal, self._needed):
            self.plot.addItem(item, ignoreBounds=True)
        self._drawn: NullFit | None = None
        self._values = np.zeros((0, 0))
        self._look: tuple[object, ...] = ()
        self.selection.changed.connect(self._take_selection)

    def draw(self) -> None:
        fit = self.fit
        if fit is not self._drawn:
            self._drawn = fit
            self._columns = np.flatnonzero(np.isfinite(fit.quantiles).all(axis=0))
            self._values = np.log10(fit.quantiles[:, self._columns].clip(_LEAST_P))
            self._draw_lines()
        self._paint()

    @property
    def drawn_values(self) -> np.ndarray:
        """(layer, quantile) the lines as drawn."""
        return np.array([line.yData for line in self.lines[: len(self._values)]])

    @property
    def bold_layer(self) -> int | None:
        """The layer whose line is bold."""
        place = self.selection.place
        layer = None if place is None or not self.is_live else place.layer
        return layer if layer is not None and layer < len(self._values) else None

    def grid(self) -> Cell:
        return len(self._columns), len(self._values)

    def cell_at(self, x: float, y: float) -> Cell:
        column = int(np.abs(self._uniform - x).argmin())
        return column, int(np.abs(self._values[:, column] - y).argmin())

    def outline(self, column: int, row: int) -> QRectF:
        return QRectF(self._uniform[column], self._values[row, column], 1e-9, 1e-9)

    def describe(self, column: int, row: int) -> str:
        """The numbers of one quantile, and of its layer."""
        level = self._columns[column]
        return (
            f"Layer {row}: {100 * _LEVELS[level]:.3g} % of {self.fit.held_out_scores:,} have p ≤ "
            f"{self.fit.quantiles[row, level]:.2g} ({_LEVELS[level]:.2g} if it fits)  ·  "
            f"{self.layer_words(row)}"
        )

    def selected_outline(self, place: Place) -> QRectF | None:
        # Its line is bold.
        return None

    def numbers(self) -> Numbers:
        levels = _LEVELS[self._columns]
        names = tuple(f"Layer {layer}" for layer in range(len(self._values)))
        return Numbers(
            ("Uniform p",),
            names,
            self.fit.quantiles[:, self._columns].T,
            lambda row: (float(f"{levels[row]:.3g}"),),
        )

    def take_theme(self) -> None:
        super().take_theme()
        colors = self.theme.colors
        self._diagonal.setPen(pg.mkPen(colors.text, width=1.2, style=Qt.PenStyle.DashLine))
        self._needed.setPen(pg.mkPen(colors.muted, style=Qt.PenStyle.DotLine))
        self._needed.label.setColor(colors.muted)
        self._needed.label.setFont(self.small_font)
        if not self.problem:
            self._paint()

    def show_names(self, has_room: bool) -> None:
        super().show_names(has_room)
        self._needed.label.setVisible(has_room)

    @property
    def _uniform(self) -> np.ndarray:
        """(quantile,) where each is in the plot."""
        return np.log10(_LEVELS[self._columns])

    def _draw_lines(self) -> None:
        uniform = self._uniform
        while len(self.lines) < len(self._values):
            self.lines.append(pg.PlotCurveItem())
            self.plot.addItem(self.lines[-1])
        for line in self.lines[len(self._values) :]:
            line.setVisible(False)
        for line, values in zip(self.lines, self._values, strict=False):
            line.setData(uniform, values)
            line.setVisible(True)
        low = min(uniform[0], self._values.min())
        self.plot.setRange(xRange=(uniform[0], 0), yRange=(low, 0), padding=0.02)

    @Slot()
    def _take_selection(self) -> None:
        if not self.problem:
            self._paint()

    def _paint(self) -> None:
        colors, bold = self.theme.colors, self.bold_layer
        look = self.fit, bold, colors
        if look == self._look:
            return
        self._look = look
        cut_off = self.fit.selects_no_single_expert
        for layer, line in enumerate(self.lines[: len(self._values)]):
            is_bold, is_loud = layer == bold, cut_off[layer]
            ink = colors.alarm if is_loud else colors.accent if is_bold else colors.faint
            width = _BOLD if is_bold else _LOUD if is_loud else _PLAIN
            line.setPen(pg.mkPen(ink, width=width))
            # The wider ones lie over the others.
            line.setZValue(width)
        self._show_needed(bold)

    def _show_needed(self, layer: int | None) -> None:
        """Where a single expert is selected: in `layer`, or in all if that is the same."""
        needed = self.fit.needed_p
        is_known = needed is not None and (layer is not None or len(set(needed)) == 1)
        self._needed.setVisible(is_known)
        if needed is not None and is_known:
            p_value = needed[layer or 0]
            self._needed.setValue(np.log10(p_value))
            self._needed.label.setFormat(f"One expert: p ≤ {p_value:.1e}")
