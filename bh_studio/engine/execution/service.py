"""The engine as those who ask it see it: requests in, reports out, a number for each job.

What needs the model is done in one lane, the rest in another, which answers also while the first is
busy. A run that a person waits for goes before an experiment, which gives way between two passes of
the model, where nothing on it is changed, and then goes on.
"""

from __future__ import annotations

from collections.abc import Callable

from bh_studio.engine.execution.host import Host
from bh_studio.engine.execution.lane import Job, Lane
from bh_studio.engine.protocol.events import Report
from bh_studio.engine.protocol.experiments import Comparison
from bh_studio.engine.protocol.requests import (
    InspectModel,
    LoadModel,
    Request,
    SaveCalibration,
    UnloadModel,
)

# Short, and asked by a person who waits.
_OVERTAKING = Comparison | InspectModel | SaveCalibration
# While the model is exchanged there is none.
_UNDIVIDED = LoadModel | UnloadModel


class Service:
    """Answers requests from any thread.

    tell: called with each Report, in the thread of the lane that it comes from; of a job that has
    to wait in that of `submit`.
    """

    def __init__(self, tell: Callable[[Report], None]) -> None:
        self._host = Host()
        self._lane = Lane(tell)

    def submit(self, request: Request) -> None:
        """Begin a job as soon as its turn comes; its reports follow."""
        number, body = request
        self._lane.put(
            Job(
                number,
                lambda cancel: self._host.answer(body, cancel),
                gives_way=not isinstance(body, _OVERTAKING | _UNDIVIDED),
                overtakes=isinstance(body, _OVERTAKING),
            )
        )

    def cancel(self, job: int) -> None:
        """Ask a job to end as soon as it can; one that has ended is no matter."""
        self._lane.cancel(job)

    def pause(self, job: int) -> None:
        """Hold a job between two of its steps."""
        self._lane.pause(job, True)

    def resume(self, job: int) -> None:
        """Let a job go on that was paused."""
        self._lane.pause(job, False)

    def work(self) -> None:
        """Do what needs the model, in this thread, until `close`."""
        self._lane.work()

    def close(self) -> None:
        """Cancel all jobs; `work` returns after the step that is being made: a token, the reading
        of a prompt or a window, or the import of torch."""
        self._lane.close()
