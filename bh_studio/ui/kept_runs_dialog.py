"""The runs that are kept, in a table to look through and to open one from."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from PySide6.QtCore import (
    QAbstractTableModel,
    QModelIndex,
    QPersistentModelIndex,
    QSize,
    QSortFilterProxyModel,
    Qt,
    QUrl,
    Signal,
    Slot,
)
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QHBoxLayout,
    QHeaderView,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from bh_studio.engine.records.runs.kept import KeptRun
from bh_studio.engine.records.runs.lines import RunEnd
from bh_studio.engine.rules.text import format_rule
from bh_studio.engine.units import counted, format_bytes
from bh_studio.ui.state.kept_runs import KeptRuns
from bh_studio.ui.widgets.elided_label import ElidedLabel
from bh_studio.ui.widgets.form_rows import describe
from bh_studio.ui.widgets.theme import GAP, GAP_SMALL
from bh_studio.ui.widgets.visible_text import plain_tooltip, visible

_LETTERS, _LINES = 120, 30
_LONGEST, _SHORT = 400, 60
# Rows that decide how wide a column is: to measure all of them would hold up the window.
_MEASURED = 50
_TITLES = ("Begun", "Prompt", "Rule", "Model", "Ended")
_PROMPT = _TITLES.index("Prompt")
_ENDS = {
    RunEnd.COMPLETE: "Complete",
    RunEnd.STOPPED: "Stopped",
    RunEnd.FAILED: "Failed",
    RunEnd.CUT_OFF: "Cut off",
    None: "Goes on",
}
_SORTED_BY = Qt.ItemDataRole.UserRole

_Index = QModelIndex | QPersistentModelIndex


class KeptRunsDialog(QDialog):
    """Stays open beside the window. chosen: with the path of the run that is to be shown."""

    chosen = Signal(object)

    def __init__(self, kept: KeptRuns, parent: QWidget) -> None:
        super().__init__(parent)
        self._kept = kept
        self._is_busy = False
        self.setWindowTitle("Kept runs")
        self.wanted = QLineEdit()
        self.wanted.setPlaceholderText("Prompt, rule or model")
        self.wanted.setClearButtonEnabled(True)
        describe(self.wanted, "Search the kept runs", "Show only runs with these letters")
        self._rows = _Rows(self)
        self._shown = QSortFilterProxyModel(self)
        self._shown.setSourceModel(self._rows)
        self._shown.setSortRole(_SORTED_BY)
        self._shown.setFilterKeyColumn(-1)
        self._shown.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.table = QTableView()
        self.count = ElidedLabel("muted")
        self.folder_button = QPushButton("Show the folder")
        describe(self.folder_button, "Show the folder", "Show where the kept runs lie on the disk")
        self.open_button = QPushButton("Open")
        describe(self.open_button, "Open the run", "Show the selected run in the window (Return)")
        self.surplus = ElidedLabel("muted")
        self.remove_button = QPushButton()
        self.question: QMessageBox | None = None
        self.close_button = QPushButton("Close")
        describe(self.close_button, "Close", "Close this window (Esc)")
        self._set_up_table()
        self._lay_out()
        self.wanted.textChanged.connect(self._search)
        self.table.doubleClicked.connect(self._choose)
        self.table.selectionModel().selectionChanged.connect(self._sync)
        self.open_button.clicked.connect(self._choose)
        self.folder_button.clicked.connect(self._show_folder)
        self.remove_button.clicked.connect(self._ask_to_remove)
        self.close_button.clicked.connect(self.close)
        kept.changed.connect(self._take)
        self._take()
        self.resize(self.sizeHint().boundedTo(parent.size()))

    def sizeHint(self) -> QSize:
        metrics = self.fontMetrics()
        return QSize(metrics.averageCharWidth() * _LETTERS, metrics.height() * _LINES)

    @property
    def selected(self) -> Path | None:
        """Where the run is that is selected."""
        rows = self.table.selectionModel().selectedRows()
        return self._rows.runs[self._shown.mapToSource(rows[0]).row()].path if rows else None

    def show_busy(self, is_busy: bool) -> None:
        """Whether a run is in flight, in place of which none can be shown."""
        self._is_busy = is_busy
        self._sync()

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
        header.setSectionResizeMode(_PROMPT, QHeaderView.ResizeMode.Stretch)

    def _lay_out(self) -> None:
        buttons = QHBoxLayout()
        buttons.setSpacing(GAP_SMALL)
        buttons.addWidget(self.count, 1)
        for button in (self.folder_button, self.open_button, self.close_button):
            buttons.addWidget(button)
        self.open_button.setDefault(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(GAP, GAP, GAP, GAP)
        layout.setSpacing(GAP_SMALL)
        layout.addWidget(self.wanted)
        layout.addWidget(self.table, 1)
        room = QHBoxLayout()
        room.addWidget(self.surplus, 1)
        room.addWidget(self.remove_button)
        layout.addLayout(room)
        layout.addLayout(buttons)

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
        size = self._kept.size
        surplus = size.surplus if size is not None else 0
        for widget in (self.surplus, self.remove_button):
            widget.setVisible(surplus > 0)
        if surplus:
            self.surplus.setText(surplus_words(self._kept))
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


def surplus_words(kept: KeptRuns) -> str:
    """That the runs take more than is wanted, a sentence."""
    taken = format_bytes(kept.size.bytes) if kept.size is not None else "much"
    return f"Kept runs take {taken}; the settings want at most {format_bytes(kept.most_bytes)}."


def cut_off_words(runs: tuple[KeptRun, ...]) -> str:
    """What there is to say of `runs`, the newest first, that were cut off: a sentence."""
    begun, prompt, *_ = _cells(runs[0])
    which = f"The run of {begun} was"
    if len(runs) > 1:
        which = f"{len(runs)} runs were"
    short = prompt if len(prompt) <= _SHORT else f"{prompt[: _SHORT - 1].rstrip()}…"
    return f"{which} cut off by the end of the program: “{short}”"


class _Rows(QAbstractTableModel):
    """One row a run."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.runs: tuple[KeptRun, ...] = ()
        # Made once: to sort or to search asks for each of them many times.
        self._cells: list[tuple[str, ...]] = []

    def show_runs(self, runs: tuple[KeptRun, ...]) -> None:
        """Hold `runs` in place of what there is."""
        self.beginResetModel()
        self.runs, self._cells = runs, [_cells(run) for run in runs]
        self.endResetModel()

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008 - Qt's own signature
        return 0 if parent.isValid() else len(self.runs)

    def columnCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(_TITLES)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation is Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return _TITLES[section]
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        return None

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        run, column = self.runs[index.row()], index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return self._cells[index.row()][column]
        if role == _SORTED_BY:
            begun = datetime.fromisoformat(run.started_at).timestamp()
            return begun if column == 0 else self._cells[index.row()][column]
        if role == Qt.ItemDataRole.ToolTipRole:
            return plain_tooltip(run.prompt[:_LONGEST] if column == _PROMPT else str(run.path))
        return None


def _cells(run: KeptRun) -> tuple[str, ...]:
    begun = datetime.fromisoformat(run.started_at).astimezone()
    prompt = visible(run.prompt[:_LONGEST], mark_newlines=True)
    model = visible(run.model[:_LONGEST], mark_newlines=True)
    return (f"{begun:%Y-%m-%d %H:%M}", prompt, _rules(run), model, _ENDS[run.end])


def _rules(run: KeptRun) -> str:
    """The rule beside the model's own routing; of other runs, what each side is."""
    if len(run.sides) == 2 and run.sides[0] is None and run.sides[1] is not None:
        return format_rule(run.sides[1])
    return " | ".join("own" if side is None else format_rule(side) for side in run.sides)
