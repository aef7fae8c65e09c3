"""What the engine was asked for and has not ended yet, and who takes its events. QtCore only."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple, Protocol

from PySide6.QtCore import QObject, Signal, Slot

from bh_studio.engine.protocol.events import (
    CalibrationSaved,
    CutOffFound,
    Event,
    Failed,
    Finished,
    HistoryMeasured,
    JobCancelled,
    KlMeasured,
    LoadRefused,
    ModelInspected,
    ModelLoaded,
    ModelUnloaded,
    Report,
    ResultRead,
    ResultWritten,
    RunsListed,
    RunsRemoved,
    SessionNullJudged,
    SessionRead,
    SessionWritten,
    SideReplayed,
    TextRead,
    TokenInspected,
)
from bh_studio.engine.protocol.experiments import ModelExperiment
from bh_studio.engine.protocol.requests import Body, ModelFree, Request, RunKept, UnloadModel

_log = logging.getLogger(__name__)
_ENDS = (
    CalibrationSaved
    | CutOffFound
    | Failed
    | Finished
    | HistoryMeasured
    | JobCancelled
    | KlMeasured
    | LoadRefused
    | ModelInspected
    | ModelLoaded
    | ResultRead
    | ResultWritten
    | RunsListed
    | RunsRemoved
    | SessionNullJudged
    | SessionRead
    | SessionWritten
    | SideReplayed
    | TextRead
    | TokenInspected
)

Take = Callable[[Event], None]


class EnginePort(Protocol):
    """Who does the work; it answers with reports that bear the job's number."""

    def submit(self, request: Request) -> None:
        """Begin a job."""

    def cancel(self, job: int) -> None:
        """Ask a job to end; one that has ended is no matter."""


class _Asked(NamedTuple):
    body: Body
    take: Take


class JobsModel(QObject):
    """Numbers what is asked for, and hands each event to whoever asked.

    attached: there is an engine from now on. changed: something was asked for, or has ended.
    became_idle: the last job that needs the model has ended. A job has ended when its last event is
    handed on, so that whoever takes that may ask for the next.
    """

    attached = Signal()
    changed = Signal()
    became_idle = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._engine: EnginePort | None = None
        self._asked: dict[int, _Asked] = {}
        self._last = 0

    def attach(self, engine: EnginePort | None) -> None:
        """Ask `engine` from now on; None takes it away, and nobody is told any more."""
        self._engine = engine
        if engine is not None:
            self.attached.emit()
        else:
            self._asked.clear()

    @property
    def has_engine(self) -> bool:
        """Whether anything can be asked for."""
        return self._engine is not None

    @property
    def is_idle(self) -> bool:
        """Whether there is an engine that has nothing to do with a model."""
        return self._engine is not None and all(
            isinstance(asked.body, ModelFree) for asked in self._asked.values()
        )

    @property
    def need_the_model(self) -> bool:
        """Whether an experiment was asked for, so that the model has to stay until it has ended."""
        return any(
            isinstance(asked.body, ModelExperiment | RunKept) for asked in self._asked.values()
        )

    def body_of(self, job: int) -> Body | None:
        """What was asked for in `job`; None once that has ended."""
        asked = self._asked.get(job)
        return None if asked is None else asked.body

    def ask(self, body: Body, take: Take) -> int:
        """Ask for `body`; `take` gets its events, in this thread. The number of the job.

        Raises RuntimeError without an engine.
        """
        if self._engine is None:
            raise RuntimeError("There is no engine.")
        self._last += 1
        self._asked[self._last] = _Asked(body, take)
        job = self._last
        self._engine.submit(Request(job, body))
        self.changed.emit()
        return job

    def cancel(self, job: int) -> None:
        """Ask a job to end; what comes of it makes that final."""
        if self._engine is not None:
            self._engine.cancel(job)

    @Slot(object)
    def apply(self, report: Report) -> None:
        """Take what the engine reports; of a job that has ended, nothing."""
        job, event = report
        asked = self._asked.get(job)
        if asked is None:
            _log.warning("Dropped what is about no job: %s", type(event).__name__)
            return
        # A load tells of the former model's end too, before it reads the new one.
        ends = isinstance(event, _ENDS) or (
            isinstance(event, ModelUnloaded) and isinstance(asked.body, UnloadModel)
        )
        if ends:
            del self._asked[job]
        asked.take(event)
        if not ends:
            return
        self.changed.emit()
        if not isinstance(asked.body, ModelFree) and self.is_idle:
            self.became_idle.emit()
