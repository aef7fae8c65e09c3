"""The experts of one layer as a table, and which sides took each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt
from PySide6.QtGui import QColor

from bh_studio.engine.records.decisions.token_inspection import InspectedLayer
from bh_studio.ui.inspector.token_words import short_number
from bh_studio.ui.state.run_model import RunModel

_Index = QModelIndex | QPersistentModelIndex
_NOWHERE = QModelIndex()
_TAKEN, _LEFT, _UNKNOWN = "\N{BLACK CIRCLE}", "\N{MIDDLE DOT}", ""


class _Column(NamedTuple):
    """name: its head. meaning: for people. cell, exact: of a row, to be read and to be copied.
    spoken: for a screen reader. is_stretched: it takes the room that others leave."""

    name: str
    meaning: str
    cell: Callable[[int], str]
    exact: Callable[[int], str]
    spoken: Callable[[int], str]
    is_stretched: bool = False


class ExpertTable(QAbstractTableModel):
    """A row an expert, in the order in which the rule takes them."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._columns: list[_Column] = []
        self._rows = self._used = 0
        self._used_color = QColor()

    def show_layer(
        self,
        found: InspectedLayer | None,
        ranks: int | None,
        taken: Sequence[tuple[str, np.ndarray | None]],
    ) -> None:
        """Show the first `ranks` of a layer, or all.

        taken: of each side its letter and the experts that ran there, None where that is not known.
        """
        columns = [] if found is None else _columns_of(found, taken)
        rows = 0 if found is None else min(len(found.experts), ranks or len(found.experts))
        self.beginResetModel()
        self._columns, self._rows = columns, rows
        self._used = 0 if found is None else found.count
        self.endResetModel()

    def take_color(self, used: QColor) -> None:
        """Draw the rows of experts that are used on this colour."""
        self._used_color = used

    def as_text(self) -> str:
        """The table as it is shown, with tabs between its columns and all digits."""
        head = "\t".join(column.name for column in self._columns)
        rows = (
            "\t".join(column.exact(row) for column in self._columns) for row in range(self._rows)
        )
        return "\n".join([head, *rows]) + "\n"

    @property
    def stretched(self) -> list[bool]:
        """Of each column, whether it takes the room that the others leave."""
        return [column.is_stretched for column in self._columns]

    def rowCount(self, parent: _Index = _NOWHERE) -> int:
        return 0 if parent.isValid() else self._rows

    def columnCount(self, parent: _Index = _NOWHERE) -> int:
        return 0 if parent.isValid() else len(self._columns)

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        column = self._columns[index.column()]
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return column.cell(index.row())
            case Qt.ItemDataRole.AccessibleTextRole | Qt.ItemDataRole.ToolTipRole:
                return column.spoken(index.row())
            case Qt.ItemDataRole.TextAlignmentRole:
                across = "AlignRight" if column.is_stretched else "AlignHCenter"
                return int(Qt.AlignmentFlag[across] | Qt.AlignmentFlag.AlignVCenter)
            case Qt.ItemDataRole.BackgroundRole if index.row() < self._used:
                return self._used_color
        return None

    def headerData(
        self,
        section: int,
        orientation: Qt.Orientation,
        role: int = Qt.ItemDataRole.DisplayRole,
    ) -> Any:
        if orientation is not Qt.Orientation.Horizontal or section >= len(self._columns):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self._columns[section].name
        if role in (Qt.ItemDataRole.ToolTipRole, Qt.ItemDataRole.AccessibleDescriptionRole):
            return self._columns[section].meaning
        return None


def taken_experts(run: RunModel, token: int, layer: int) -> np.ndarray | None:
    """(expert,) uint8, those that ran in a layer at a token; None where that is not known."""
    routed = run.routed_experts
    if routed is None:
        return None
    position = run.position(token)
    if not 0 <= position < len(routed) or not 0 <= layer < routed.shape[1]:
        return None
    # What fills a row behind them is no expert's number.
    return routed[position, layer]


def _columns_of(
    found: InspectedLayer, taken: Sequence[tuple[str, np.ndarray | None]]
) -> list[_Column]:
    columns = [
        _counted("Rank", "Place in the order in which the rule takes experts", lambda row: row + 1),
        _counted("Expert", "Its number in this layer", lambda row: int(found.experts[row])),
        _measured("P", "Probability that the router gives it", found.probabilities),
    ]
    if found.p_values is not None:
        columns.append(_measured("p", "p-value of its score under the null", found.p_values, 2))
    if found.weights is not None:
        columns.append(_measured("Weight", "By which its output is mixed in", found.weights))
    return columns + [_side(name, experts, found) for name, experts in taken]


def _counted(name: str, meaning: str, number: Callable[[int], int]) -> _Column:
    def cell(row: int) -> str:
        return str(number(row))

    return _Column(name, meaning, cell, cell, lambda row: f"{name} {cell(row)}")


def _measured(name: str, meaning: str, values: np.ndarray, digits: int = 3) -> _Column:
    def written(row: int, many: int) -> str:
        return f"{values[row]:.{many}g}" if row < len(values) else ""

    def cell(row: int) -> str:
        return short_number(float(values[row]), digits) if row < len(values) else ""

    return _Column(
        name,
        meaning,
        cell,
        lambda row: written(row, 9),
        lambda row: f"{meaning}: {written(row, 9) or 'none'}",
        is_stretched=True,
    )


def _side(name: str, experts: np.ndarray | None, found: InspectedLayer) -> _Column:
    took = None if experts is None else set(experts.tolist())

    def told(row: int, yes: str, no: str, unknown: str) -> str:
        if took is None:
            return unknown
        return yes if int(found.experts[row]) in took else no

    return _Column(
        name,
        f"Whether side {name} took it at the same token",
        lambda row: told(row, _TAKEN, _LEFT, _UNKNOWN),
        lambda row: told(row, "1", "0", ""),
        lambda row: told(
            row, f"Side {name} took it", f"Side {name} did not take it", f"Side {name}: not known"
        ),
    )
