"""A table as high as its rows, so that only the panel around it scrolls."""

from __future__ import annotations

from typing import Protocol

from PySide6.QtCore import QAbstractTableModel, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QStyle, QTableView, QWidget

_ROW_GAP = 4


class _Stretched(Protocol):
    @property
    def stretched(self) -> list[bool]:
        """Of each column, whether it takes the room that the others leave."""


class RowsView(QTableView):
    """Shows all rows of a model that says which of its columns are wide.

    has_numbers: those are numbers, none of which may be cut: where there is no room for them all
    the table scrolls sideways. Else they are words, cut where they do not fit.
    """

    def __init__(
        self,
        model: QAbstractTableModel,
        name: str,
        parent: QWidget | None = None,
        *,
        has_numbers: bool = False,
    ) -> None:
        super().__init__(parent)
        self._has_numbers = has_numbers
        self._wide: list[int] = []
        self.setModel(model)
        self.setAccessibleName(name)
        self.verticalHeader().hide()
        self.setShowGrid(False)
        # Else nobody who has no mouse gets out again.
        self.setTabKeyNavigation(False)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.horizontalHeader().setHighlightSections(False)
        self.horizontalHeader().setMinimumSectionSize(1)

    def fit(self, columns: _Stretched) -> None:
        """Take the height of the rows and the widths that `columns`, the model, wants."""
        header = self.horizontalHeader()
        modes = QHeaderView.ResizeMode
        wide = modes.Fixed if self._has_numbers else modes.Stretch
        self._wide = [column for column, is_wide in enumerate(columns.stretched) if is_wide]
        for column in range(self.model().columnCount()):
            mode = wide if column in self._wide else modes.ResizeToContents
            if header.sectionResizeMode(column) is not mode:
                header.setSectionResizeMode(column, mode)
        self.verticalHeader().setDefaultSectionSize(self.fontMetrics().height() + _ROW_GAP)
        self._share_width()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._share_width()

    def _share_width(self) -> None:
        """Give each column of numbers what it needs, and an equal share of the rest."""
        header, is_too_narrow = self.horizontalHeader(), False
        if self._has_numbers and self._wide:
            # Asked for before its parts: it lays out what is still owed.
            taken = header.length() - sum(map(header.sectionSize, self._wide))
            needed = list(map(self._needed_width, self._wide))
            left = self.viewport().width() - taken - sum(needed)
            share, odd = divmod(max(0, left), len(self._wide))
            is_too_narrow = left < 0
            for place, (column, width) in enumerate(zip(self._wide, needed, strict=True)):
                header.resizeSection(column, width + share + (place < odd))
        policy = Qt.ScrollBarPolicy
        self.setHorizontalScrollBarPolicy(
            policy.ScrollBarAlwaysOn if is_too_narrow else policy.ScrollBarAlwaysOff
        )
        height = self.model().rowCount() * self.verticalHeader().defaultSectionSize()
        height += header.sizeHint().height() + 2 * self.frameWidth()
        if is_too_narrow:
            height += self.horizontalScrollBar().sizeHint().height()
        self.setFixedHeight(height)

    def _needed_width(self, column: int) -> int:
        model, metrics = self.model(), self.fontMetrics()
        cells = (model.index(row, column).data() for row in range(model.rowCount()))
        margin = self.style().pixelMetric(QStyle.PixelMetric.PM_FocusFrameHMargin, None, self) + 1
        widest = max((metrics.horizontalAdvance(cell) for cell in cells), default=0)
        return max(widest + 2 * margin, self.horizontalHeader().sectionSizeHint(column))
