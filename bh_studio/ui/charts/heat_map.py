"""Heat map of expert counts, token by layer. One image with fixed levels, changed in place."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QEvent, QObject, QPointF, Qt, Signal, Slot
from PySide6.QtGui import QKeyEvent, QResizeEvent, QWheelEvent
from PySide6.QtWidgets import (
    QGraphicsRectItem,
    QHBoxLayout,
    QScrollBar,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from bh_studio.ui.charts.chart_card import ChartCard
from bh_studio.ui.charts.scale_legend import ScaleLegend
from bh_studio.ui.state.expert_scale import ExpertScale
from bh_studio.ui.state.run_model import RunModel
from bh_studio.ui.widgets.icons import icon
from bh_studio.ui.widgets.theme import GAP_TINY, Theme
from bh_studio.ui.widgets.visible_text import visible

_LEAST_CELL_PIXELS = 2.75
_LEAST_TOKENS = 16
_AXES_PIXELS = 50
_HINT = "Point at a cell to read it."


class HeatMap(ChartCard):
    """Shows the newest tokens that fit, or the whole run; a scroll bar reaches the others."""

    token_hovered = Signal(int)

    def __init__(self, run: RunModel, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(
            "Token × layer",
            "A cell will show how many experts BH uses for one token in one layer: tokens from "
            "left to right, layers from bottom to top.",
            theme,
            parent,
        )
        self._run = run
        self._epoch = -1
        self._table_scale: ExpertScale | None = None
        self._cell: tuple[int, int] | None = None
        self._image = pg.ImageItem(axisOrder="col-major")
        self._cursor = QGraphicsRectItem()
        self._cursor.setVisible(False)
        self.plot.addItem(self._image)
        self.plot.addItem(self._cursor, ignoreBounds=True)
        self.plot.setAccessibleName("Heat map of experts by token and layer")
        self.plot.setToolTip("Point at a cell to read it, or move with the arrow keys.")
        self.plot.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._build_controls()
        self.plot.scene().sigMouseMoved.connect(self._read_at)
        self.plot.installEventFilter(self)
        self.plot.viewport().installEventFilter(self)
        self.name_axes("Token", "Layer")

    @Slot()
    def refresh(self) -> None:
        """Show the run as it is now."""
        run = self._run
        if self._epoch != run.epoch:
            self._epoch = run.epoch
            self._point_at(None)
            # A new run is followed from its start.
            self._bar.setRange(0, 0)
        self.show_empty(run.token_count == 0)
        self.whole_button.setVisible(run.token_count > 0)
        self.set_title("Token × layer (counted only)" if run.is_counted_only else "Token × layer")
        if run.token_count == 0:
            return
        if self._table_scale != run.scale:
            self._table_scale = run.scale
            self._image.setLookupTable(run.scale.lookup_table())
            self._legend.set_scale(run.scale)
            layers = range(0, run.layers, 5 if run.layers <= 24 else 10)
            self.axis("left").setTicks([[(layer, str(layer)) for layer in layers]])
        self._image.setImage(run.counts, autoLevels=False, levels=(0, 255))
        self._image.setPos(-0.5, -0.5)
        self._sync_scroll()
        if self._cell is None:
            self.set_readout(_HINT)

    @property
    def shown_counts(self) -> np.ndarray:
        """(token, layer) as drawn."""
        return np.asarray(self._image.image)

    @property
    def shown_tokens(self) -> tuple[int, int]:
        """First token in view and the one after the last."""
        low, high = self.plot.getPlotItem().vb.viewRange()[0]
        return round(low + 0.5), round(high + 0.5)

    @property
    def framed_token(self) -> int | None:
        """The token whose column or cell is framed."""
        return round(self._cursor.rect().left() + 0.5) if self._cursor.isVisible() else None

    def describe(self, token: int, layer: int) -> str:
        """The numbers of one cell."""
        run = self._run
        text = visible(run.token_texts[token], mark_newlines=True)
        count, raw = int(run.counts[token, layer]), int(run.raw_counts[token, layer])
        unit = "expert" if count == 1 else "experts"
        # The token's text comes last: it is what may be cut off.
        return f"Layer {layer}, token {token}: {count} {unit}, {raw} before limits “{text}”"

    @Slot(int)
    def point_at_token(self, token: int) -> None:
        """Frame a token's column, or nothing for -1."""
        if 0 <= token < self._run.token_count:
            self._frame(token, 0, self._run.layers)
        elif self._cell is None:
            self._cursor.setVisible(False)

    @Slot()
    def take_theme(self) -> None:
        super().take_theme()
        if not hasattr(self, "whole_button"):
            return
        colors = self.theme.colors
        self.whole_button.setIcon(icon("whole", colors.text))
        self._cursor.setPen(pg.mkPen(colors.text, width=2))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.plot and event.type() is QEvent.Type.Leave:
            self._point_at(None)
        elif watched is self.plot and isinstance(event, QKeyEvent):
            if event.type() is QEvent.Type.KeyPress and self._move_cell(event):
                return True
        elif isinstance(event, QWheelEvent) and self._bar.isEnabled():
            delta = event.angleDelta()
            steps = (delta.x() or delta.y()) / 120
            self._bar.setValue(self._bar.value() - round(steps * self._bar.singleStep()))
            return True
        return super().eventFilter(watched, event)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if self._run.token_count:
            self._sync_scroll()

    def _build_controls(self) -> None:
        self.whole_button = QToolButton()
        self.whole_button.setProperty("role", "tool")
        self.whole_button.setCheckable(True)
        self.whole_button.setToolTip("Squeeze the whole run into view instead of scrolling")
        self.whole_button.setAccessibleName("Show the whole run")
        self.whole_button.toggled.connect(self._sync_scroll)
        self.header.addWidget(self.whole_button)
        self._bar = QScrollBar(Qt.Orientation.Horizontal)
        self._bar.setAccessibleName("Tokens in the heat map")
        self._bar.setToolTip("Move through the tokens of the run")
        self._bar.setSingleStep(8)
        self._bar.setRange(0, 0)
        self._bar.valueChanged.connect(self._show_window)
        self._legend = ScaleLegend(self.theme, softened=False, orientation=Qt.Orientation.Vertical)
        picture = QVBoxLayout()
        picture.setContentsMargins(0, 0, 0, 0)
        picture.setSpacing(0)
        picture.addWidget(self.plot, 1)
        picture.addWidget(self._bar)
        layout = QHBoxLayout(self.body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(GAP_TINY)
        layout.addLayout(picture, 1)
        layout.addWidget(self._legend)

    def _window(self) -> int:
        """Tokens in view at once. Fixed during a run, so that the picture keeps still."""
        run = self._run
        wanted = run.about.most_tokens if run.about and run.is_running else run.token_count
        total = max(wanted, _LEAST_TOKENS)
        if self.whole_button.isChecked():
            return total
        fitting = int((self.plot.width() - _AXES_PIXELS) / _LEAST_CELL_PIXELS)
        return min(total, max(fitting, _LEAST_TOKENS))

    @Slot()
    def _sync_scroll(self) -> None:
        window = self._window()
        last = max(0, self._run.token_count - window)
        at_end = self._bar.value() >= self._bar.maximum()
        self._bar.blockSignals(True)
        self._bar.setPageStep(window)
        self._bar.setRange(0, last)
        if at_end:
            self._bar.setValue(last)
        self._bar.blockSignals(False)
        self._bar.setVisible(last > 0)
        self._show_window()

    @Slot()
    def _show_window(self) -> None:
        first = self._bar.value()
        self.plot.setRange(
            xRange=(first - 0.5, first + self._window() - 0.5),
            yRange=(-0.5, self._run.layers - 0.5),
            padding=0,
        )

    @Slot(object)
    def _read_at(self, point: QPointF) -> None:
        place = self.plot.getPlotItem().vb.mapSceneToView(point)
        token, layer = round(place.x()), round(place.y())
        inside = 0 <= token < self._run.token_count and 0 <= layer < self._run.layers
        self._point_at((token, layer) if inside else None)

    def _move_cell(self, event: QKeyEvent) -> bool:
        step = {
            Qt.Key.Key_Left: (-1, 0),
            Qt.Key.Key_Right: (1, 0),
            Qt.Key.Key_Up: (0, 1),
            Qt.Key.Key_Down: (0, -1),
        }.get(Qt.Key(event.key()))
        if step is None or self._run.token_count == 0:
            return False
        token, layer = self._cell or (self.shown_tokens[0] - step[0], 0)
        token = min(max(token + step[0], 0), self._run.token_count - 1)
        layer = min(max(layer + step[1], 0), self._run.layers - 1)
        first, after = self.shown_tokens
        if not first <= token < after:
            self._bar.setValue(token if token < first else token - (after - first) + 1)
        self._point_at((token, layer))
        return True

    def _point_at(self, cell: tuple[int, int] | None) -> None:
        self._cell = cell
        if cell is None:
            self._cursor.setVisible(False)
            self.set_readout(_HINT if self._run.token_count else "")
            self.token_hovered.emit(-1)
            return
        token, layer = cell
        self._frame(token, layer, 1)
        self.set_readout(self.describe(token, layer))
        self.token_hovered.emit(token)

    def _frame(self, token: int, layer: int, layers: int) -> None:
        self._cursor.setRect(token - 0.5, layer - 0.5, 1, layers)
        self._cursor.setVisible(True)
