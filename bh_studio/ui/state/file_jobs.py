"""Which files are being read or written, and who waits for them. QtCore only: opens none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PySide6.QtCore import QObject, Signal, Slot

from bh_studio.engine.protocol.events import (
    Event,
    Failed,
    JobCancelled,
    ResultRead,
    ResultWritten,
    SessionRead,
    SessionWritten,
)
from bh_studio.engine.protocol.requests import ReadSession, WriteResult, WriteSession
from bh_studio.ui.state.jobs_model import JobsModel

TakeRead = Callable[[SessionRead | ResultRead | Failed | JobCancelled], None]


@dataclass(eq=False, slots=True)
class _Reading:
    """job: None until there is an engine to ask."""

    path: Path
    take: TakeRead
    job: int | None = None


class FileJobs(QObject):
    """Of what is to be read, the last alone; of what is to be written, all, in order.

    write_failed: a file could not be written, with events.Failed. settled: all that was asked for
    is done.
    """

    write_failed = Signal(object)
    settled = Signal()

    def __init__(self, jobs: JobsModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._jobs = jobs
        self._reading: _Reading | None = None
        self._writes = 0
        jobs.attached.connect(self._ask_to_read)

    @property
    def is_writing(self) -> bool:
        """Whether a file is being written."""
        return self._writes > 0

    @property
    def is_under_way(self) -> bool:
        """Whether a file is being read or written."""
        return self._reading is not None or self.is_writing

    def read(self, path: Path, take: TakeRead) -> None:
        """Read `path` in place of what is being read; `take` gets the outcome, JobCancelled if it
        is given up.

        Without an engine it is read as soon as there is one.
        """
        former, self._reading = self._reading, _Reading(path, take)
        self._cancel(former)
        if self._jobs.has_engine:
            self._ask_to_read()

    def give_up_reading(self) -> Path | None:
        """Forget what is being read, if anything is: its path."""
        reading, self._reading = self._reading, None
        if reading is None:
            return None
        self._cancel(reading)
        self._settle()
        return reading.path

    def write(self, request: WriteSession | WriteResult, done: Callable[[], None]) -> None:
        """Have a file written; `done` is called once it is there."""
        self._writes += 1
        self._jobs.ask(request, partial(self._take_written, done))

    @Slot()
    def _ask_to_read(self) -> None:
        reading = self._reading
        if reading is not None and reading.job is None:
            take = partial(self._take_read, reading)
            reading.job = self._jobs.ask(ReadSession(reading.path), take)

    def _take_read(self, reading: _Reading, event: Event) -> None:
        if reading is not self._reading:
            return
        if not isinstance(event, SessionRead | ResultRead | Failed):
            return
        self._reading = None
        reading.take(event)
        self._settle()

    def _take_written(self, done: Callable[[], None], event: Event) -> None:
        if not isinstance(event, SessionWritten | ResultWritten | Failed | JobCancelled):
            return
        self._writes -= 1
        if isinstance(event, Failed):
            self.write_failed.emit(event)
        elif not isinstance(event, JobCancelled):
            done()
        self._settle()

    def _cancel(self, reading: _Reading | None) -> None:
        if reading is None:
            return
        if reading.job is not None:
            self._jobs.cancel(reading.job)
        reading.take(JobCancelled())

    def _settle(self) -> None:
        if not self.is_under_way:
            self.settled.emit()
