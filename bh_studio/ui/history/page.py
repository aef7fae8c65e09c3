"""The page of the runs that are kept: a table to look through and to open one from."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QSortFilterProxyModel, Qt, QUrl, Signal, Slot
from PySide6.QtGui import QDesktopServices, QKeySequence, QShortcut, QShowEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from bh_studio.engine.units import counted
from bh_studio.ui.history.rows import PROMPT, SORTED_BY, RunRows, surplus_words
from bh_studio.ui.place import Place
from bh_studio.ui.state.kept_runs import KeptRuns
from bh_studio.ui.widgets.elided_label import ElidedLabel
from bh_studio.ui.widgets.form_rows import describe
from bh_studio.ui.widgets.theme import GAP, GAP_SMALL
from bh_studio.ui.widgets.visible_text import plain_tooltip

# Rows that decide how wide a column is: to measure all of them would hold up the window.
_MEASURED = 50


class HistoryPage(Place):
    """Lists the runs anew whenever it is shown. chosen: with the path of the run that is to be
    opened."""

    chosen = Signal(object)

    def __init__(self, kept: KeptRuns, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._kept = kept
        self._is_busy = False
        self.wanted = QLineEdit()
        self.wanted.setPlaceholderText("Prompt, rule or model")
        self.wanted.setClearButtonEnabled(True)
        describe(self.wanted, "Search the kept runs", "Show only runs with these letters")
        self._rows = RunRows(self)
        self._shown = QSortFilterProxyModel(self)
        self._shown.setSourceModel(self._rows)
        self._shown.setSortRole(SORTED_BY)
        self._shown.setFilterKeyColumn(-1)
        self._shown.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.table = QTableView()
        self.count = ElidedLabel("muted")
        self.folder_button = QPushButton("Show the folder")
        describe(self.folder_button, "Show the folder", "Show where the kept runs lie on the disk")
        self.open_button = QPushButton("Open")
        describe(self.open_button, "Open the run", "Show the selected run in Compare (Return)")
        self.surplus = ElidedLabel("muted")
        self.remove_button = QPushButton()
        self.question: QMessageBox | None = None
        self._set_up_table()
        self._lay_out()
        self._connect()
        self._take()

    @property
    def selected(self) -> Path | None:
        """Where the run is that is selected."""
        rows = self.table.selectionModel().selectedRows()
        return self._rows.runs[self._shown.mapToSource(rows[0]).row()].path if rows else None

    def show_busy(self, is_busy: bool) -> None:
        """Whether a run is in flight, in place of which none can be shown."""
        self._is_busy = is_busy
        self._sync()

    def take_focus(self) -> None:
        """Let typing begin with what is looked for."""
        self.wanted.setFocus()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._kept.refresh()

    def _set_up_table(self) -> None:
        table = self.table
        table.setModel(self._shown)
        table.setAccessibleName("Kept runs")
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        table.setWordWrap(False)
        table.setShowGrid(False)
        table.setTabKeyNavigation(False)
        table.setSortingEnabled(True)
        table.sortByColumn(0, Qt.SortOrder.DescendingOrder)
        table.verticalHeader().hide()
        header = table.horizontalHeader()
        header.setHighlightSections(False)
        header.setResizeContentsPrecision(_MEASURED)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(PROMPT, QHeaderView.ResizeMode.Stretch)

    def _lay_out(self) -> None:
        buttons = QHBoxLayout()
        buttons.setSpacing(GAP_SMALL)
        buttons.addWidget(self.count, 1)
        for button, role in ((self.folder_button, "plain"), (self.open_button, "primary")):
            button.setProperty("role", role)
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(GAP, 0, GAP, GAP_SMALL)
        layout.setSpacing(GAP_SMALL)
        layout.addWidget(self.wanted)
        layout.addWidget(self.table, 1)
        room = QHBoxLayout()
        room.addWidget(self.surplus, 1)
        room.addWidget(self.remove_button)
        layout.addLayout(room)
        layout.addLayout(buttons)

    def _connect(self) -> None:
        self.wanted.textChanged.connect(self._search)
        self.wanted.returnPressed.connect(self._choose)
        self.table.doubleClicked.connect(self._choose)
        for key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            pressed = QShortcut(QKeySequence(key), self.table)
            pressed.setContext(Qt.ShortcutContext.WidgetShortcut)
            pressed.activated.connect(self._choose)
        self.table.selectionModel().selectionChanged.connect(self._sync)
        self.open_button.clicked.connect(self._choose)
        self.folder_button.clicked.connect(self._show_folder)
        self.remove_button.clicked.connect(self._ask_to_remove)
        self._kept.changed.connect(self._take)

    @Slot()
    def _take(self) -> None:
        runs, selected = self._kept.runs or (), self.selected
        if runs != self._rows.runs:
            self._rows.show_runs(runs)
            row = next((row for row, run in enumerate(runs) if run.path == selected), 0)
            if runs:
                index = self._shown.mapFromSource(self._rows.index(row, 0))
                self.table.selectRow(index.row())
        self._sync()

    @Slot()
    def _sync(self) -> None:
        self.open_button.setEnabled(self.selected is not None and not self._is_busy)
        if self._kept.runs is None:
            words = "Looking for runs…"
        elif not self._rows.runs:
            words = "No run has been kept yet."
        else:
            words = f"{counted(self._shown.rowCount(), 'run')} in {self._kept.history}"
        self.count.setText(words)
        self.count.setToolTip(plain_tooltip(words))
        size = self._kept.size
        surplus = size.surplus if size is not None else 0
        for widget in (self.surplus, self.remove_button):
            widget.setVisible(surplus > 0)
        if surplus:
            words = surplus_words(self._kept)
            self.surplus.setText(words)
            self.surplus.setToolTip(plain_tooltip(words))
            oldest = f"the {surplus} oldest" if surplus > 1 else "the oldest"
            self.remove_button.setText(f"Remove {oldest}…")
            describe(self.remove_button, f"Remove {oldest} runs", "Asks first; removed is removed")

    @Slot(str)
    def _search(self, text: str) -> None:
        self._shown.setFilterFixedString(text)
        if self.selected is None:
            self.table.selectRow(0)
        self._sync()

    @Slot()
    def _choose(self) -> None:
        if self.open_button.isEnabled() and self.selected is not None:
            self.chosen.emit(self.selected)

    @Slot()
    def _ask_to_remove(self) -> None:
        question = QMessageBox(self)
        question.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        question.setWindowTitle("Remove runs")
        question.setTextFormat(Qt.TextFormat.PlainText)
        question.setText(f"{self.remove_button.text().removesuffix('…')}?")
        question.setInformativeText(
            "They cannot be brought back. Sessions that you have saved are not touched."
        )
        remove = question.addButton("Remove", QMessageBox.ButtonRole.DestructiveRole)
        remove.clicked.connect(self._kept.remove_surplus)
        question.setDefaultButton(question.addButton(QMessageBox.StandardButton.Cancel))
        self.question = question
        question.open()

    @Slot()
    def _show_folder(self) -> None:
        history = self._kept.history
        folder = self.selected or history
        there = folder if folder.is_dir() else folder.parent
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(there)))
