"""What every chart is: a plot of a run that is read and walked cell by cell. Knows no frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pyqtgraph as pg
from PySide6.QtCore import QEvent, QObject, QPointF, QRectF, Qt, Signal, Slot
from PySide6.QtGui import QFocusEvent, QFont, QKeyEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QVBoxLayout, QWidget

from bh_studio.ui.charts.drawing.axes import OVERHANG, paint_axes, small_font
from bh_studio.ui.charts.drawing.cell_frame import CellFrame
from bh_studio.ui.charts.drawing.whole_axis import WholeAxis
from bh_studio.ui.charts.numbers import Numbers
from bh_studio.ui.charts.shown import Shown, ShownSide
from bh_studio.ui.state.selection import Place, Selection
from bh_studio.ui.widgets.theme import GAP_TINY, Theme

# Of a plot, each as many pixels as a letter has points: the least in which it can be read, and from
# where on there is room for the names of what is in it.
_LEAST_LINES, _NAMED_LINES = 8, 14
_STEPS = {
    Qt.Key.Key_Left: (-1, 0),
    Qt.Key.Key_Right: (1, 0),
    Qt.Key.Key_Up: (0, 1),
    Qt.Key.Key_Down: (0, -1),
}
_OPEN = (Qt.Key.Key_Return, Qt.Key.Key_Enter)

Cell = tuple[int, int]  # column, row


class Chart(QWidget):
    """Draws what it is shown, and looks at no run by itself. A subclass fills in what it draws.

    title, meaning: what it is called and what it shows, a sentence each. is_of_one_side: whether it
    draws one side at a time. first_side: the first it can draw. is_live: whether what is shown is
    of the run that all views look at; else nothing is selected here. pointer: what frames the cell
    that is pointed at. readout: the numbers of that cell, or a hint. told: `readout` is another
    now. opened: a person has chosen a cell, and wants to know more of it. problem: why there is
    nothing to draw, a sentence; empty if there is. beside, column: where a subclass puts what
    belongs beside the plot, and under it.
    """

    told = Signal()
    opened = Signal()

    title: ClassVar[str]
    meaning: ClassVar[str]
    bottom_name: ClassVar[str]
    left_name: ClassVar[str]
    left_axis: ClassVar[type[WholeAxis]] = WholeAxis
    is_of_one_side: ClassVar[bool] = False
    first_side: ClassVar[int] = 0

    def __init__(self, selection: Selection, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.theme = theme
        self.selection = selection
        self.shown = Shown()
        self.is_live = True
        self.readout = ""
        self.problem = self.meaning
        self._chosen: int | None = None
        self._cell: Cell | None = None
        self._epochs: tuple[int, ...] = ()
        self.plot = pg.PlotWidget(
            background=None,
            enableMenu=False,
            axisItems={"bottom": WholeAxis("bottom"), "left": self.left_axis("left")},
        )
        self.plot.setFrameShape(QFrame.Shape.NoFrame)
        self.plot.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.plot.setAccessibleName(self.title)
        self.plot.setAccessibleDescription(self.meaning)
        self.plot.setToolTip(
            "Point at a cell to read it, or walk with the arrow keys; a click or the space bar "
            "selects it in all views, and Enter opens it in the inspector too."
        )
        item = self.plot.getPlotItem()
        item.hideButtons()
        item.setMouseEnabled(x=False, y=False)
        item.disableAutoRange()
        item.setContentsMargins(0, OVERHANG / 2, OVERHANG, 0)
        self._frame, self.pointer = CellFrame(), CellFrame()
        for frame in (self._frame, self.pointer):
            self.plot.addItem(frame, ignoreBounds=True)
        self.beside = QHBoxLayout(self)
        self.beside.setContentsMargins(0, 0, 0, 0)
        self.beside.setSpacing(GAP_TINY)
        self.column = QVBoxLayout()
        self.column.setSpacing(0)
        self.column.addWidget(self.plot, 1)
        self.beside.addLayout(self.column, 1)
        self.build()
        self.plot.installEventFilter(self)
        self.plot.scene().sigMouseMoved.connect(self._point_at_scene)
        self.plot.scene().sigMouseClicked.connect(self._click)
        selection.changed.connect(self._frame_selection)
        theme.changed.connect(self.take_theme)
        self.take_theme()

    # --- what a subclass fills in ---

    def build(self) -> None:
        """Put into the plot what is drawn, once."""

    def obstacle(self) -> str:
        """Why what is shown cannot be drawn, a sentence; empty if it can."""
        return "" if self.shown.written else self.meaning

    def draw(self) -> None:
        """Draw what is shown; there is no obstacle."""
        raise NotImplementedError

    def hint(self) -> str:
        """What the read-out says while nothing is pointed at."""
        raise NotImplementedError

    def grid(self) -> Cell:
        """How many columns and rows of cells there are."""
        raise NotImplementedError

    def cell_at(self, x: float, y: float) -> Cell:
        """The cell at a point of the plot; it need not be on the grid."""
        return round(x), round(y)

    def outline(self, column: int, row: int) -> QRectF:
        """Where a cell is in the plot."""
        return QRectF(column - 0.5, row - 0.5, 1, 1)

    def describe(self, column: int, row: int) -> str:
        """The numbers of a cell."""
        raise NotImplementedError

    def choose(self, column: int, row: int) -> None:
        """Have all views look at a cell."""
        raise NotImplementedError

    def selected_outline(self, place: Place) -> QRectF | None:
        """Where in the plot that is which all views look at; None if it is not here."""
        raise NotImplementedError

    def numbers(self) -> Numbers:
        """What is drawn, as a table; there is no obstacle."""
        raise NotImplementedError

    def reveal(self, column: int) -> None:
        """Bring a column into view, where not all are."""

    # --- what is drawn ---

    @property
    def offered(self) -> tuple[ShownSide, ...]:
        """The sides of which one can be drawn at a time."""
        return self.shown.sides[self.first_side :] if self.is_of_one_side else ()

    @property
    def overlaid(self) -> tuple[ShownSide, ...]:
        """The sides that are drawn over each other."""
        return () if self.is_of_one_side else self.shown.written

    @property
    def side(self) -> ShownSide:
        """The one that is drawn: the one that was chosen, or else the last."""
        offered = self.offered
        return next((side for side in offered if side.number == self._chosen), offered[-1])

    def choose_side(self, number: int) -> None:
        """Draw another side from now on."""
        self._chosen = number
        self._cell = None
        self.show_run(self.shown)

    def show_run(self, shown: Shown) -> None:
        """Draw `shown`, or say in `problem` why not."""
        self.shown = shown
        epochs = tuple(side.epoch for side in shown.sides)
        is_new = epochs != self._epochs
        self._epochs = epochs
        if self.is_of_one_side and not self.offered:
            self.problem = self.meaning
        else:
            self.problem = self.obstacle()
        if is_new:
            self._cell = None
            self.begin()
        if not self.problem:
            self.draw()
        self._frame_selection()
        self._show_cell()

    def begin(self) -> None:
        """Another run is on screen."""

    @property
    def pointed(self) -> Cell | None:
        """The cell that is pointed at."""
        return self._cell

    def point_at(self, cell: Cell | None) -> None:
        """Frame a cell and tell its numbers, or nothing."""
        if cell is not None and not self._is_there(cell):
            cell = None
        if cell != self._cell:
            self._cell = cell
            self._show_cell()

    def point_at_token(self, token: int) -> None:
        """Show lightly where a token is that is pointed at elsewhere; -1 for none."""

    @contextmanager
    def unframed(self) -> Iterator[None]:
        """In here, nothing is framed: for a picture that is for elsewhere."""
        frames = [frame for frame in (self.pointer, self._frame) if frame.isVisible()]
        for frame in frames:
            frame.setVisible(False)
        try:
            yield
        finally:
            for frame in frames:
                frame.setVisible(True)

    def axis(self, name: str) -> Any:
        """A plot axis, "left" or "bottom"."""
        return self.plot.getPlotItem().getAxis(name)

    @property
    def small_font(self) -> QFont:
        """What is written in the plot with."""
        return small_font(self.plot, self.theme)

    @Slot()
    def take_theme(self) -> None:
        """Paint the axes and frames in the theme's colours and text size."""
        colors = self.theme.colors
        self.plot.setMinimumHeight(round(self.theme.point_size * _LEAST_LINES))
        names = {"bottom": self.bottom_name, "left": self.left_name}
        paint_axes(self.plot, self.theme, names)
        self.pointer.take_colors(colors.text, colors.surface)
        self._frame.take_colors(colors.accent, colors.surface)
        self.show_names(self._has_room)

    def show_names(self, has_room: bool) -> None:
        """Name what is in the plot, or leave the plot the room that the names would take."""
        for side in ("bottom", "left"):
            self.axis(side).showLabel(has_room)

    # --- pointing and walking ---

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.plot:
            if event.type() is QEvent.Type.Resize:
                self.show_names(self._has_room)
            elif event.type() is QEvent.Type.Leave:
                self.point_at(None)
            elif isinstance(event, QFocusEvent) and event.type() is QEvent.Type.FocusIn:
                is_by_key = event.reason() in (
                    Qt.FocusReason.TabFocusReason, Qt.FocusReason.BacktabFocusReason
                )  # fmt: skip
                if is_by_key and self._cell is None:
                    self.point_at(self._first_cell())
            elif isinstance(event, QKeyEvent) and event.type() is QEvent.Type.KeyPress:
                return self._press(Qt.Key(event.key())) or super().eventFilter(watched, event)
        return super().eventFilter(watched, event)

    def _press(self, key: Qt.Key) -> bool:
        if self.problem:
            return False
        if key in (*_OPEN, Qt.Key.Key_Space) and self._cell is not None:
            if self.is_live:
                self.choose(*self._cell)
                if key in _OPEN and self.selection.place is not None:
                    self.opened.emit()
            return True
        step = _STEPS.get(key)
        if step is None:
            return False
        if self._cell is None:
            self._walk_to(self._first_cell())
        else:
            columns, rows = self.grid()
            column, row = self._cell
            self._walk_to(
                (
                    min(max(column + step[0], 0), columns - 1),
                    min(max(row + step[1], 0), rows - 1),
                )
            )
        return True

    def _walk_to(self, cell: Cell) -> None:
        self.reveal(cell[0])
        self.point_at(cell)
        # Who cannot see it hears it.
        self.plot.setAccessibleDescription(self.readout)

    def _first_cell(self) -> Cell:
        """Where walking begins."""
        low = self.plot.getPlotItem().vb.viewRange()[0][0]
        return max(0, round(low + 0.5)), 0

    def _is_there(self, cell: Cell) -> bool:
        if self.problem:
            return False
        columns, rows = self.grid()
        return 0 <= cell[0] < columns and 0 <= cell[1] < rows

    @Slot(object)
    def _point_at_scene(self, point: QPointF) -> None:
        if not self.problem:
            self.point_at(self._cell_at_scene(point))

    @Slot(object)
    def _click(self, click: Any) -> None:
        if self.problem or not self.is_live or click.button() is not Qt.MouseButton.LeftButton:
            return
        cell = self._cell_at_scene(click.scenePos())
        if cell is not None and self._is_there(cell):
            self.choose(*cell)

    def _cell_at_scene(self, point: QPointF) -> Cell | None:
        box = self.plot.getPlotItem().vb
        if not box.sceneBoundingRect().contains(point):
            return None
        place = box.mapSceneToView(point)
        return self.cell_at(place.x(), place.y())

    def _show_cell(self) -> None:
        cell = self._cell
        if cell is not None and not self._is_there(cell):
            cell = self._cell = None
        self.pointer.surround(None if cell is None else self.outline(*cell))
        text = "" if self.problem else self.hint() if cell is None else self.describe(*cell)
        if text != self.readout:
            self.readout = text
            self.told.emit()

    @Slot()
    def _frame_selection(self) -> None:
        place = self.selection.place
        # What was chosen in a chart that had not followed yet may be of a model with more layers.
        is_there = (
            place is not None
            and self.is_live
            and not self.problem
            and (place.layer is None or place.layer < self.shown.layers)
        )
        self._frame.surround(self.selected_outline(place) if place and is_there else None)

    @property
    def _has_room(self) -> bool:
        return self.plot.height() >= self.theme.point_size * _NAMED_LINES
