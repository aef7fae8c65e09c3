"""The kept runs as rows of a table, and what there is to say of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, Qt
from PySide6.QtWidgets import QWidget

from bh_studio.engine.records.runs.kept import KeptRun
from bh_studio.engine.records.runs.lines import RunEnd
from bh_studio.engine.rules.text import format_rule
from bh_studio.engine.units import format_bytes
from bh_studio.ui.state.kept_runs import KeptRuns
from bh_studio.ui.widgets.visible_text import plain_tooltip, visible

TITLES = ("Begun", "Prompt", "Rule", "Model", "Ended")
PROMPT = TITLES.index("Prompt")
SORTED_BY = Qt.ItemDataRole.UserRole
_LONGEST, _SHORT = 400, 60
_ENDS = {
    RunEnd.COMPLETE: "Complete",
    RunEnd.STOPPED: "Stopped",
    RunEnd.FAILED: "Failed",
    RunEnd.CUT_OFF: "Cut off",
    None: "Goes on",
}

_Index = QModelIndex | QPersistentModelIndex


class RunRows(QAbstractTableModel):
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
        return 0 if parent.isValid() else len(TITLES)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation is Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return TITLES[section]
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        return None

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        run, column = self.runs[index.row()], index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return self._cells[index.row()][column]
        if role == SORTED_BY:
            begun = datetime.fromisoformat(run.started_at).timestamp()
            return begun if column == 0 else self._cells[index.row()][column]
        if role == Qt.ItemDataRole.ToolTipRole:
            return plain_tooltip(run.prompt[:_LONGEST] if column == PROMPT else str(run.path))
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
