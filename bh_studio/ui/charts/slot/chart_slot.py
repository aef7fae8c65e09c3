"""A card that shows one chart of a choice: in its place, over the whole page, or in a window."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from PySide6.QtCore import QSignalBlocker, QSize, Qt, Signal, Slot
from PySide6.QtGui import QAction, QResizeEvent, QShowEvent
from PySide6.QtWidgets import (
    QComboBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMenu,
    QSizePolicy,
    QStackedWidget,
    QTableView,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from bh_studio.ui.charts.chart import Chart
from bh_studio.ui.charts.null.null_chart import NullChart
from bh_studio.ui.charts.shown import Shown
from bh_studio.ui.charts.slot.catalogue import CHARTS
from bh_studio.ui.charts.slot.chart_files import ChartFiles
from bh_studio.ui.charts.slot.number_table import NumberModel, new_table
from bh_studio.ui.charts.slot.side_key import SideKey
from bh_studio.ui.charts.token_map import TokenMap
from bh_studio.ui.state.inspection.null_fits import NullFits
from bh_studio.ui.state.reading.written_kl import WrittenKl
from bh_studio.ui.state.run_sides import RunSides
from bh_studio.ui.state.selection import Selection
from bh_studio.ui.widgets.elided_controls import ElidedComboBox
from bh_studio.ui.widgets.elided_label import ElidedLabel
from bh_studio.ui.widgets.icons import icon
from bh_studio.ui.widgets.theme import GAP, GAP_SMALL, GAP_TINY, Theme
from bh_studio.ui.widgets.visible_text import plain_tooltip

_HEADER_HEIGHT = 28
# From so many letters on, the read-out is beside the pickers, else below them.
_READ_BESIDE = 140
_LEAST_PICKER = 60


class ChartSlot(QFrame):
    """Builds a chart when it is first picked, and draws only what is on screen.

    failed: with what to tell. opened: more is wanted of the cell that was chosen. maximise,
    pop_out, freeze, as_table: commands that stay on until they are given again; the first two are
    carried out by whoever has given the slot its place.
    chart: the one that is shown.
    """

    failed = Signal(object)
    opened = Signal()

    def __init__(
        self,
        sides: RunSides,
        nulls: NullFits,
        written_kl: WrittenKl,
        selection: Selection,
        theme: Theme,
        first: type[Chart],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setProperty("role", "card")
        self._sides, self._nulls, self._written_kl = sides, nulls, written_kl
        self._selection, self._theme = selection, theme
        self._shown = Shown()
        self._is_owed = True
        self._built: dict[type[Chart], Chart] = {}
        self._table: QTableView | None = None
        self._names: list[tuple[int, str, str]] = []
        self.files = ChartFiles(self)
        self.files.failed.connect(self.failed)
        self.files.written.connect(self._tell_written)
        self._build_commands()
        self._build_header()
        self._build_body()
        self.chart = self._chart_of(first)
        self._pick(CHARTS.index(first))
        nulls.changed.connect(self._take_nulls)
        theme.changed.connect(self._take_theme)
        self._take_theme()

    # --- what is shown ---

    @Slot()
    def refresh(self) -> None:
        """Show the run as it is now, or once the slot is seen again."""
        if not self.isVisible():
            self._is_owed = True
            return
        self._is_owed = False
        if not self.freeze.isChecked():
            self._shown = Shown.of(self._sides, self._nulls, self._written_kl)
        self._show()

    @property
    def readout(self) -> str:
        """The line that tells what is under the pointer."""
        return self.readout_label.text()

    @property
    def is_empty(self) -> bool:
        """Whether words stand in for the chart."""
        return self._pages.currentWidget() is self._words

    @property
    def words(self) -> str:
        """What stands in for the chart."""
        return self._words.text()

    def pick(self, kind: type[Chart]) -> None:
        """Show another chart."""
        self.picker.setCurrentIndex(CHARTS.index(kind))

    def point_at_token(self, token: int) -> None:
        """Show lightly where a token is that is pointed at elsewhere; -1 for none."""
        if self.isVisible() and not self.as_table.isChecked():
            self.chart.point_at_token(token)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._is_owed:
            self.refresh()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit_header()

    # --- how it is built ---

    def _build_commands(self) -> None:
        self.maximise = self._command(
            "&Fill the page", "Show the chart in place of the answers; F11 or Esc brings them back"
        )
        self.maximise.setShortcut("F11")
        self.maximise.setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        self.pop_out = self._command(
            "In a &window of its own", "Move the chart to a window; closing it brings it back"
        )
        self.freeze = self._command("F&reeze", "Keep what is shown while the run goes on")
        self.as_table = self._command("Show as &table", "Show the numbers in place of the picture")
        self.freeze.toggled.connect(self.refresh)
        self.as_table.toggled.connect(self._show)
        self.copy = QAction("&Copy picture", self)
        self.save_png = QAction("Save as &PNG…", self)
        self.save_svg = QAction("Save as &SVG…", self)
        self.save_csv = QAction("Save &numbers as CSV…", self)
        for action, meaning, work in (
            (self.copy, "Put the picture into the clipboard", self.files.copy),
            (self.save_png, "Write the picture to a file, in pixels", self.files.save_png),
            (self.save_svg, "Write the picture to a file, as lines", self.files.save_svg),
            (self.save_csv, "Write the numbers to a file", self.files.save_csv),
        ):
            action.setToolTip(meaning)
            action.triggered.connect(partial(self._keep, work))

    def _command(self, text: str, meaning: str) -> QAction:
        action = QAction(text, self)
        action.setCheckable(True)
        action.setToolTip(meaning)
        self.addAction(action)
        return action

    def _build_header(self) -> None:
        self.picker = ElidedComboBox()
        self.picker.setAccessibleName("Chart")
        self.picker.addItems([kind.title for kind in CHARTS])
        self.side_picker = QComboBox()
        self.side_picker.setAccessibleName("Side of the chart")
        self.side_picker.setToolTip("The side that the chart shows")
        # Whatever the longest name, a narrow card has room for the rest of its header.
        self.picker.setMinimumWidth(_LEAST_PICKER)
        most, fixed = QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed
        self.picker.setSizePolicy(most, fixed)
        self.picker.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        self.side_picker.setSizePolicy(fixed, fixed)
        # One letter and no icon: by its contents Qt makes it as wide as it was without any.
        self.side_picker.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.side_picker.setMinimumContentsLength(1)
        self.side_picker.setIconSize(QSize(0, 0))
        for picker in (self.picker, self.side_picker):
            picker.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.picker.currentIndexChanged.connect(self._pick)
        self.side_picker.activated.connect(self._choose_side)
        self._key = SideKey(self._theme)
        self.readout_label = ElidedLabel("muted")
        self.readout_label.setAccessibleName("Numbers of what is pointed at")
        self.header = QHBoxLayout()
        self.header.setSpacing(GAP_TINY)
        # Cards side by side keep one height of header, with and without a button.
        self.header.addStrut(_HEADER_HEIGHT)
        for widget in (self.picker, self.side_picker, self._key):
            self.header.addWidget(widget)
        self.header.addStretch()
        self._below = QHBoxLayout()
        self.menu_button = QToolButton()
        self.menu_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.menu_button.setToolTip("More of this chart")
        self.menu_button.setAccessibleName("More of this chart")
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        menu.addActions([self.as_table, self.freeze, self.maximise, self.pop_out])
        menu.addSeparator()
        menu.addActions([self.copy, self.save_png, self.save_svg, self.save_csv])
        self.menu_button.setMenu(menu)
        self.menu_button.setProperty("role", "tool")
        # Those that there is no room for are in the menu: they never keep a card from being narrow.
        self._buttons = QWidget()
        self._buttons.setMinimumWidth(1)
        self._button_row = QHBoxLayout(self._buttons)
        self._button_row.setContentsMargins(0, 0, 0, 0)
        self._button_row.setSpacing(GAP_TINY)
        self.freeze_button, self.pop_out_button, self.maximise_button = (
            self._button(action) for action in (self.freeze, self.pop_out, self.maximise)
        )
        self.header.addWidget(self._buttons)
        self.header.addWidget(self.menu_button)

    def _button(self, action: QAction) -> QToolButton:
        button = QToolButton()
        button.setProperty("role", "tool")
        button.setDefaultAction(action)
        button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonIconOnly)
        button.setAccessibleName(action.text().replace("&", ""))
        self._button_row.addWidget(button)
        return button

    def _build_body(self) -> None:
        self._words = QLabel()
        self._words.setProperty("role", "empty")
        self._words.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._words.setWordWrap(True)
        self._words.setMinimumHeight(1)
        self._pages = QStackedWidget()
        self._pages.addWidget(self._words)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(GAP, GAP_SMALL, GAP, GAP_SMALL)
        layout.setSpacing(GAP_TINY)
        layout.addLayout(self.header)
        layout.addLayout(self._below)
        layout.addWidget(self._pages, 1)

    # --- what is picked ---

    def _chart_of(self, kind: type[Chart]) -> Chart:
        if kind not in self._built:
            chart = kind(self._selection, self._theme)
            chart.told.connect(self._tell)
            chart.opened.connect(self.opened)
            if isinstance(chart, TokenMap):
                self._button_row.insertWidget(0, chart.whole_button)
                chart.whole_button.hide()
            self._built[kind] = chart
            self._pages.addWidget(chart)
        return self._built[kind]

    @Slot(int)
    def _pick(self, index: int) -> None:
        kind = CHARTS[index]
        with QSignalBlocker(self.picker):
            self.picker.setCurrentIndex(index)
        self.picker.setToolTip(f"{kind.title}. {kind.meaning}")
        former, self.chart = self.chart, self._chart_of(kind)
        if isinstance(former, TokenMap):
            former.whole_button.hide()
        self.setAccessibleName(kind.title)
        self._is_owed = True
        self.refresh()

    @Slot(int)
    def _choose_side(self, _index: int) -> None:
        self.chart.choose_side(self.side_picker.currentData())
        self._show()

    # --- keeping in step ---

    @Slot()
    def _show(self) -> None:
        chart = self.chart
        chart.is_live = self._shown.is_of(self._sides)
        chart.show_run(self._shown)
        self._show_sides()
        is_there = not chart.problem
        for action in (self.copy, self.save_png, self.save_svg, self.save_csv):
            action.setEnabled(is_there)
        if not is_there:
            self._words.setText(chart.problem)
            self._words.setToolTip(plain_tooltip(chart.problem))
            self._pages.setCurrentWidget(self._words)
        elif self.as_table.isChecked():
            self._show_table()
        else:
            self._pages.setCurrentWidget(chart)
        self._fit_buttons()
        self._tell()

    def _show_table(self) -> None:
        if self._table is None:
            self._model = NumberModel(self)
            self._table = new_table(self._model, self.chart.title)
            self._pages.addWidget(self._table)
        self._table.setAccessibleName(f"Numbers of {self.chart.title}")
        self._model.show_numbers(self.chart.numbers())
        self._pages.setCurrentWidget(self._table)

    def _show_sides(self) -> None:
        chart = self.chart
        offered = chart.offered
        self.side_picker.setVisible(len(offered) > 0)
        self._key.show_sides(chart.overlaid)
        self._key.setVisible(bool(chart.overlaid))
        names = [
            (side.number, side.name, f"{side.title}: {side.about.routing}") for side in offered
        ]
        if names != self._names:
            self._names = names
            self.side_picker.clear()
            for row, (number, letter, words) in enumerate(names):
                self.side_picker.addItem(letter, number)
                self.side_picker.setItemData(row, plain_tooltip(words), Qt.ItemDataRole.ToolTipRole)
        if offered:
            self.side_picker.setCurrentIndex(self.side_picker.findData(chart.side.number))

    @Slot()
    def _tell(self) -> None:
        text = self.chart.readout
        if text and self.freeze.isChecked():
            text = f"Frozen  ·  {text}"
        if text != self.readout_label.text():
            self.readout_label.setText(text)
            self.readout_label.setToolTip(plain_tooltip(text))

    @Slot(str)
    def _tell_written(self, text: str) -> None:
        self.readout_label.setText(text)
        self.readout_label.setToolTip(plain_tooltip(text))

    @Slot()
    def _take_nulls(self) -> None:
        if not isinstance(self.chart, NullChart):
            return
        if self.isVisible():
            self._show()
        else:
            self._is_owed = True

    def _keep(self, work: Callable[[Chart], None]) -> None:
        if not self.chart.problem:
            work(self.chart)

    @Slot()
    def _take_theme(self) -> None:
        colors = self._theme.colors
        for button, name in (
            (self.freeze_button, "freeze"),
            (self.pop_out_button, "pop-out"),
            (self.maximise_button, "maximise"),
        ):
            button.defaultAction().setIcon(icon(name, colors.text))
        self.menu_button.setIcon(icon("more", colors.text))
        self._fit_header()

    def _fit_header(self) -> None:
        metrics = self.fontMetrics()
        letters = self.width() / max(1, metrics.averageCharWidth())
        is_below = letters < _READ_BESIDE
        if is_below and self._below.indexOf(self.readout_label) < 0:
            self.readout_label.setAlignment(Qt.AlignmentFlag.AlignLeft)
            self._below.addWidget(self.readout_label, 1)
        elif not is_below and self.header.indexOf(self.readout_label) < 0:
            self.readout_label.setAlignment(
                Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
            )
            self.header.insertWidget(self.header.indexOf(self._key) + 1, self.readout_label, 1)
        self._fit_buttons()

    def _fit_buttons(self) -> None:
        wanted = [self.maximise_button, self.pop_out_button, self.freeze_button]
        if isinstance(self.chart, TokenMap):
            whole = self.chart.whole_button
            if self._pages.currentWidget() is self.chart:
                wanted.insert(0, whole)
            else:
                whole.hide()
        others = (self.picker, self.side_picker, self._key, self.menu_button)
        room = (
            self.width()
            - 2 * GAP
            - sum(
                widget.sizeHint().width() + GAP_TINY for widget in others if not widget.isHidden()
            )
        )
        for button in wanted:
            room -= button.sizeHint().width() + GAP_TINY
            button.setVisible(room >= 0)
