"""Bars of mean experts per layer, with their spread and the baseline's top-k as a line."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QEvent, QObject, QPointF, Qt, Slot
from PySide6.QtWidgets import QVBoxLayout, QWidget

from bh_studio.ui.charts.chart_card import ChartCard
from bh_studio.ui.state.run_model import RunModel
from bh_studio.ui.widgets.theme import Theme

_HEADROOM = 1.18
_EXPLANATION = "Mean over tokens, ± 1 std"


class LayerChart(ChartCard):
    """Built once for a number of layers; a frame changes heights only."""

    def __init__(self, run: RunModel, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(
            "Experts per layer",
            "Bars will show how many experts BH uses in each layer: the mean over the tokens so "
            "far, with its spread, against the baseline's fixed number.",
            theme,
            parent,
        )
        self._run = run
        self._layers = 0
        self.plot.setAccessibleName("Chart of experts per layer")
        self.plot.setToolTip("Point at a bar to read its numbers.")
        self._bars = pg.BarGraphItem(x=[0], height=[0], width=0.72)
        self._spread = pg.ErrorBarItem(x=np.zeros(1), y=np.zeros(1), height=0, beam=0.24)
        self._reference = pg.InfiniteLine(
            angle=0, label="", labelOpts={"position": 0.99, "anchors": [(1, 1), (1, 1)]}
        )
        for item in (self._bars, self._spread, self._reference):
            self.plot.addItem(item)
        layout = QVBoxLayout(self.body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.plot)
        self.plot.scene().sigMouseMoved.connect(self._read_at)
        self.plot.installEventFilter(self)
        self.name_axes("Layer", "Experts per token")

    @Slot()
    def refresh(self) -> None:
        """Show the run as it is now."""
        run = self._run
        self.show_empty(run.token_count == 0)
        self.set_title(
            "Experts per layer (counted only)" if run.is_counted_only else "Experts per layer"
        )
        if run.token_count == 0:
            return
        if not self.readout:
            self.set_readout(_EXPLANATION)
        self._lay_out()
        statistics = run.statistics
        x = np.arange(run.layers)
        means = np.array(statistics.per_layer_mean)
        self._bars.setOpts(x=x, height=means)
        self._spread.setData(x=x, y=means, height=2 * np.array(statistics.per_layer_std))

    @property
    def heights(self) -> tuple[float, ...]:
        """The bars as drawn."""
        return tuple(float(height) for height in self._bars.opts["height"])

    @property
    def reference(self) -> float:
        """Where the baseline's line is drawn."""
        return float(self._reference.value())

    def describe(self, layer: int) -> str:
        """The numbers of one bar."""
        statistics = self._run.statistics
        return (
            f"Layer {layer}: {statistics.per_layer_mean[layer]:.2f} ± "
            f"{statistics.per_layer_std[layer]:.2f} experts"
        )

    @Slot()
    def take_theme(self) -> None:
        super().take_theme()
        if not hasattr(self, "_bars"):
            return
        colors = self.theme.colors
        self._bars.setOpts(brush=colors.accent, pen=pg.mkPen(None))
        self._spread.setData(pen=pg.mkPen(colors.text, width=1))
        dashes = pg.mkPen(colors.text, width=1.4, style=Qt.PenStyle.DashLine)
        self._reference.setPen(dashes)
        self._reference.label.setColor(colors.text)
        font = self.font()
        font.setPointSizeF(self.theme.point_size * 0.88)
        self._reference.label.setFont(font)

    def show_names(self, has_room: bool) -> None:
        super().show_names(has_room)
        if hasattr(self, "_reference"):
            self._reference.label.setVisible(has_room)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.plot and event.type() is QEvent.Type.Leave:
            self.set_readout(_EXPLANATION)
        return super().eventFilter(watched, event)

    def _lay_out(self) -> None:
        run = self._run
        top = run.scale.high * _HEADROOM
        self.plot.setRange(xRange=(-0.6, run.layers - 0.4), yRange=(0, top), padding=0)
        if self._reference.value() != run.top_k:
            self._reference.setValue(run.top_k)
        self._reference.label.setFormat(f"Baseline: {run.top_k} in every layer")
        if self._layers != run.layers:
            self._layers = run.layers
            step = 1 if run.layers <= 24 else 4
            ticks = [(layer, str(layer)) for layer in range(0, run.layers, step)]
            self.axis("bottom").setTicks([ticks])

    @Slot(object)
    def _read_at(self, point: QPointF) -> None:
        if self._run.token_count == 0:
            return
        layer = round(self.plot.getPlotItem().vb.mapSceneToView(point).x())
        inside = 0 <= layer < self._run.layers
        self.set_readout(self.describe(layer) if inside else _EXPLANATION)
