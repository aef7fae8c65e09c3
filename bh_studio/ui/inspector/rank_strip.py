"""All experts of a token at once: a row a layer, as the rule takes them. One image for all."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QEvent, QObject, QPointF, Qt, Signal, Slot
from PySide6.QtGui import QColor, QKeyEvent
from PySide6.QtWidgets import QGraphicsRectItem, QVBoxLayout, QWidget

from bh_studio.engine.records.decisions.token_inspection import InspectedToken
from bh_studio.ui.inspector.plot_card import PlotCard
from bh_studio.ui.widgets.theme import Theme

_HINT = "Left of the line: used"
# Of what is shaded by its logarithm, all that is smaller than this looks alike.
_LEAST_P = 1e-5
_ROW_LETTERS, _LEAST_ROWS = 1.15, 6
_LABELS = 16


class RankStrip(PlotCard):
    """Layers from bottom to top, ranks from left to right; at the end of a row what it uses.

    layer_chosen: a person looks at another layer.
    """

    layer_chosen = Signal(int)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__("By rank", theme, parent)
        self._token: InspectedToken | None = None
        self._shown: tuple[int, ...] = ()
        self._layer = 0
        self._image = pg.ImageItem(axisOrder="row-major")
        self._border = pg.PlotCurveItem(connect="finite")
        self._frame = QGraphicsRectItem()
        self.plot.addItem(self._image)
        self.plot.addItem(self._border)
        self.plot.addItem(self._frame, ignoreBounds=True)
        self.plot.getPlotItem().showAxis("right")
        self.plot.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.plot.setAccessibleName("Experts of all layers by rank")
        self.plot.setToolTip(
            "Experts of all layers, in the order in which the rule takes them; the more colour, "
            "the smaller the p-value or the larger the probability. At the end of a row stands how "
            "many are used. Click a layer, or choose one with the arrow keys."
        )
        layout = QVBoxLayout(self.body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.plot)
        self.plot.scene().sigMouseMoved.connect(self._read_at)
        self.plot.scene().sigMouseClicked.connect(self._choose_at)
        self.plot.viewport().installEventFilter(self)
        self.name_axes("Rank", "Layer")

    @property
    def shades(self) -> np.ndarray:
        """(layer, rank) from 0 to 1, as drawn."""
        return np.asarray(self._image.image)

    @property
    def border(self) -> tuple[np.ndarray, np.ndarray]:
        """The line between what is used and what is not: x and y, nan between two rows."""
        return self._border.getData()

    @property
    def framed_layer(self) -> int:
        """The layer that is looked at."""
        return self._layer

    def show_token(self, token: InspectedToken | None, layer: int) -> None:
        """Show all layers of `token` and frame one of them."""
        self.show_empty(token is None)
        self._layer = layer
        if token is None:
            self._token = None
            return
        if token is not self._token:
            self._token = token
            self._draw(token)
        self._frame.setRect(0.5, layer - 0.5, len(token.layers[0].experts), 1)
        self.plot.setAccessibleDescription(self.describe(layer))
        if not self.plot.underMouse():
            self.set_readout(_HINT)

    def describe(self, layer: int, rank: int | None = None) -> str:
        """The numbers of a layer, or of the expert that is `rank`, from 1, in it."""
        assert self._token is not None
        found = self._token.layers[layer]
        if rank is None:
            return f"Layer {layer}: {found.count} of {len(found.experts)} experts are used"
        what, value = _shaded(found.p_values, found.probabilities)
        expert = found.experts[rank - 1]
        return f"Layer {layer}, rank {rank}: expert {expert}, {what} {value[rank - 1]:.2g}"

    @Slot()
    def take_theme(self) -> None:
        super().take_theme()
        if not hasattr(self, "_frame"):
            return
        colors = self.theme.colors
        self._image.setLookupTable(_ramp(colors.surface, colors.accent))
        self._border.setPen(pg.mkPen(colors.text, width=2))
        self._frame.setPen(pg.mkPen(colors.text, width=2))
        right = self.axis("right")
        right.setPen(pg.mkPen(None))
        right.setTextPen(pg.mkPen(colors.text))
        right.setTickFont(self.axis("left").style["tickFont"])
        right.setStyle(tickLength=0, tickTextOffset=4)
        self._take_height()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.plot and event.type() is QEvent.Type.Leave:
            self.set_readout(_HINT)
        elif watched is self.plot and isinstance(event, QKeyEvent) and self._token is not None:
            step = {Qt.Key.Key_Up: 1, Qt.Key.Key_Down: -1}.get(Qt.Key(event.key()))
            if event.type() is QEvent.Type.KeyPress and step is not None:
                last = len(self._token.layers) - 1
                self.layer_chosen.emit(min(max(self._layer + step, 0), last))
                return True
        elif watched is self.plot.viewport() and event.type() is QEvent.Type.Wheel:
            # The panel scrolls; there is nothing to zoom here.
            event.ignore()
            return True
        return super().eventFilter(watched, event)

    def _draw(self, token: InspectedToken) -> None:
        layers, ranks = len(token.layers), len(token.layers[0].experts)
        what = "p-value" if token.layers[0].p_values is not None else "probability"
        self.set_title(f"By {what}")
        self._image.setImage(shades(token), autoLevels=False, levels=(0.0, 1.0))
        self._image.setPos(0.5, -0.5)
        counts = np.array([layer.count for layer in token.layers])
        x = np.repeat(counts + 0.5, 2)
        y = np.stack([np.arange(layers) - 0.5, np.arange(layers) + 0.5], 1).ravel()
        self._border.setData(x, y)
        shape = layers, ranks
        if shape != self._shown:
            self._shown = shape
            step = -(-layers // _LABELS)
            ticks = [(layer, str(layer)) for layer in range(0, layers, step)]
            self.axis("left").setTicks([ticks])
            self.plot.setRange(xRange=(0.5, ranks + 0.5), yRange=(-0.5, layers - 0.5), padding=0)
            self._take_height()
        step = -(-layers // _LABELS)
        ends = [(layer, str(counts[layer])) for layer in range(0, layers, step)]
        self.axis("right").setTicks([ends])

    def _take_height(self) -> None:
        rows = max(_LEAST_ROWS, min(self._shown[0], _LABELS)) if self._shown else _LEAST_ROWS
        letter = self.fontMetrics().ascent() * self.theme.point_size * 0.88
        size = letter / max(1.0, self.font().pointSizeF())
        self.plot.setFixedHeight(round(rows * size * _ROW_LETTERS + 3 * size))

    def _place(self, point: QPointF) -> tuple[int, int] | None:
        """Layer and rank at a point of the scene."""
        if self._token is None:
            return None
        place = self.plot.getPlotItem().vb.mapSceneToView(point)
        layer, rank = round(place.y()), round(place.x())
        layers, ranks = self._shown
        return (layer, rank) if 0 <= layer < layers and 1 <= rank <= ranks else None

    @Slot(object)
    def _read_at(self, point: QPointF) -> None:
        place = self._place(point)
        self.set_readout(_HINT if place is None else self.describe(*place))

    @Slot(object)
    def _choose_at(self, event: object) -> None:
        place = self._place(event.scenePos())  # type: ignore[attr-defined]
        if place is not None:
            self.layer_chosen.emit(place[0])


def shades(token: InspectedToken) -> np.ndarray:
    """(layer, rank) float32 from 0 to 1: the smaller a p-value, by its logarithm, the more; where
    there are none by the square root of the probability, the largest of the token being 1."""
    values = np.stack([_shaded(one.p_values, one.probabilities)[1] for one in token.layers])
    if token.layers[0].p_values is not None:
        return (np.log(values.clip(_LEAST_P, 1.0)) / np.log(_LEAST_P)).astype(np.float32)
    return np.sqrt(values / values.max()).astype(np.float32)


def _shaded(p_values: np.ndarray | None, probabilities: np.ndarray) -> tuple[str, np.ndarray]:
    return ("p", p_values) if p_values is not None else ("probability", probabilities)


def _ramp(low: QColor, high: QColor) -> np.ndarray:
    """(256, 3) uint8 from one colour to another."""
    ends = np.array([(c.red(), c.green(), c.blue()) for c in (low, high)], np.float64)
    share = np.linspace(0.0, 1.0, 256)[:, None]
    return np.round(ends[0] + (ends[1] - ends[0]) * share).astype(np.uint8)
