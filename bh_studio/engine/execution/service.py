"""The engine as those who ask it see it: requests in, reports out, a number for each job.

What needs the model is done in one lane, the rest in another, which answers also while the first is
busy. A run that a person waits for goes before an experiment, which gives way between two passes of
the model, where nothing on it is changed, and then goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from bh_studio.engine.execution.clerk import Clerk
from bh_studio.engine.execution.host import Host
from bh_studio.engine.execution.lane import Job, Lane
from bh_studio.engine.protocol.events import Report
from bh_studio.engine.protocol.experiments import Comparison, Replay, SameText
from bh_studio.engine.protocol.requests import (
    Body,
    InspectModel,
    JudgeNull,
    LoadModel,
    MeasureKl,
    ModelFree,
    Request,
    RunKept,
    SaveCalibration,
    UnloadModel,
    WriteResult,
    WriteSession,
)

# Short, and asked by a person who waits.
_OVERTAKING = Comparison | SameText | InspectModel | SaveCalibration | JudgeNull | MeasureKl
# While the model is exchanged there is none.
_UNDIVIDED = LoadModel | UnloadModel


class Service:
    """Answers requests from any thread.

    What needs the model is done in the thread that calls `work`; the rest in a thread of the
    service's own, which begins with the first such request and ends with `close`.

    tell: called with each Report, in the thread of the lane that it comes from, so from two threads
    and maybe at once; of a job that has not begun in that of `submit` or `cancel`. The reports of
    one job come in order and end with one that says how; between jobs of different lanes there is
    none. history: folder that keeps every comparison; None for none.
    """

    def __init__(self, tell: Callable[[Report], None], history: Path | None = None) -> None:
        self._host = Host(history)
        self._clerk = Clerk()
        self._lane = Lane(tell)
        self._model_free = Lane(tell)
        self._thread = threading.Thread(target=self._model_free.work, name="model-free")
        self._starting = threading.Lock()

    def submit(self, request: Request) -> None:
        """Begin a job as soon as its turn comes; its reports follow.

        After `close` it is cancelled at once.
        """
        number, body = request
        if isinstance(body, ModelFree):
            self._submit_model_free(number, body)
            return
        overtakes = _is_awaited(body)
        self._lane.put(
            Job(
                number,
                lambda cancel: self._host.answer(body, cancel),
                gives_way=not overtakes and not isinstance(body, _UNDIVIDED),
                overtakes=overtakes,
            )
        )

    def _submit_model_free(self, number: int, body: ModelFree) -> None:
        self._model_free.put(
            Job(
                number,
                lambda cancel: self._clerk.answer(body, cancel),
                gives_way=isinstance(body, Replay),
                overtakes=not isinstance(body, Replay),
                # Whoever asked may have nothing else left of what is written.
                outlasts_closing=isinstance(body, WriteSession | WriteResult),
            )
        )
        with self._starting:
            if self._thread.ident is None:
                self._thread.start()

    def cancel(self, job: int) -> None:
        """Ask a job to end as soon as it can; one that has ended is no matter."""
        for lane in (self._lane, self._model_free):
            lane.cancel(job)

    def pause(self, job: int) -> None:
        """Hold a job between two of its steps."""
        for lane in (self._lane, self._model_free):
            lane.pause(job, True)

    def resume(self, job: int) -> None:
        """Let a job go on that was paused."""
        for lane in (self._lane, self._model_free):
            lane.pause(job, False)

    def work(self) -> None:
        """Do what needs the model, in this thread, until `close`."""
        self._lane.work()

    def close(self) -> None:
        """Cancel all jobs but the writing of files; returns when all these are written.

        `work` returns after the step that is being made: a token, the reading of a prompt or a
        window, or the import of torch. Not to be called by `tell`.
        """
        for lane in (self._lane, self._model_free):
            lane.close()
        with self._starting:
            is_started = self._thread.ident is not None
        if is_started:
            self._thread.join()


def _is_awaited(body: Body) -> bool:
    asked = body.experiment if isinstance(body, RunKept) else body
    return isinstance(asked, _OVERTAKING)
