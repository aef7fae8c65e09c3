"""The two charts below the answers, and where they go: over the page, or into windows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from PySide6.QtCore import QEvent, QObject, Qt, Signal, Slot
from PySide6.QtGui import QCloseEvent
from PySide6.QtWidgets import QLabel, QPushButton, QStackedWidget, QVBoxLayout, QWidget

from bh_studio.ui.charts.divergence_chart import DivergenceChart
from bh_studio.ui.charts.heat_map import HeatMap
from bh_studio.ui.charts.layer_chart import LayerChart
from bh_studio.ui.charts.slot.catalogue import CHARTS
from bh_studio.ui.charts.slot.chart_slot import ChartSlot
from bh_studio.ui.compare.answers import new_splitter
from bh_studio.ui.state.inspection.null_fits import NullFits
from bh_studio.ui.state.reading.written_kl import WrittenKl
from bh_studio.ui.state.run_sides import RunSides
from bh_studio.ui.state.selection import Selection
from bh_studio.ui.widgets.theme import GAP, GAP_SMALL, Theme

_FIRST = (LayerChart, HeatMap)
# What the last of them shows at first of a text that all sides read.
_OF_SAME_TEXT = DivergenceChart
_WINDOW_SIZE = (900, 600)


class ChartRow(QObject):
    """slots: both, wherever they are. splitter: where they belong. stand_ins: what is there in
    place of each that is elsewhere. failed: with what to tell. picked: another chart is in one.
    opened: more is wanted of the cell that was chosen in one."""

    failed = Signal(object)
    picked = Signal()
    opened = Signal()

    def __init__(
        self,
        sides: RunSides,
        nulls: NullFits,
        written_kl: WrittenKl,
        selection: Selection,
        theme: Theme,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._sides = sides
        # Whether a text is read, and whether the last slot shows its chart in place of another
        # until then. What a person has chosen there stays.
        self._is_same_text = self._is_lent = self._is_chosen = False
        self.slots = tuple(
            ChartSlot(sides, nulls, written_kl, selection, theme, first) for first in _FIRST
        )
        self.slots[-1].picker.activated.connect(self._keep_choice)
        self.splitter = new_splitter(Qt.Orientation.Horizontal, *self.slots)
        self._pages = QStackedWidget()
        # What is nowhere on screen belongs to the page all the same, and goes with it.
        self.stand_ins = tuple(_StandIn(self._pages) for _ in self.slots)
        self._windows = tuple(_ChartWindow(self._pages) for _ in self.slots)
        for slot, stand_in, window in zip(self.slots, self.stand_ins, self._windows, strict=True):
            slot.failed.connect(self.failed)
            slot.opened.connect(self.opened)
            slot.picker.currentIndexChanged.connect(self.picked)
            slot.maximise.toggled.connect(partial(self._maximise, slot))
            slot.pop_out.toggled.connect(partial(self._pop_out, slot))
            slot.picker.currentTextChanged.connect(window.setWindowTitle)
            stand_in.button.clicked.connect(window.close)
            window.closed.connect(slot.pop_out.toggle)

    def over(self, rows: QWidget) -> QWidget:
        """`rows`, in whose place one of the charts can be."""
        self._pages.addWidget(rows)
        return self._pages

    @property
    def is_maximised(self) -> bool:
        """Whether one of the charts is in place of everything else."""
        return any(slot.maximise.isChecked() for slot in self.slots)

    @Slot()
    def bring_back(self) -> None:
        """Show everything else again."""
        for slot in self.slots:
            slot.maximise.setChecked(False)

    @Slot()
    def _keep_choice(self) -> None:
        self._is_chosen, self._is_lent = True, False

    def _lend(self) -> None:
        """Let the last slot show the chart of a text that is read, or what it has shown before."""
        last = self.slots[-1]
        if self._is_lent:
            self._is_lent = False
            last.pick(_FIRST[-1])
        elif self._is_same_text and not self._is_chosen and isinstance(last.chart, _FIRST[-1]):
            self._is_lent = True
            last.pick(_OF_SAME_TEXT)

    @property
    def titles(self) -> tuple[str, ...]:
        """Which chart is in each slot, or would be if no text were read."""
        *others, last = (slot.chart.title for slot in self.slots)
        return (*others, _FIRST[-1].title if self._is_lent else last)

    def show_titles(self, titles: Sequence[str]) -> None:
        """Pick the charts that are called so, as far as there are such."""
        kinds = {kind.title: kind for kind in CHARTS}
        for slot, title in zip(self.slots, titles, strict=False):
            if title in kinds:
                slot.pick(kinds[title])

    def reset(self) -> None:
        """Both where they belong, with what they show at first, each as wide as the other."""
        self.bring_back()
        for slot, first in zip(self.slots, _FIRST, strict=True):
            slot.pop_out.setChecked(False)
            slot.pick(first)
        self._is_same_text = self._is_lent = self._is_chosen = False
        self.splitter.setSizes([1000] * self.splitter.count())

    def refresh(self) -> None:
        """Show the runs as they are now."""
        if self._sides.is_same_text != self._is_same_text:
            self._is_same_text = self._sides.is_same_text
            self._lend()
        for slot in self.slots:
            slot.refresh()

    @Slot(int)
    def point_at_token(self, token: int) -> None:
        """Show in the charts where a token is that is pointed at elsewhere; -1 for none."""
        for slot in self.slots:
            slot.point_at_token(token)

    def _maximise(self, slot: ChartSlot, is_wanted: bool) -> None:
        if is_wanted:
            slot.pop_out.setChecked(False)
            for other in self.slots:
                if other is not slot:
                    other.maximise.setChecked(False)
            self._leave(slot)
            self._pages.addWidget(slot)
            self._pages.setCurrentWidget(slot)
            slot.show()
            slot.chart.plot.setFocus()
        else:
            has_keys = _has_keys(slot)
            self._pages.removeWidget(slot)
            self._return(slot, has_keys)

    def _pop_out(self, slot: ChartSlot, is_wanted: bool) -> None:
        window = self._windows[self.slots.index(slot)]
        if is_wanted:
            slot.maximise.setChecked(False)
            self._leave(slot)
            window.take(slot, self._pages.window())
        else:
            has_keys = _has_keys(window) or _has_keys(self.stand_ins[self.slots.index(slot)])
            window.hide()
            self._return(slot, has_keys)

    def _leave(self, slot: ChartSlot) -> None:
        """Put the stand-in in its place, so that the others keep theirs."""
        number = self.slots.index(slot)
        self._put(number, self.stand_ins[number])

    def _return(self, slot: ChartSlot, has_keys: bool) -> None:
        number = self.slots.index(slot)
        self._put(number, slot)
        self.stand_ins[number].setParent(self._pages)
        # Qt would hand the keys on to whatever is next in the window.
        if has_keys:
            slot.chart.plot.setFocus()

    def _put(self, number: int, widget: QWidget) -> None:
        sizes = self.splitter.sizes()
        self.splitter.replaceWidget(number, widget)
        # The share in what is gained or lost belongs to the widget, not to its place.
        self.splitter.setStretchFactor(number, 1)
        widget.show()
        self.splitter.setSizes(sizes)


def _has_keys(part: QWidget) -> bool:
    """Whether keys go to `part` of its window, or will when that is in front."""
    focused = part.window().focusWidget()
    return part is focused or part.isAncestorOf(focused)


class _StandIn(QWidget):
    """Where a chart was that is in a window now. button: brings it back."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.hide()
        words = QLabel("This chart is in a window of its own.")
        words.setProperty("role", "empty")
        words.setWordWrap(True)
        words.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.button = QPushButton("Bring it back")
        self.button.setProperty("role", "plain")
        self.button.setToolTip("Close the window and show the chart here again")
        layout = QVBoxLayout(self)
        layout.setSpacing(GAP_SMALL)
        layout.addStretch()
        layout.addWidget(words)
        layout.addWidget(self.button, 0, Qt.AlignmentFlag.AlignHCenter)
        layout.addStretch()


class _ChartWindow(QWidget):
    """closed: by the person; the chart is to go back."""

    closed = Signal()

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent, Qt.WindowType.Window)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(GAP, GAP, GAP, GAP)
        self.resize(*_WINDOW_SIZE)

    def take(self, slot: ChartSlot, owner: QWidget) -> None:
        """Show `slot`, in front of the window that it is from and gone with it."""
        size = self.size()
        self.setParent(owner, Qt.WindowType.Window)
        owner.installEventFilter(self)
        self.setWindowTitle(slot.picker.currentText())
        self._layout.addWidget(slot)
        self.resize(size)
        slot.show()
        self.show()
        slot.picker.setFocus()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        # Qt hides with a window all that is in it, but not the windows that belong to it.
        if (
            watched is self.parent()
            and event.type() is QEvent.Type.Hide
            and not event.spontaneous()
        ):
            self.hide()
        return super().eventFilter(watched, event)

    def closeEvent(self, event: QCloseEvent) -> None:
        super().closeEvent(event)
        self.closed.emit()
