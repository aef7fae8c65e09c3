"""Jobs one at a time, in one thread: who goes first, who gives way, who pauses.

Knows no model and no request; a job is steps that give events.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from bh_studio.engine.errors import Cancelled, CancelToken, EngineError
from bh_studio.engine.protocol.events import Event, JobCancelled, Report, Waiting, failure

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Job:
    """number: which all its events bear. begin: makes its steps. gives_way: between two steps it
    lets those go first that overtake. outlasts_closing: it is done although the lane is closed."""

    number: int
    begin: Callable[[CancelToken], Generator[Event, None, None]]
    gives_way: bool = False
    overtakes: bool = False
    outlasts_closing: bool = False
    cancel: CancelToken = field(default_factory=CancelToken)
    is_paused: bool = False
    steps: Generator[Event, None, None] | None = None


class Lane:
    """Works on jobs in the order they come; one that overtakes goes before those that give way.

    A job that is paused holds up all but those that may overtake it.

    Every job ends with an event that says so, by its own steps or JobCancelled.

    tell: called with each Report, in the thread that works; of one that has not begun, in that
    which puts or cancels it, where it may not wait for the lane. Where several lanes share it, it
    is called from all their threads, also at once. What it raises is logged: others still want
    theirs.
    """

    def __init__(self, tell: Callable[[Report], None]) -> None:
        self._tell = tell
        self._jobs: list[Job] = []
        self._current: Job | None = None
        self._is_closed = self._has_ended = False
        self._changed = threading.Condition()

    def put(self, job: Job) -> None:
        """Take a job; if another is worked on it is told what it waits for."""
        with self._changed:
            if self._has_ended or (self._is_closed and not job.outlasts_closing):
                self._say(job, JobCancelled())
                return
            current = self._current
            self._jobs.append(job)
            self._changed.notify_all()
            # Before the lock goes, or the job could have ended when it is told that it waits.
            if current is not None:
                self._say(job, Waiting(current.number))

    def cancel(self, number: int) -> None:
        """Ask a job to end as soon as it can, paused or not; one that has ended is no matter.

        One that has not begun has ended when this returns.
        """
        with self._changed:
            for job in [job for job in self._jobs if job.number == number]:
                job.cancel.cancel()
                job.is_paused = False
                if job.steps is None and job is not self._current:
                    self._jobs.remove(job)
                    self._say(job, JobCancelled())
            self._changed.notify_all()

    def pause(self, number: int, paused: bool) -> None:
        """Hold a job between two of its steps, or let it go on."""
        with self._changed:
            for job in self._jobs:
                if job.number == number and not job.cancel.is_cancelled:
                    job.is_paused = paused
            self._changed.notify_all()

    def close(self) -> None:
        """Cancel all jobs but those that outlast this; `work` returns once these are done.

        Without any, that is after the step that is being made.
        """
        with self._changed:
            self._is_closed = True
            for job in self._jobs:
                if not job.outlasts_closing:
                    job.cancel.cancel()
            self._changed.notify_all()

    def work(self) -> None:
        """Work in this thread until the lane is closed and what outlasts that is done."""
        try:
            while (job := self._next()) is not None:
                self._go_on(job)
        finally:
            with self._changed:
                self._has_ended = True
                left, self._jobs = self._jobs, []
            for job in left:
                if job.steps is not None:
                    job.steps.close()
                self._say(job, JobCancelled())

    def _next(self) -> Job | None:
        with self._changed:
            while not self._is_closed:
                self._current = self._first()
                if self._current is not None:
                    return self._current
                self._changed.wait()
            self._current = next((job for job in self._jobs if job.outlasts_closing), None)
            return self._current

    def _first(self) -> Job | None:
        """Who may go now. Called with the lock held."""
        for job in self._jobs:
            if job.overtakes and not job.is_paused:
                return job
            if not job.gives_way:
                break
        first = self._jobs[0] if self._jobs else None
        return None if first is None or first.is_paused else first

    def _go_on(self, job: Job) -> None:
        """Make steps of `job` until it ends, or another goes before it."""
        while True:
            event = self._step(job)
            if event is None:
                with self._changed:
                    self._jobs.remove(job)
                return
            self._say(job, event)
            with self._changed:
                if self._is_closed or self._first() is not job:
                    return

    def _step(self, job: Job) -> Event | None:
        """What the next step gives; None if the job has ended, which is told."""
        try:
            if job.steps is None:
                job.steps = job.begin(job.cancel)
            return next(job.steps)
        except StopIteration:
            return None
        except Cancelled:
            end: Event = JobCancelled()
        except EngineError as error:
            log.info("A request could not be met: %s", error)
            end = failure(error)
        except Exception as error:
            log.exception("A request failed")
            end = failure(error)
        self._say(job, end)
        return None

    def _say(self, job: Job, event: Event) -> None:
        try:
            self._tell(Report(job.number, event))
        except Exception:
            log.exception("A report could not be taken")
