"""The runs that are kept, as the engine lists them. QtCore only: opens no file."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QObject, Qt, Signal, Slot

from bh_studio.engine.protocol.events import CutOffFound, Event, Failed, RunsListed
from bh_studio.engine.protocol.requests import FindCutOff, ListRuns
from bh_studio.engine.records.runs.kept import KeptRun
from bh_studio.ui.state.jobs_model import JobsModel


class KeptRuns(QObject):
    """What is in `history`, and among the session files in `former`.

    runs: the newest first; None until they were listed. changed: they are others now, or are being
    listed. cut_off: with the runs, the newest first, that a program that was killed has left.
    """

    changed = Signal()
    cut_off = Signal(object)
    failed = Signal(object)

    def __init__(
        self, jobs: JobsModel, history: Path, former: Path, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._jobs = jobs
        self.history = history
        self._former = former
        self.runs: tuple[KeptRun, ...] | None = None
        self.is_listing = False

    @Slot()
    def refresh(self) -> None:
        """List them anew, unless there is no engine yet or that is being done."""
        if self._jobs.has_engine and not self.is_listing:
            self.is_listing = True
            self._jobs.ask(ListRuns(self.history, self._former), self._take_list)
            self.changed.emit()

    def look_for_cut_off(self) -> None:
        """Look once for runs that were cut off, as soon as there is an engine that can."""
        if self._jobs.has_engine:
            self._ask_for_cut_off()
        else:
            self._jobs.attached.connect(
                self._ask_for_cut_off, Qt.ConnectionType.SingleShotConnection
            )

    @Slot()
    def _ask_for_cut_off(self) -> None:
        self._jobs.ask(FindCutOff(self.history), self._take_cut_off)

    def _take_list(self, event: Event) -> None:
        self.is_listing = False
        if isinstance(event, RunsListed):
            self.runs = event.runs
        elif isinstance(event, Failed):
            self.failed.emit(event)
        self.changed.emit()

    def _take_cut_off(self, event: Event) -> None:
        if isinstance(event, CutOffFound) and event.runs:
            self.cut_off.emit(event.runs)
