"""Whose turn it is: order, giving way, pausing, cancelling, failing. No model, no sleep."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from bh_studio.engine.errors import Cancelled, CancelToken, EngineError
from bh_studio.engine.execution.lane import Job, Lane
from bh_studio.engine.protocol.events import (
    Event,
    Failed,
    JobCancelled,
    Notice,
    Report,
    Waiting,
)

Steps = Generator[Event, None, None]


class Desk:
    """A lane that works in a thread of its own, and what it says."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self._said = threading.Condition()
        self.lane = Lane(self._take)
        self._thread = threading.Thread(target=self.lane.work)
        self._thread.start()

    def _take(self, report: Report) -> None:
        with self._said:
            self.reports.append(report)
            self._said.notify_all()

    def wait(self, is_so: Callable[[], bool]) -> None:
        with self._said:
            assert self._said.wait_for(is_so, timeout=30)

    def texts(self) -> list[tuple[int, str]]:
        return [(job, event.text) for job, event in self.reports if isinstance(event, Notice)]

    def has(self, job: int, kind: type) -> bool:
        return any(number == job and isinstance(event, kind) for number, event in self.reports)

    def close(self) -> None:
        self.lane.close()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.close()


class Script:
    """The steps of a job, each of which waits until the test lets it go."""

    def __init__(self, steps: int, error: Exception | None = None) -> None:
        self.gate = threading.Semaphore(0)
        self.begun = threading.Event()
        self.is_closed = False
        self._steps, self._error = steps, error

    def __call__(self, cancel: CancelToken) -> Steps:
        try:
            for number in range(self._steps):
                self.begun.set()
                assert self.gate.acquire(timeout=30)
                if cancel.is_cancelled:
                    raise Cancelled
                yield Notice(str(number))
            if self._error is not None:
                raise self._error
        finally:
            self.is_closed = True

    def go(self, steps: int = 1) -> None:
        self.gate.release(steps)


def job(number: int, script: Script, **values: Any) -> Job:
    return Job(number, script, **values)


def test_jobs_are_done_in_the_order_they_come(desk: Desk) -> None:
    first, second = Script(2), Script(2)
    desk.lane.put(job(1, first))
    desk.lane.put(job(2, second))
    for script in (second, first):
        script.go(2)
    desk.wait(lambda: len(desk.texts()) == 4)
    assert desk.texts() == [(1, "0"), (1, "1"), (2, "0"), (2, "1")]


def test_one_that_overtakes_goes_first_and_the_other_goes_on(desk: Desk) -> None:
    long, waiting, short = Script(3), Script(1), Script(2)
    desk.lane.put(job(1, long, gives_way=True))
    assert long.begun.wait(30)
    desk.lane.put(job(2, waiting, gives_way=True))
    desk.lane.put(job(3, short, overtakes=True))
    assert desk.reports == [Report(2, Waiting(1)), Report(3, Waiting(1))]
    for script in (long, short, waiting):
        script.go(3)
    desk.wait(lambda: len(desk.texts()) == 6)
    # The step that was being made comes first: nothing is interrupted within one.
    assert desk.texts() == [(1, "0"), (3, "0"), (3, "1"), (1, "1"), (1, "2"), (2, "0")]


def test_nothing_goes_before_one_that_gives_no_way(desk: Desk) -> None:
    load, run = Script(2), Script(1)
    desk.lane.put(job(1, load))
    assert load.begun.wait(30)
    desk.lane.put(job(2, run, overtakes=True))
    load.go(2)
    run.go()
    desk.wait(lambda: len(desk.texts()) == 3)
    assert desk.texts() == [(1, "0"), (1, "1"), (2, "0")]


def test_nothing_overtakes_what_waits_for_its_undivided_turn(desk: Desk) -> None:
    experiment, load, run = Script(2), Script(1), Script(1)
    desk.lane.put(job(1, experiment, gives_way=True))
    assert experiment.begun.wait(30)
    desk.lane.put(job(2, load))
    desk.lane.put(job(3, run, overtakes=True))
    for script in (experiment, load, run):
        script.go(2)
    desk.wait(lambda: len(desk.texts()) == 4)
    assert desk.texts() == [(1, "0"), (1, "1"), (2, "0"), (3, "0")]


def test_a_paused_job_lets_those_go_that_overtake_and_then_goes_on(desk: Desk) -> None:
    long, short, later = Script(2), Script(1), Script(1)
    desk.lane.put(job(1, long, gives_way=True))
    assert long.begun.wait(30)
    desk.lane.pause(1, True)
    long.go(2)
    desk.wait(lambda: len(desk.texts()) == 1)
    desk.lane.put(job(2, later, gives_way=True))
    desk.lane.put(job(3, short, overtakes=True))
    short.go()
    later.go()
    desk.wait(lambda: len(desk.texts()) == 2)
    desk.lane.pause(1, False)
    desk.wait(lambda: len(desk.texts()) == 4)
    assert desk.texts() == [(1, "0"), (3, "0"), (1, "1"), (2, "0")]


def test_cancelling_one_leaves_the_others(desk: Desk) -> None:
    first, second, third = Script(2), Script(2), Script(1)
    for number, script in enumerate((first, second, third), start=1):
        desk.lane.put(job(number, script, gives_way=True))
    assert first.begun.wait(30)
    desk.lane.cancel(2)
    desk.lane.cancel(17)
    for script in (first, second, third):
        script.go(2)
    desk.wait(lambda: len(desk.texts()) == 3)
    assert desk.texts() == [(1, "0"), (1, "1"), (3, "0")]
    assert [report.job for report in desk.reports if report.event == JobCancelled()] == [2]


