"""The runs that are kept, as the engine lists them. QtCore only: opens no file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Qt, Signal, Slot

from bh_studio.engine.protocol.events import (
    CutOffFound,
    Event,
    Failed,
    HistoryMeasured,
    RunsListed,
)
from bh_studio.engine.protocol.requests import (
    FindCutOff,
    ListRuns,
    MeasureHistory,
    RemoveOldestRuns,
)
from bh_studio.ui.state.jobs_model import JobsModel

if TYPE_CHECKING:
    from bh_studio.engine.records.runs.kept import KeptRun
    from bh_studio.engine.records.runs.size import HistorySize


class KeptRuns(QObject):
    """What is in `history`, and among the session files in `former`.

    runs: the newest first; None until they were listed. size: what they take, of which `most_bytes`
    are wanted; None until that was measured. changed: they are others now, or are being listed.
    cut_off: with the runs, the newest first, that a program that was killed has left. exceeded:
    there are more than are wanted.
    """

    changed = Signal()
    cut_off = Signal(object)
    exceeded = Signal()
    failed = Signal(object)

    def __init__(
        self,
        jobs: JobsModel,
        history: Path,
        former: Path,
        most_bytes: int,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._jobs = jobs
        self.history = history
        self._former = former
        self.runs: tuple[KeptRun, ...] | None = None
        self.size: HistorySize | None = None
        self.most_bytes = most_bytes
        self.is_listing = False

    @Slot()
    def refresh(self) -> None:
        """List them anew, unless there is no engine yet or that is being done."""
        if self._jobs.has_engine and not self.is_listing:
            self.is_listing = True
            self._jobs.ask(ListRuns(self.history, self._former), self._take_list)
            self._measure()
            self.changed.emit()

    def look_through(self) -> None:
        """Look once for runs that were cut off, and for too many, as soon as there is an engine."""
        if self._jobs.has_engine:
            self._look_through()
        else:
            self._jobs.attached.connect(self._look_through, Qt.ConnectionType.SingleShotConnection)

    def remove_surplus(self) -> None:
        """Remove the oldest runs, as many as `size` said; what is there then is listed anew."""
        if self.size is not None and self._jobs.has_engine:
            self._jobs.ask(RemoveOldestRuns(self.history, self.size.surplus), self._take_removed)

    @Slot()
    def _look_through(self) -> None:
        self._jobs.ask(FindCutOff(self.history), self._take_cut_off)
        self._measure()

    def _measure(self) -> None:
        self._jobs.ask(MeasureHistory(self.history, self.most_bytes), self._take_size)

    def _take_list(self, event: Event) -> None:
        self.is_listing = False
        if isinstance(event, RunsListed):
            self.runs = event.runs
        elif isinstance(event, Failed):
            self.failed.emit(event)
        self.changed.emit()

    def _take_size(self, event: Event) -> None:
        if isinstance(event, HistoryMeasured):
            self.size = event.size
            self.changed.emit()
            if event.size.surplus:
                self.exceeded.emit()

    def _take_removed(self, event: Event) -> None:
        if isinstance(event, Failed):
            self.failed.emit(event)
        self.refresh()

    def _take_cut_off(self, event: Event) -> None:
        if isinstance(event, CutOffFound) and event.runs:
            self.cut_off.emit(event.runs)
