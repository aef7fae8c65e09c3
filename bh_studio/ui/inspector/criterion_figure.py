"""What a rule compared with what in one layer, as it was said. Knows no rule."""

from __future__ import annotations

import math

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QEvent, QObject, QPointF, Qt, Signal, Slot
from PySide6.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QHBoxLayout,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from bh_studio.engine.records.decisions.token_inspection import (
    Counting,
    Criterion,
    InspectedLayer,
    InspectedToken,
)
from bh_studio.ui.inspector.plot_card import PlotCard
from bh_studio.ui.widgets.elided_label import ElidedLabel
from bh_studio.ui.widgets.form_rows import describe
from bh_studio.ui.widgets.theme import GAP_SMALL, GAP_TINY, Theme

FIRST_RANKS = 16
_LETTERS_HIGH = 16
# Of the heights that are drawn: what is left below them, and above for the names of the lines.
_BELOW, _ABOVE = 0.06, 0.4
_LEAST_TICKS, _MOST_TICKS = 3, 6
_LOG = "Equal steps are equal ratios"
_NO_LOG = "There are values of 0 or below, which have no logarithm."


class CriterionFigure(PlotCard):
    """Points over ranks, the line they are compared with, and where the rule stops.

    ranks_changed: more of the ranks are shown, or fewer.
    """

    ranks_changed = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__("Layer", theme, parent)
        self._token: InspectedToken | None = None
        self._layer = 0
        self._points = pg.ScatterPlotItem(size=6)
        self._line = pg.PlotCurveItem(np.zeros(1), np.zeros(0), stepMode="center")
        # One below the other, for they may be at one rank.
        self.stop, self.least, self.most = (
            pg.InfiniteLine(angle=90, label="", labelOpts={"position": place})
            for place in (0.76, 0.96, 0.86)
        )
        for item in (self._line, self._points, self.least, self.most, self.stop):
            self.plot.addItem(item)
        self.plot.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.plot.setAccessibleName("What the rule compares in this layer")
        # Under the title, for the names are longer than the axes.
        self.legend = ElidedLabel("muted")
        self.first = QRadioButton(f"First {FIRST_RANKS}")
        self.all = QRadioButton("All ranks")
        self.log = QCheckBox("Log axis")
        self.log.setChecked(True)
        self.first.setChecked(True)
        group = QButtonGroup(self)
        for button in (self.first, self.all):
            group.addButton(button)
        for button, which in ((self.first, f"the first {FIRST_RANKS}"), (self.all, "all")):
            describe(button, button.text(), f"Show {which} ranks in the figure and the table")
        describe(self.log, self.log.text(), _LOG)
        self._build_layout()
        self.plot.scene().sigMouseMoved.connect(self._read_at)
        self.plot.viewport().installEventFilter(self)
        self.first.toggled.connect(self._take_ranks)
        self.log.toggled.connect(self._draw)
        # A p-value is read as it is written elsewhere, not in thousandths.
        self.axis("left").enableAutoSIPrefix(False)
        self.name_axes("Rank", "")

    def _build_layout(self) -> None:
        choices = QHBoxLayout()
        choices.setSpacing(GAP_SMALL)
        for control in (self.first, self.all, self.log):
            choices.addWidget(control)
        choices.addStretch(1)
        layout = QVBoxLayout(self.body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(GAP_TINY)
        layout.addWidget(self.legend)
        layout.addWidget(self.plot)
        layout.addLayout(choices)

    @property
    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Ranks and heights as drawn; heights as logarithms on a log axis."""
        return self._points.getData()

    @property
    def line(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps as drawn, (rank + 1,) and (rank,)."""
        return self._line.getData()

    @property
    def ranks(self) -> int | None:
        """How many ranks are shown; None for all."""
        return FIRST_RANKS if self.first.isChecked() else None

    def show_layer(self, token: InspectedToken | None, layer: int) -> None:
        """Show one layer of `token`."""
        self.show_empty(token is None)
        if (token, layer) != (self._token, self._layer):
            self._token, self._layer = token, layer
            self._draw()

    def describe(self, rank: int) -> str:
        """The numbers at a rank, from 1."""
        found = self._found
        criterion = found.criterion
        words = f"Rank {rank}: expert {found.experts[rank - 1]}"
        for name, values in (
            (criterion.points_name, criterion.points),
            (criterion.line_name, criterion.line),
        ):
            if rank <= len(values) and np.isfinite(values[rank - 1]):
                words += f", {name} {values[rank - 1]:.3g}"
        return words

    @Slot()
    def take_theme(self) -> None:
        super().take_theme()
        if not hasattr(self, "log"):
            return
        colors = self.theme.colors
        font = self.font()
        font.setPointSizeF(self.theme.point_size * 0.88)
        self._points.setBrush(pg.mkBrush(colors.accent))
        self._points.setPen(pg.mkPen(None))
        self._line.setPen(pg.mkPen(colors.text, width=1.4))
        self.stop.setPen(pg.mkPen(colors.alarm, width=2))
        dashes = pg.mkPen(colors.muted, width=1.4, style=Qt.PenStyle.DashLine)
        for limit in (self.least, self.most):
            limit.setPen(dashes)
        for mark, color in (
            (self.stop, colors.alarm), (self.least, colors.muted), (self.most, colors.muted)
        ):  # fmt: skip
            mark.label.setColor(color)
            mark.label.setFont(font)
        self.plot.setFixedHeight(round(self.theme.point_size * _LETTERS_HIGH))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.plot and event.type() is QEvent.Type.Leave:
            self._say()
        elif watched is self.plot.viewport() and event.type() is QEvent.Type.Wheel:
            # The panel scrolls; there is nothing to zoom here.
            event.ignore()
            return True
        return super().eventFilter(watched, event)

    @property
    def _found(self) -> InspectedLayer:
        assert self._token is not None
        return self._token.layers[self._layer]

    @Slot()
    def _take_ranks(self) -> None:
        self._draw()
        self.ranks_changed.emit()

    @Slot()
    def _draw(self) -> None:
        if self._token is None:
            return
        found = self._found
        criterion = found.criterion
        shown = min(len(found.experts), self.ranks or len(found.experts))
        can_log = _has_logarithm(criterion)
        self.log.setEnabled(can_log)
        self.log.setToolTip(_LOG if can_log else _NO_LOG)
        is_log = can_log and self.log.isChecked()
        points = _height(criterion.points[:shown], is_log)
        is_one = criterion.counting is Counting.TWO_COUNTS
        # A limit is a number of ranks, which is where the rule stops, and no height.
        line = criterion.line[:0] if criterion.counting is Counting.LIMIT else criterion.line
        line = _height(line[:shown], is_log)
        self._points.setData(np.arange(1, len(points) + 1), points)
        self._line.setData(np.arange(len(line) + 1) + 0.5, line)
        heights = np.concatenate([points, line])
        heights = heights[np.isfinite(heights)]
        self._set_range(1 if is_one else shown, heights)
        self.axis("left").setTicks([_log_ticks(heights)] if is_log else None)
        self._show_legend(criterion)
        self.axis("bottom").setTicks([[]] if is_one else None)
        self._mark(found, is_one)
        rule = self._token.rule
        level = "" if rule is None else f", {rule.level_text}"
        self.set_title(f"Layer {self._layer}{level}")
        self._say()

    def _show_legend(self, criterion: Criterion) -> None:
        what = "Where it stops" if criterion.counting is Counting.LIMIT else "Line"
        words = f"Points: {criterion.points_name}. {what}: {criterion.line_name}."
        self.legend.setText(words)
        self.legend.setToolTip(words)

    def _set_range(self, ranks: int, heights: np.ndarray) -> None:
        low, high = (heights.min(), heights.max()) if heights.size else (0.0, 1.0)
        size = high - low or 1.0
        heights_shown = low - _BELOW * size, high + _ABOVE * size
        self.plot.setRange(xRange=(0.5, ranks + 0.5), yRange=heights_shown, padding=0.01)

    def _mark(self, found: InspectedLayer, is_one: bool) -> None:
        rule = self._token.rule if self._token is not None else None
        limits = (None, None) if rule is None else (rule.min_k, rule.max_k)
        for mark, rank, name in (
            (self.stop, found.raw_count, str(found.raw_count)),
            (self.least, limits[0], "min_k"),
            (self.most, limits[1], "max_k"),
        ):
            mark.setVisible(rank is not None and not is_one)
            if rank is not None:
                mark.setValue(rank + 0.5)
                mark.label.setFormat(name)

    @Slot()
    def _say(self) -> None:
        if self._token is not None:
            words = count_words(self._found)
            self.set_readout(words)
            self.plot.setAccessibleDescription(words)

    @Slot(object)
    def _read_at(self, point: QPointF) -> None:
        if self._token is None:
            return
        rank = round(self.plot.getPlotItem().vb.mapSceneToView(point).x())
        if 1 <= rank <= min(len(self._found.experts), self.ranks or len(self._found.experts)):
            self.set_readout(self.describe(rank))
        else:
            self._say()


def count_words(layer: InspectedLayer) -> str:
    """How many experts the rule selects in a layer, and what the limits make of it."""
    if layer.raw_count == layer.count:
        return f"selects {layer.count}"
    return f"selects {layer.raw_count}, {layer.count} after limits"


def _has_logarithm(criterion: Criterion) -> bool:
    """Whether no height is negative, and the line is above 0."""
    points = criterion.points[np.isfinite(criterion.points)]
    is_limit = criterion.counting is Counting.LIMIT
    return bool(
        (points >= 0).all() and (points > 0).any() and (is_limit or criterion.line.min() > 0)
    )


def _log_ticks(heights: np.ndarray) -> list[tuple[float, str]]:
    """Where to write which values on a log axis, neither too many nor fewer than two."""
    low, high = heights.min(), heights.max()
    for digits in ((1,), (1, 3), (1, 2, 5), range(1, 10)):
        values = [
            digit * 10.0**power
            for power in range(math.floor(low), math.ceil(high) + 1)
            for digit in digits
        ]
        ticks = [(math.log10(v), f"{v:g}") for v in values if low <= math.log10(v) <= high]
        if len(ticks) >= _LEAST_TICKS:
            break
    return ticks[:: -(-len(ticks) // _MOST_TICKS)] if ticks else ticks


def _height(values: np.ndarray, is_log: bool) -> np.ndarray:
    """Where `values` are drawn; what is 0 has no place on a log axis."""
    if not is_log:
        return values
    return np.log10(values, out=np.full(len(values), np.nan), where=values > 0)
