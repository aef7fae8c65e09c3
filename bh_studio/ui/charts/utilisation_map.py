"""In which share of the positions each expert of a side ran, layer by expert."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QBrush

from bh_studio.engine.records.decisions.utilisation import Utilisation
from bh_studio.ui.charts.cell_map import CellMap
from bh_studio.ui.charts.chart import Cell
from bh_studio.ui.charts.drawing.filled_rects import FilledRects
from bh_studio.ui.charts.numbers import Numbers
from bh_studio.ui.charts.shown import ShownSide
from bh_studio.ui.charts.table_legend import TableLegend
from bh_studio.ui.state.expert_scale import ExpertScale
from bh_studio.ui.state.selection import Place

# The scale ends at so many times what an expert would run if all ran equally often.
_TIMES_EVEN = 2


class UtilisationMap(CellMap):
    """Counts only the positions that have come since the last time. A cell is an expert of a layer.

    An expert that never ran has no colour: the hatched ground is seen there.
    """

    title = "Utilisation of experts"
    meaning = (
        "A cell will show in which share of all positions, those of the prompt among them, an "
        "expert of a layer ran: experts from left to right, layers from bottom to top."
    )
    bottom_name, left_name = "Expert", "Layer"

    def build(self) -> None:
        self._ground = FilledRects(outlined=False)
        self.plot.addItem(self._ground, ignoreBounds=True)
        super().build()
        self._counted: dict[int, tuple[int, Utilisation]] = {}
        self._most = 0.0

    def new_legend(self) -> TableLegend:
        self._legend = TableLegend(self.theme, "Share")
        return self._legend

    def obstacle(self) -> str:
        side = self.side
        if side.experts is not None:
            return "" if len(side.experts) else self.meaning
        if side.tokens:
            return f"Which experts ran was not kept of side {side.name}."
        return self.meaning

    @property
    def utilisation(self) -> Utilisation:
        """Of the side, over all positions that are shown."""
        return self._counted[self.side.number][1]

    def draw(self) -> None:
        side = self.side
        counted = self._count(side)
        experts, layers = self.grid()
        self.plot.setRange(xRange=(-0.5, experts - 0.5), yRange=(-0.5, layers - 0.5), padding=0)
        self._ground.show_rects([QRectF(-0.5, -0.5, experts, layers)])
        most = min(1.0, _TIMES_EVEN * self.shown.top_k / experts)
        if most != self._most:
            self._most = most
            self._take_scale()
        # 0 is for experts that never ran.
        steps = np.ceil(counted.shares.T * (255 / most)).clip(0, 255)
        self.paint_cells(steps.astype(np.uint8))

    def grid(self) -> Cell:
        return self.side.about.model.experts, self.shown.layers

    def hint(self) -> str:
        counted = self.utilisation
        return (
            f"{self._name()}: {counted.idle.sum()} of {counted.ran.size} never ran  ·  entropy / "
            f"log {counted.ran.shape[1]}, mean of layers: {counted.balance.mean():.3f}  ·  "
            f"{counted.positions} positions, the prompt's among them"
        )

    def describe(self, column: int, row: int) -> str:
        """The numbers of one expert, and of its layer."""
        counted = self.utilisation
        return (
            f"Layer {row}, expert {column}: ran in {100 * counted.shares[row, column]:.1f} % "
            f"({counted.ran[row, column]} of {counted.positions} positions)  ·  layer: "
            f"{counted.idle[row]} never ran, entropy / log {counted.ran.shape[1]} "
            f"{counted.balance[row]:.3f}"
        )

    def choose(self, column: int, row: int) -> None:
        place = self.selection.place
        token = max(0, self.side.tokens - 1) if place is None else place.token
        self.selection.select(self.side.number, token, row)

    def selected_outline(self, place: Place) -> QRectF | None:
        if place.layer is None:
            return None
        return QRectF(-0.5, place.layer - 0.5, self.grid()[0], 1)

    def numbers(self) -> Numbers:
        counted = self.utilisation
        experts = counted.ran.shape[1]
        return Numbers(
            ("Layer",),
            ("Idle", f"Entropy / log {experts}", *(f"Expert {n}" for n in range(experts))),
            np.column_stack([counted.idle, counted.balance, counted.shares]),
        )

    def take_theme(self) -> None:
        super().take_theme()
        colors = self.theme.colors
        self._ground.fill(QBrush(colors.faint, Qt.BrushStyle.BDiagPattern))

    def _name(self) -> str:
        # What only counts runs as the model does: these are the experts of its own routing.
        side = self.side
        return f"{side.name} (the model's own experts)" if side.about.note else side.name

    def _count(self, side: ShownSide) -> Utilisation:
        assert side.experts is not None
        epoch, counted = self._counted.get(side.number, (-1, Utilisation(0, 0)))
        if epoch != side.epoch or counted.positions > len(side.experts):
            counted = Utilisation(self.shown.layers, side.about.model.experts)
        counted.extend(side.experts[counted.positions :])
        self._counted[side.number] = side.epoch, counted
        return counted

    def _take_scale(self) -> None:
        # All of the table but its clear first place.
        table = ExpertScale(1, 255).lookup_table()
        self.take_colors(table)
        ends = (0.0, "0 %"), (1.0, f"≥ {100 * self._most:.3g} %")
        marks = (*ends, (0.5, f"{50 * self._most:.3g} %"))
        self._legend.show_table(
            table[1:], marks,
            "Colour of a cell: share of positions in which the expert ran; hatched: it never did",
        )  # fmt: skip
