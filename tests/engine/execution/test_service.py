"""Jobs on a real model: several in flight, whose events never cross and whose numbers hold."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bh_studio.engine.calibration.recorder import calibration_text
from bh_studio.engine.execution.service import Service
from bh_studio.engine.loading import LoadedModel, load_model
from bh_studio.engine.protocol.events import (
    Failed,
    Finished,
    JobCancelled,
    KlMeasured,
    LoadProgress,
    ModelInspected,
    ModelLoaded,
    Progress,
    Report,
    SessionRead,
    SessionWritten,
    TokenGenerated,
    Waiting,
)
from bh_studio.engine.protocol.experiments import Comparison, Evaluation, SameText, Sweep
from bh_studio.engine.protocol.requests import (
    Body,
    InspectModel,
    LoadModel,
    MeasureKl,
    ReadSession,
    Request,
    RunKept,
    WriteSession,
)
from bh_studio.engine.protocol.texts import Text
from bh_studio.engine.records.journal import Journal
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.session_file import SESSION_WRITERS, load_session
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules.parameters import RuleParameters
from tests.engine.experiments.running import result_of
from tests.tiny_olmoe import TOP_K, save_tiny_checkpoint

RULE = RuleParameters(level=0.1, max_k=TOP_K)
EVALUATION = Evaluation(
    texts=(Text("tale", calibration_text()[:2500]),), rules=(RULE,), with_controls=True,
    window=64, batch=2,
)  # fmt: skip
SAVED = Path(__file__).resolve().parents[2] / "data" / "former" / "sessions" / "schema_3.bhsession"
SWEEP = Sweep(
    prompts=("Once upon", "The king"), sides=(None, RULE), seeds=2,
    generation=GenerationParameters(12, seed=3),
)  # fmt: skip


def comparison(prompt: str = "Once upon a time", tokens: int = 8) -> Comparison:
    return Comparison(prompt=prompt, sides=(None, RULE), generation=GenerationParameters(tokens))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny-olmoe"))


@pytest.fixture(scope="module")
def alone(checkpoint: Path) -> LoadedModel:
    """The same model, on which nothing else goes on."""
    return load_model(str(checkpoint))


class Desk:
    """A service at work in a thread, and its reports as they come.

    hold: called with each report in the thread that makes it, before it comes here.
    """

    def __init__(self, hold: Callable[[Report], None] | None = None) -> None:
        self.reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._hold = hold
        self.service = Service(self._take)
        self._thread = threading.Thread(target=self.service.work)
        self._thread.start()
        self._jobs = 0

    def _take(self, report: Report) -> None:
        if self._hold is not None:
            self._hold(report)
        self.reports.put(report)

    def ask(self, body: Body) -> int:
        self._jobs += 1
        self.service.submit(Request(self._jobs, body))
        return self._jobs

    def until_ended(self, *jobs: int) -> list[Report]:
        """All reports until each of `jobs` has ended."""
        ends = (
            Finished | Failed | JobCancelled | ModelLoaded | ModelInspected
            | SessionRead | SessionWritten
        )  # fmt: skip
        reports, left = [], set(jobs)
        while left:
            report = self.reports.get(timeout=120)
            reports.append(report)
            if isinstance(report.event, ends):
                left.discard(report.job)
        return reports

    def until(self, job: int, kind: type) -> list[Report]:
        """All reports until `job` says something of `kind`."""
        reports = []
        while True:
            reports.append(self.reports.get(timeout=120))
            if reports[-1].job == job and isinstance(reports[-1].event, kind):
                return reports

    def close(self) -> None:
        self.service.close()
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.fixture
def desk(checkpoint: Path) -> Iterator[Desk]:
    desk = Desk()
    desk.until_ended(desk.ask(LoadModel(str(checkpoint))))
    yield desk
    desk.close()


def of(reports: list[Report], job: int) -> list[Any]:
    return [report.event for report in reports if report.job == job]


def document(reports: list[Report], job: int) -> Any:
    end = of(reports, job)[-1]
    assert isinstance(end, Finished)
    assert end.is_complete
    return end.document


def test_three_jobs_interleave_and_never_cross(desk: Desk, alone: LoadedModel) -> None:
    reports = []
    evaluation = desk.ask(EVALUATION)
    reports += desk.until(evaluation, Progress)
    sweep = desk.ask(SWEEP)
    run = desk.ask(comparison())
    reports += desk.until_ended(run)
    assert not any(isinstance(event, Finished) for event in of(reports, evaluation))
    again = desk.ask(comparison("The king said"))
    reports += desk.until_ended(again, evaluation, sweep)

    assert Waiting(evaluation) in of(reports, sweep)
    assert Waiting(evaluation) in of(reports, run)
    # The experiment was under way before and after each run.
    jobs = [report.job for report in reports if not isinstance(report.event, Waiting)]
    for job in (run, again):
        first = jobs.index(job)
        assert evaluation in jobs[:first]
        assert set(jobs[first : first + len(of(reports, job)) - 1]) == {job}
    assert jobs.index(evaluation) < jobs.index(run) < len(jobs) - jobs[::-1].index(evaluation)

    expected = result_of(alone, EVALUATION)
    found = document(reports, evaluation)
    for mine, other in zip(found.sums, expected.sums, strict=True):
        np.testing.assert_array_equal(mine.quality, other.quality)
        np.testing.assert_array_equal(mine.counts, other.counts)
        assert (mine.rows_read, mine.expert_rows) == (other.rows_read, other.expert_rows)
    answers = result_of(alone, SWEEP).answers
    assert {key: answer.token_ids for key, answer in document(reports, sweep).answers.items()} == {
        key: answer.token_ids for key, answer in answers.items()
    }
    for job, definition in ((run, comparison()), (again, comparison("The king said"))):
        session, same = document(reports, job), result_of(alone, definition)
        assert [r.token_ids for r in session.records] == [r.token_ids for r in same.records]
        tokens = [event for event in of(reports, job) if isinstance(event, TokenGenerated)]
        for side, record in enumerate(session.records):
            assert [t.token_id for t in tokens if t.side == side] == list(record.token_ids)


def test_a_text_that_a_person_waits_for_goes_before_an_experiment(desk: Desk) -> None:
    evaluation = desk.ask(EVALUATION)
    reports = desk.until(evaluation, Progress)
    sweep = desk.ask(SWEEP)
    text = SameText(text=Text("tale", "Once upon a time"), sides=(None, RULE))
    job = desk.ask(RunKept(text, Journal(None)))
    reports += desk.until_ended(job)
    assert not any(isinstance(event, Finished) for event in of(reports, evaluation))
    assert document(reports, job).is_complete
    assert {type(event) for event in of(reports, sweep)} == {Waiting}


def test_the_kl_of_answers_goes_before_an_experiment_and_can_be_given_up(
    desk: Desk, alone: LoadedModel
) -> None:
    evaluation = desk.ask(EVALUATION)
    reports = desk.until(evaluation, Progress)
    question = MeasureKl(alone.info, (None, RULE), (3, 4), (5, 6, 7))
    job = desk.ask(question)
    reports += desk.until(job, KlMeasured)
    assert not any(isinstance(event, Finished) for event in of(reports, evaluation))
    kl = of(reports, job)[-1].kl
    assert kl.shape == (2, 3)
    assert not kl[0].any()
    given_up = desk.ask(question)
    desk.service.cancel(given_up)
    run = desk.ask(comparison())
    reports = desk.until_ended(run)
    assert document(reports, run).records[1].token_ids
    # It may have been done by then.
    ends = [event for event in of(reports, given_up) if not isinstance(event, Waiting)]
    assert [type(event) for event in ends] in ([JobCancelled], [KlMeasured])


def test_cancelling_and_failing_leave_the_others(desk: Desk, alone: LoadedModel) -> None:
    evaluation = desk.ask(EVALUATION)
    reports = desk.until(evaluation, Progress)
    cancelled = desk.ask(SWEEP)
    desk.service.cancel(cancelled)
    failing = desk.ask(comparison(""))
    unknown = desk.ask(InspectModel("/nowhere"))
    reports += desk.until_ended(evaluation, cancelled, failing, unknown)
    (failed,) = (event for event in of(reports, failing) if isinstance(event, Failed))
    assert failed.message == "The prompt is empty."
    inspected = of(reports, unknown)[-1]
    assert isinstance(inspected, ModelInspected)
    assert inspected.problem
    assert of(reports, cancelled) == [Waiting(evaluation), JobCancelled()]
    np.testing.assert_array_equal(
        document(reports, evaluation).tokens, result_of(alone, EVALUATION).tokens
    )


def test_a_paused_experiment_holds_still_and_then_goes_on(desk: Desk, alone: LoadedModel) -> None:
    sweep = desk.ask(SWEEP)
    reports = desk.until(sweep, TokenGenerated)
    desk.service.pause(sweep)
    run = desk.ask(comparison())
    reports += desk.until_ended(run)
    # At most the step that was being made when the pause was asked for came before the run.
    begun = next(place for place, report in enumerate(reports) if report.job == run)
    assert all(report.job == run for report in reports[begun + 2 :])
    desk.service.resume(sweep)
    reports += desk.until_ended(sweep)
    answers = result_of(alone, SWEEP).answers
    assert {key: a.token_ids for key, a in document(reports, sweep).answers.items()} == {
        key: a.token_ids for key, a in answers.items()
    }


def test_a_run_asked_for_while_the_model_loads_waits_and_then_runs(checkpoint: Path) -> None:
    desk = Desk()
    try:
        load = desk.ask(LoadModel(str(checkpoint)))
        run = desk.ask(comparison())
        reports = desk.until_ended(load, run)
        assert isinstance(of(reports, load)[-1], ModelLoaded)
        assert document(reports, run).records[0].token_ids
    finally:
        desk.close()


def test_another_model_comes_after_the_experiment_with_the_former_one(
    desk: Desk, checkpoint: Path
) -> None:
    sweep = desk.ask(SWEEP)
    reports = desk.until(sweep, TokenGenerated)
    load = desk.ask(LoadModel(str(checkpoint)))
    reports += desk.until_ended(load, sweep)
    jobs = [report.job for report in reports if not isinstance(report.event, Waiting)]
    assert jobs == sorted(jobs)
    assert document(reports, sweep).is_complete


def test_closing_in_the_middle_leaves_the_model_as_it_was(desk: Desk) -> None:
    sweep = desk.ask(SWEEP)
    desk.until(sweep, TokenGenerated)
    desk.close()
    loaded = desk.service._host.loaded
    assert loaded is not None
    assert "forward" not in vars(loaded.model.model.layers[0].mlp.gate)


class Gate:
    """Holds the first report of a kind until it is opened, and knows the threads of all."""

    def __init__(self, kind: type) -> None:
        self.reached, self._opened = threading.Event(), threading.Event()
        self.threads: dict[int, set[threading.Thread]] = {}
        self._kind = kind

    def __call__(self, report: Report) -> None:
        self.threads.setdefault(report.job, set()).add(threading.current_thread())
        if isinstance(report.event, self._kind):
            self.reached.set()
            assert self._opened.wait(60)

    def open(self) -> None:
        self._opened.set()


@pytest.mark.parametrize("kind", [LoadProgress, TokenGenerated])
def test_a_session_is_read_while_the_model_loads_or_answers(
    checkpoint: Path, alone: LoadedModel, kind: type
) -> None:
    gate = Gate(kind)
    desk = Desk(gate)
    try:
        load, run = desk.ask(LoadModel(str(checkpoint))), desk.ask(comparison())
        assert gate.reached.wait(60)
        read = desk.ask(ReadSession(SAVED))
        reports = desk.until(read, SessionRead)
        assert not any(isinstance(event, Finished) for event in of(reports, run))
        gate.open()
        reports += desk.until_ended(run)
    finally:
        gate.open()
        desk.close()
    session = document(reports, run)
    expected = result_of(alone, comparison())
    assert [r.token_ids for r in session.records] == [r.token_ids for r in expected.records]
    assert of(reports, read)[0].session.to_json() == load_session(SAVED).to_json()
    assert gate.threads[read].isdisjoint(gate.threads[load] | {threading.current_thread()})
    assert not any(thread.is_alive() for thread in gate.threads[read])


def test_files_are_read_and_written_in_the_order_that_was_asked_for(tmp_path: Path) -> None:
    desk = Desk()
    try:
        session = of(desk.until(desk.ask(ReadSession(SAVED)), SessionRead), 1)[0].session
        path = tmp_path / "run.bhsession"
        jobs = [
            desk.ask(body)
            for body in (
                ReadSession(path),
                WriteSession(session, path, ".bhsession"),
                ReadSession(path),
                WriteSession(session, path, ".csv"),
                ReadSession(path),
            )
        ]
        reports = [r for r in desk.until_ended(*jobs) if not isinstance(r.event, Waiting)]
    finally:
        desk.close()
    assert [report.job for report in reports] == jobs
    kinds = [type(report.event) for report in reports]
    assert kinds == [Failed, SessionWritten, SessionRead, SessionWritten, Failed]


def test_closing_lets_what_is_to_be_written_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = load_session(SAVED)
    begun, gate = threading.Event(), threading.Event()
    write = SESSION_WRITERS[".json"]

    def slow(session: Session, path: Path) -> None:
        begun.set()
        assert gate.wait(60)
        write(session, path)

    monkeypatch.setitem(SESSION_WRITERS, ".json", slow)
    desk = Desk()
    first = desk.ask(WriteSession(session, tmp_path / "first.json", ".json"))
    assert begun.wait(60)
    read = desk.ask(ReadSession(SAVED))
    cancelled = desk.ask(WriteSession(session, tmp_path / "cancelled.csv", ".csv"))
    desk.service.cancel(cancelled)
    desk.ask(WriteSession(session, tmp_path / "kept" / "one.bhsession", ".bhsession"))
    # What `close` begins with; it would wait for the gate.
    desk.service._model_free.close()
    assert not list(tmp_path.iterdir())
    gate.set()
    desk.close()
    assert not desk.service._thread.is_alive()
    (one,) = (tmp_path / "kept").iterdir()
    assert load_session(one).prompt == session.prompt
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"first.json", "kept"}
    reports = [desk.reports.get() for _ in range(desk.reports.qsize())]
    assert SessionWritten(tmp_path / "first.json") in of(reports, first)
    assert JobCancelled() in of(reports, cancelled)
    assert not any(isinstance(event, SessionRead) for event in of(reports, read))


def test_a_service_that_was_asked_for_no_file_closes() -> None:
    desk = Desk()
    desk.close()
    assert desk.service._thread.ident is None
