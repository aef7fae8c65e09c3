"""The numbers of a chart in a table, in its place."""

from __future__ import annotations

from typing import Any

import numpy as np
from PySide6.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, Qt
from PySide6.QtWidgets import QTableView, QWidget

from bh_studio.ui.charts.numbers import Numbers
from bh_studio.ui.widgets.visible_text import visible

_Index = QModelIndex | QPersistentModelIndex
_NOTHING = Numbers((), (), np.zeros((0, 0)))
_RIGHT = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)


class NumberModel(QAbstractTableModel):
    """Keeps what is selected and scrolled to while rows are only added."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._numbers = _NOTHING

    def show_numbers(self, numbers: Numbers) -> None:
        """Have these in the table from now on."""
        before, rows = len(self._numbers.values), len(numbers.values)
        if numbers.columns != self._numbers.columns or rows < before:
            self.beginResetModel()
            self._numbers = numbers
            self.endResetModel()
            return
        if rows > before:
            self.beginInsertRows(QModelIndex(), before, rows - 1)
            self._numbers = numbers
            self.endInsertRows()
        self._numbers = numbers
        if before and numbers.columns:
            self.dataChanged.emit(
                self.index(0, 0), self.index(before - 1, len(numbers.columns) - 1)
            )
            self.headerDataChanged.emit(Qt.Orientation.Vertical, 0, before - 1)

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self._numbers.values)

    def columnCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self._numbers.columns)

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if role == Qt.ItemDataRole.DisplayRole:
            return self._numbers.text(index.row(), index.column())
        return _RIGHT if role == Qt.ItemDataRole.TextAlignmentRole else None

    def headerData(
        self,
        section: int,
        orientation: Qt.Orientation,
        role: int = Qt.ItemDataRole.DisplayRole,
    ) -> Any:
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        if orientation is Qt.Orientation.Horizontal:
            return self._numbers.columns[section]
        labels = map(str, self._numbers.label(section))
        return "  ".join(visible(label, mark_newlines=True) for label in labels)


def new_table(model: NumberModel, name: str) -> QTableView:
    """A view of `model` that is only read."""
    view = QTableView()
    view.setModel(model)
    view.setAccessibleName(f"Numbers of {name}")
    view.setEditTriggers(QTableView.EditTrigger.NoEditTriggers)
    view.setHorizontalScrollMode(QTableView.ScrollMode.ScrollPerPixel)
    view.setTabKeyNavigation(False)
    return view
