"""Tokens from left to right, layers from bottom to top: the newest tokens that fit, or all."""

from __future__ import annotations

import math

from PySide6.QtCore import QEvent, QObject, QRectF, Qt, Slot
from PySide6.QtGui import QResizeEvent, QWheelEvent
from PySide6.QtWidgets import QScrollBar, QToolButton

from bh_studio.ui.charts.cell_map import CellMap
from bh_studio.ui.charts.chart import Cell
from bh_studio.ui.state.selection import Place
from bh_studio.ui.widgets.icons import icon
from bh_studio.ui.widgets.visible_text import visible

_LEAST_CELL_PIXELS = 2.75
_LEAST_TOKENS = 16
_AXES_PIXELS = 50


class TokenMap(CellMap):
    """A scroll bar reaches the tokens that are not in view. A cell is one token and one layer."""

    bottom_name, left_name = "Token", "Layer"

    def build(self) -> None:
        super().build()
        self.whole_button = QToolButton()
        self.whole_button.setProperty("role", "tool")
        self.whole_button.setCheckable(True)
        self.whole_button.setToolTip("Squeeze the whole run into view instead of scrolling")
        self.whole_button.setAccessibleName("Show the whole run")
        self.whole_button.toggled.connect(self._sync_scroll)
        self._bar = QScrollBar(Qt.Orientation.Horizontal)
        self._bar.setAccessibleName(f"Tokens in view of {self.title}")
        self._bar.setToolTip("Move through the tokens of the run")
        self._bar.setSingleStep(8)
        self._bar.setRange(0, 0)
        self._bar.valueChanged.connect(self._show_window)
        self.column.addWidget(self._bar)
        self.plot.viewport().installEventFilter(self)
        self.selection.changed.connect(self._reveal_selected)

    def tokens(self) -> int:
        """Tokens that are drawn."""
        return self.side.tokens

    @property
    def shown_tokens(self) -> tuple[int, int]:
        """First token in view and the one after the last."""
        low, high = self.plot.getPlotItem().vb.viewRange()[0]
        return round(low + 0.5), round(high + 0.5)

    @property
    def framed_token(self) -> int | None:
        """The token whose column or cell is pointed at."""
        return round(self.pointer.rect.left() + 0.5) if self.pointer.isVisible() else None

    def text_of(self, token: int) -> str:
        """What a token of the side says."""
        return visible(self.side.texts[token], mark_newlines=True)

    def begin(self) -> None:
        # A new run is followed from its start.
        self._bar.setRange(0, 0)

    def grid(self) -> Cell:
        return self.tokens(), self.shown.layers

    def draw(self) -> None:
        self._sync_scroll()

    def point_at_token(self, token: int) -> None:
        if self.problem:
            return
        if 0 <= token < self.tokens():
            self.pointer.surround(self._column(token))
        elif self.pointed is None:
            self.pointer.surround(None)

    def choose(self, column: int, row: int) -> None:
        self.selection.select(self.side.number, column, row)

    def selected_outline(self, place: Place) -> QRectF | None:
        if not 0 <= place.token < self.tokens():
            return None
        if place.layer is None:
            return self._column(place.token)
        return self.outline(place.token, place.layer)

    def reveal(self, column: int) -> None:
        first, after = self.shown_tokens
        if not first <= column < after:
            self._bar.setValue(column if column < first else column - (after - first) + 1)

    def take_theme(self) -> None:
        super().take_theme()
        self.whole_button.setIcon(icon("whole", self.theme.colors.text))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if isinstance(event, QWheelEvent) and self._bar.isEnabled():
            delta = event.angleDelta()
            steps = (delta.x() or delta.y()) / 120
            self._bar.setValue(self._bar.value() - round(steps * self._bar.singleStep()))
            return True
        return super().eventFilter(watched, event)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if not self.problem:
            self._sync_scroll()

    def _column(self, token: int) -> QRectF:
        return QRectF(token - 0.5, -0.5, 1, self.shown.layers)

    def _window(self) -> int:
        """Tokens in view at once: the same for all sides, and fixed while they write."""
        wanted = max(side.most_tokens for side in self.shown.sides)
        total = max(wanted, _LEAST_TOKENS)
        if self.whole_button.isChecked():
            return total
        fitting = math.floor((self.plot.width() - _AXES_PIXELS) / _LEAST_CELL_PIXELS)
        return min(total, max(fitting, _LEAST_TOKENS))

    @property
    def _selected(self) -> int | None:
        """The token that all views look at, if it is here."""
        place = self.selection.place
        is_drawn = self.is_live and not self.problem
        is_here = place is not None and is_drawn and 0 <= place.token < self.tokens()
        return place.token if place is not None and is_here else None

    @Slot()
    def _reveal_selected(self) -> None:
        if (token := self._selected) is not None:
            self.reveal(token)

    @Slot()
    def _sync_scroll(self) -> None:
        if self.problem:
            return
        self.axis("bottom").count_from(self.shown.first_number)
        window = self._window()
        last = max(0, self.tokens() - window)
        selected, (first, after) = self._selected, self.shown_tokens
        # Where there is less room than before, what is looked at is not what gives way.
        is_smaller = window < self._bar.pageStep()
        is_to_stay = is_smaller and selected is not None and first <= selected < after
        at_end = self._bar.value() >= self._bar.maximum()
        self._bar.blockSignals(True)
        self._bar.setPageStep(window)
        self._bar.setRange(0, last)
        if at_end:
            self._bar.setValue(last)
        self._bar.blockSignals(False)
        self._bar.setVisible(last > 0)
        self._show_window()
        if is_to_stay:
            self._reveal_selected()

    @Slot()
    def _show_window(self) -> None:
        if self.problem:
            return
        first = self._bar.value()
        self.plot.setRange(
            xRange=(first - 0.5, first + self._window() - 0.5),
            yRange=(-0.5, self.shown.layers - 0.5),
            padding=0,
        )
