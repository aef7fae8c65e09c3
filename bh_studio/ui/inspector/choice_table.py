"""What each side said at a token, and what its model held most probable there."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt
from PySide6.QtGui import QFont

from bh_studio.ui.inspector.token_words import quoted, short_number
from bh_studio.ui.state.run_model import RunModel
from bh_studio.ui.state.run_sides import RunSides

_Index = QModelIndex | QPersistentModelIndex
_NOWHERE = QModelIndex()
_HEADS = ("Side", "Rank", "Token", "Id", "P")
_MEANINGS = (
    "Which side",
    "Place among all tokens by probability",
    "Its text; without the model of this run, only where a side has said it",
    "Its number in the vocabulary",
    "Probability, before temperature and top-p",
)


class Candidate(NamedTuple):
    """A token that a side could have said. is_chosen: it has."""

    side: str
    rank: int
    token_id: int
    text: str | None
    probability: float
    is_chosen: bool


class ChoiceTable(QAbstractTableModel):
    """A row a candidate, the sides one below the other."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.candidates: list[Candidate] = []

    def show_candidates(self, candidates: list[Candidate]) -> None:
        """Show these."""
        if candidates != self.candidates:
            self.beginResetModel()
            self.candidates = candidates
            self.endResetModel()

    @property
    def stretched(self) -> list[bool]:
        """Of each column, whether it takes the room that the others leave."""
        return [head == "Token" for head in _HEADS]

    def rowCount(self, parent: _Index = _NOWHERE) -> int:
        return 0 if parent.isValid() else len(self.candidates)

    def columnCount(self, parent: _Index = _NOWHERE) -> int:
        return 0 if parent.isValid() else len(_HEADS)

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        candidate = self.candidates[index.row()]
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return _cells(candidate)[index.column()]
            case Qt.ItemDataRole.AccessibleTextRole | Qt.ItemDataRole.ToolTipRole:
                return _sentence(candidate)
            case Qt.ItemDataRole.FontRole if candidate.is_chosen:
                font = QFont()
                font.setBold(True)
                return font
            case Qt.ItemDataRole.TextAlignmentRole if index.column() not in (0, 2):
                return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        return None

    def headerData(
        self,
        section: int,
        orientation: Qt.Orientation,
        role: int = Qt.ItemDataRole.DisplayRole,
    ) -> Any:
        if orientation is Qt.Orientation.Horizontal and section < len(_HEADS):
            if role == Qt.ItemDataRole.DisplayRole:
                return _HEADS[section]
            if role == Qt.ItemDataRole.ToolTipRole:
                return _MEANINGS[section]
        return None


def candidates_at(
    sides: RunSides, token: int, text_of: Callable[[int], str | None]
) -> list[Candidate]:
    """What each side could have said at a token. text_of: gives the text of an id, if known."""
    return [one for run in sides.runs for one in _of_side(run, token, text_of)]


def _of_side(run: RunModel, token: int, text_of: Callable[[int], str | None]) -> list[Candidate]:
    choices = run.choices
    if choices is None or not 0 <= token < min(run.token_count, len(choices.ranks)):
        return []
    said = run.token_ids[token]
    ids = choices.top_ids[token].tolist()
    found = [
        Candidate(run.name, rank, top, text_of(top), math.exp(logarithm), top == said)
        for rank, (top, logarithm) in enumerate(
            zip(ids, choices.top_log_probabilities[token].tolist(), strict=True), start=1
        )
    ]
    if said not in ids:
        probability = math.exp(float(choices.log_probabilities[token]))
        rank = int(choices.ranks[token])
        found.append(Candidate(run.name, rank, said, run.token_texts[token], probability, True))
    return found


def _cells(candidate: Candidate) -> tuple[str, ...]:
    return (
        candidate.side,
        str(candidate.rank),
        _text(candidate),
        str(candidate.token_id),
        short_number(candidate.probability, 3),
    )


def _text(candidate: Candidate) -> str:
    text = candidate.text
    return "" if text is None else quoted(text)


def _sentence(candidate: Candidate) -> str:
    verb = "said" if candidate.is_chosen else "could have said"
    what = _text(candidate) or "a token of unknown text"
    return (
        f"Side {candidate.side} {verb} {what} (id {candidate.token_id}), rank {candidate.rank}, "
        f"probability {candidate.probability:.4g}"
    )