def test_what_has_not_begun_has_ended_when_it_is_cancelled(desk: Desk) -> None:
    first, second = Script(1), Script(1)
    desk.lane.put(job(1, first, gives_way=True))
    assert first.begun.wait(30)
    desk.lane.put(job(2, second, gives_way=True))
    desk.lane.cancel(2)
    assert desk.reports == [Report(2, Waiting(1)), Report(2, JobCancelled())]
    desk.lane.cancel(2)
    first.go()
    desk.wait(lambda: len(desk.texts()) == 1)
    assert not second.begun.is_set()
    assert [report.job for report in desk.reports if report.event == JobCancelled()] == [2]


def test_a_paused_job_can_be_cancelled(desk: Desk) -> None:
    script = Script(2)
    desk.lane.put(job(1, script, gives_way=True))
    assert script.begun.wait(30)
    desk.lane.pause(1, True)
    script.go(2)
    desk.wait(lambda: len(desk.texts()) == 1)
    desk.lane.cancel(1)
    desk.wait(lambda: desk.has(1, JobCancelled))
    assert script.is_closed


@pytest.mark.parametrize(
    ("error", "message"),
    [(EngineError("It is full.", "Empty it."), "It is full."), (KeyError("x"), "Something went")],
)
def test_a_failure_ends_one_job_alone(desk: Desk, error: Exception, message: str) -> None:
    failing, other = Script(1, error), Script(1)
    desk.lane.put(job(1, failing, gives_way=True))
    desk.lane.put(job(2, other, gives_way=True))
    failing.go()
    other.go()
    desk.wait(lambda: len(desk.texts()) == 2)
    (failed,) = (report for report in desk.reports if isinstance(report.event, Failed))
    assert failed.job == 1
    assert isinstance(failed.event, Failed)
    assert failed.event.message.startswith(message)


def test_closing_ends_what_is_under_way_and_begins_nothing() -> None:
    desk = Desk()
    running, suspended, never = Script(3), Script(3), Script(1)
    desk.lane.put(job(1, suspended, gives_way=True))
    assert suspended.begun.wait(30)
    desk.lane.put(job(2, running, overtakes=True))
    desk.lane.put(job(3, never))
    suspended.go()
    assert running.begun.wait(30)
    running.go(1)
    desk.wait(lambda: len(desk.texts()) == 2)
    desk.lane.close()
    running.go(2)
    desk.close()
    assert running.is_closed
    assert suspended.is_closed
    assert not never.begun.is_set()
    desk.lane.put(job(4, never))
    ended = sorted(report.job for report in desk.reports if report.event == JobCancelled())
    assert ended == [1, 2, 3, 4]


def test_what_outlasts_closing_is_done_and_nothing_else() -> None:
    desk = Desk()
    running, paused, never, last = Script(2), Script(1), Script(1), Script(1)
    desk.lane.put(job(1, running))
    assert running.begun.wait(30)
    desk.lane.put(job(2, paused, outlasts_closing=True))
    desk.lane.pause(2, True)
    desk.lane.put(job(3, never))
    desk.lane.put(job(4, last, outlasts_closing=True))
    desk.lane.close()
    for script in (running, paused, last):
        script.go(2)
    desk.close()
    assert desk.texts() == [(2, "0"), (4, "0")]
    assert running.is_closed
    assert not never.begun.is_set()


def test_what_outlasts_closing_can_be_cancelled() -> None:
    desk = Desk()
    running, cancelled = Script(1), Script(1)
    desk.lane.put(job(1, running, outlasts_closing=True))
    assert running.begun.wait(30)
    desk.lane.put(job(2, cancelled, outlasts_closing=True))
    desk.lane.cancel(2)
    desk.lane.close()
    running.go()
    cancelled.go()
    desk.close()
    assert desk.texts() == [(1, "0")]
    assert desk.has(2, JobCancelled)


def test_a_job_is_told_that_it_waits_before_it_ends() -> None:
    told: list[Report] = []
    has_ended = threading.Event()

    def tell(report: Report) -> None:
        # As slow as a thread can be that is not given its turn.
        if isinstance(report.event, Waiting):
            has_ended.wait(0.2)
        told.append(report)
        if report == Report(2, Notice("0")):
            has_ended.set()

    lane = Lane(tell)
    first, second = Script(1), Script(1)
    thread = threading.Thread(target=lane.work)
    thread.start()
    lane.put(job(1, first))
    assert first.begun.wait(30)
    for script in (first, second):
        script.go()
    lane.put(job(2, second))
    assert has_ended.wait(30)
    lane.close()
    thread.join(30)
    assert [report.event for report in told if report.job == 2] == [Waiting(1), Notice("0")]


def test_who_does_not_take_a_report_stops_nobody() -> None:
    told: list[Report] = []
    is_told = threading.Event()

    def tell(report: Report) -> None:
        if report.job == 1:
            raise RuntimeError("gone")
        if isinstance(report.event, Notice):
            told.append(report)
            is_told.set()

    lane = Lane(tell)
    first, second = Script(2), Script(1)
    thread = threading.Thread(target=lane.work)
    thread.start()
    lane.put(job(1, first))
    assert first.begun.wait(30)
    lane.put(job(2, second))
    for script in (first, second):
        script.go(2)
    assert is_told.wait(30)
    lane.close()
    thread.join(30)
    assert first.is_closed
    assert told == [Report(2, Notice("0"))]
