"""A table as high as its rows, so that only the panel around it scrolls."""

from __future__ import annotations

from typing import Protocol

from PySide6.QtCore import QAbstractTableModel, Qt
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QWidget

_ROW_GAP = 4


class _Stretched(Protocol):
    @property
    def stretched(self) -> list[bool]:
        """Of each column, whether it takes the room that the others leave."""


class RowsView(QTableView):
    """Shows all rows of a model that says which of its columns are wide."""

    def __init__(
        self, model: QAbstractTableModel, name: str, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.setModel(model)
        self.setAccessibleName(name)
        self.verticalHeader().hide()
        self.setShowGrid(False)
        # Else nobody who has no mouse gets out again.
        self.setTabKeyNavigation(False)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.horizontalHeader().setHighlightSections(False)
        self.horizontalHeader().setMinimumSectionSize(1)

    def fit(self, columns: _Stretched) -> None:
        """Take the height of the rows and the widths that `columns`, the model, wants."""
        header = self.horizontalHeader()
        modes = QHeaderView.ResizeMode
        for column, is_stretched in enumerate(columns.stretched):
            mode = modes.Stretch if is_stretched else modes.ResizeToContents
            if header.sectionResizeMode(column) is not mode:
                header.setSectionResizeMode(column, mode)
        height = self.fontMetrics().height() + _ROW_GAP
        self.verticalHeader().setDefaultSectionSize(height)
        rows = self.model().rowCount() * height
        self.setFixedHeight(rows + header.sizeHint().height() + 2 * self.frameWidth())
