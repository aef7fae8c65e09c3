"""The engine thread: requests in, events out, errors as events, and an end that is an end."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from PySide6.QtCore import QObject, Slot
from pytestqt.qtbot import QtBot

from bh_studio.engine.protocol.events import (
    CalibrationSaved,
    Event,
    Failed,
    Finished,
    JobCancelled,
    LoadProgress,
    LoadRefused,
    ModelInspected,
    ModelLoaded,
    ModelUnloaded,
    Report,
    SessionRead,
    TokenGenerated,
    Waiting,
)
from bh_studio.engine.protocol.experiments import Comparison
from bh_studio.engine.protocol.requests import (
    Body,
    InspectModel,
    LoadModel,
    ReadSession,
    Request,
    SaveCalibration,
    UnloadModel,
    WriteSession,
)
from bh_studio.engine.records.session_file import load_session
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.ui.engine_thread import Engine
from tests.tiny_olmoe import TOP_K, save_tiny_checkpoint

pytestmark = pytest.mark.usefixtures("collected")

# Every request ends with one of these, and has no other; ModelUnloaded ends UnloadModel alone.
FINAL = (
    ModelLoaded | LoadRefused | JobCancelled | ModelInspected | CalibrationSaved | Finished
    | Failed
)  # fmt: skip
Ask = Callable[..., list[Event]]
SAVED = Path(__file__).resolve().parents[1] / "data" / "former" / "sessions" / "schema_3.bhsession"


class Listener(QObject):
    """Keeps events, the jobs they are about and the thread they were delivered in."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.jobs: list[int] = []
        self.threads: set[int] = set()

    @Slot(object)
    def take(self, report: Report) -> None:
        if isinstance(report.event, Waiting):
            return
        self.jobs.append(report.job)
        self.events.append(report.event)
        self.threads.add(threading.get_ident())

    def job_and_kind(self) -> tuple[int, type]:
        return self.jobs[-1], type(self.events[-1])

    def last(self) -> Event | None:
        return self.events[-1] if self.events else None


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny-olmoe"))


@pytest.fixture
def engine(qapp: object) -> Iterator[Engine]:
    engine = Engine()
    engine.start()
    yield engine
    engine.shutdown()
    assert engine._thread.isFinished()


@pytest.fixture
def listener(engine: Engine) -> Listener:
    listener = Listener()
    engine.reported.connect(listener.take)
    return listener


def run_request(tokens: int = 8, prompt: str = "Once upon a time") -> Comparison:
    return Comparison(
        prompt=prompt,
        sides=(None, RuleParameters(level=0.1, max_k=TOP_K)),
        generation=GenerationParameters(tokens),
    )


def test_loads_runs_and_reports_in_the_receivers_thread(
    engine: Engine, listener: Listener, checkpoint: Path, qtbot: QtBot
) -> None:
    engine.submit(Request(1, LoadModel(str(checkpoint))))
    qtbot.waitUntil(lambda: isinstance(listener.last(), ModelLoaded), timeout=60_000)
    engine.submit(Request(2, run_request()))
    qtbot.waitUntil(lambda: isinstance(listener.last(), Finished), timeout=60_000)
    assert sum(isinstance(event, TokenGenerated) for event in listener.events) == 16
    assert listener.threads == {threading.get_ident()}


def test_a_run_without_a_model_fails_and_the_engine_goes_on(
    engine: Engine, listener: Listener, checkpoint: Path, qtbot: QtBot
) -> None:
    engine.submit(Request(1, run_request()))
    qtbot.waitUntil(lambda: isinstance(listener.last(), Failed), timeout=60_000)
    failed = listener.last()
    assert isinstance(failed, Failed)
    assert failed.message == "No model is loaded."
    assert listener.jobs[-1] == 1
    engine.submit(Request(2, LoadModel(str(checkpoint / "missing"))))
    qtbot.waitUntil(lambda: listener.job_and_kind() == (2, Failed), timeout=60_000)
    engine.submit(Request(3, LoadModel(str(checkpoint))))
    qtbot.waitUntil(lambda: isinstance(listener.last(), ModelLoaded), timeout=60_000)
    engine.submit(Request(4, run_request(prompt="")))
    qtbot.waitUntil(lambda: isinstance(listener.last(), Failed), timeout=60_000)
    engine.submit(Request(5, run_request()))
    qtbot.waitUntil(lambda: isinstance(listener.last(), Finished), timeout=60_000)


def test_a_cancelled_load_says_so(
    engine: Engine, listener: Listener, checkpoint: Path, qtbot: QtBot
) -> None:
    engine.submit(Request(1, LoadModel(str(checkpoint))))
    engine.cancel(1)
    qtbot.waitUntil(lambda: isinstance(listener.last(), JobCancelled), timeout=60_000)


def test_shutting_down_stops_a_run(
    engine: Engine, listener: Listener, checkpoint: Path, qtbot: QtBot
) -> None:
    engine.submit(Request(1, LoadModel(str(checkpoint))))
    qtbot.waitUntil(lambda: isinstance(listener.last(), ModelLoaded), timeout=60_000)
    engine.submit(Request(2, run_request(tokens=100)))
    qtbot.waitUntil(lambda: isinstance(listener.last(), TokenGenerated), timeout=60_000)
    engine.shutdown()
    assert engine._thread.isFinished()


def test_files_are_reported_in_the_receivers_thread_and_written_before_the_end(
    engine: Engine, listener: Listener, tmp_path: Path, qtbot: QtBot
) -> None:
    engine.submit(Request(1, ReadSession(SAVED)))
    qtbot.waitUntil(lambda: isinstance(listener.last(), SessionRead), timeout=60_000)
    read = listener.last()
    assert isinstance(read, SessionRead)
    assert listener.threads == {threading.get_ident()}
    paths = [tmp_path / f"{number}.bhsession" for number in range(3)]
    for number, path in enumerate(paths, start=2):
        engine.submit(Request(number, WriteSession(read.session, path, ".bhsession")))
    engine.shutdown()
    for path in paths:
        assert load_session(path).prompt == read.session.prompt


@pytest.fixture
def ask(engine: Engine, listener: Listener, qtbot: QtBot) -> Ask:
    """Submits a request, and one more to see where its events end: all events of the first."""
    numbers = itertools.count(1)

    def submit(request: Body, is_cancelled: bool = False) -> list[Event]:
        listener.events.clear()
        listener.jobs.clear()
        mark = InspectModel("/the/end")
        job = next(numbers)
        engine.submit(Request(job, request))
        if is_cancelled:
            engine.cancel(job)
        engine.submit(Request(next(numbers), mark))
        qtbot.waitUntil(lambda: getattr(listener.last(), "request", None) is mark, timeout=60_000)
        events = listener.events[:-1]
        assert set(listener.jobs[:-1]) == {job}
        final = FINAL | ModelUnloaded if isinstance(request, UnloadModel) else FINAL
        assert [event for event in events if isinstance(event, final)] == events[-1:]
        return events

    return submit


def kinds(events: list[Event]) -> list[type]:
    """What happened, the steps of loading left out."""
    return [type(event) for event in events if not isinstance(event, LoadProgress)]


def broken(checkpoint: Path, folder: Path, name: str, content: str) -> str:
    shutil.copytree(checkpoint, folder)
    (folder / name).write_text(content)
    return str(folder)


def test_a_load_that_cannot_succeed_leaves_the_former_model(
    ask: Ask, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kinds(ask(LoadModel(str(checkpoint)))) == [ModelLoaded]
    source = str(checkpoint)
    fewer_layers = (
        (checkpoint / "config.json")
        .read_text()
        .replace('"num_hidden_layers": 3', '"num_hidden_layers": 4')
    )
    for request in (
        LoadModel("/nowhere"),
        LoadModel(source, device="gpu"),
        LoadModel(source, dtype="int8"),
        LoadModel(source, calibration=tmp_path / "missing.npz"),
        LoadModel(broken(checkpoint, tmp_path / "a", "tokenizer.json", "{")),
        LoadModel(broken(checkpoint, tmp_path / "b", "model.safetensors", "nothing")),
        LoadModel(broken(checkpoint, tmp_path / "c", "config.json", fewer_layers)),
    ):
        assert kinds(ask(request)) == [Failed], request
    assert kinds(ask(LoadModel(source), True)) == [JobCancelled]
    monkeypatch.setattr("bh_studio.engine.models.memory.free_bytes", lambda device: -(10**9))
    request = LoadModel(source)
    (refused,) = (event for event in ask(request) if not isinstance(event, LoadProgress))
    assert isinstance(refused, LoadRefused)
    assert refused.request is request
    assert "for its weights" in refused.message
    assert "load it anyway" in refused.advice
    assert not refused.needs[0].fits
    assert kinds(ask(run_request()))[-1] is Finished
    assert kinds(ask(replace(request, load_anyway=True))) == [ModelUnloaded, ModelLoaded]


def test_a_model_that_is_unloaded_answers_no_more(ask: Ask, checkpoint: Path) -> None:
    ask(LoadModel(str(checkpoint)))
    assert kinds(ask(UnloadModel())) == [ModelUnloaded]
    (failed,) = ask(run_request())
    assert isinstance(failed, Failed)
    assert (failed.message, failed.advice) == ("No model is loaded.", "Load a model first.")
    assert kinds(ask(UnloadModel())) == [ModelUnloaded]


def test_inspecting_is_answered_whatever_is_loaded(ask: Ask, checkpoint: Path) -> None:
    request = InspectModel(str(checkpoint), dtype="float32")
    (before,) = ask(request)
    ask(LoadModel(str(checkpoint), dtype="float32"))
    (after,) = ask(request)
    for found in (before, after):
        assert isinstance(found, ModelInspected)
        assert found.request is request
        assert (found.device, found.dtype, found.problem) == ("cpu", "float32", "")
    (wrong,) = ask(InspectModel("/nowhere"))
    assert isinstance(wrong, ModelInspected)
    assert "no config.json" in wrong.problem


def test_a_calibration_is_saved_and_used_by_its_own_model_only(
    ask: Ask, checkpoint: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "null.npz"
    (failed,) = ask(SaveCalibration(saved))
    assert isinstance(failed, Failed)
    assert failed.message == "No model is loaded."
    first = ask(LoadModel(str(checkpoint)))[-1]
    assert ask(SaveCalibration(saved)) == [CalibrationSaved(saved)]
    (failed,) = ask(SaveCalibration(tmp_path / "null.npz" / "inside.npz"))
    assert isinstance(failed, Failed)
    assert "could not be written" in failed.message
    again = ask(LoadModel(str(checkpoint), calibration=saved))
    assert kinds(again) == [ModelUnloaded, ModelLoaded]
    assert again[-1] == first
    assert "Preparing the null distributions" not in [
        event.stage for event in again if isinstance(event, LoadProgress)
    ]
    # Whether it fits is known only when the weights are there, and the former model is gone.
    *_, unloaded, failed = (
        event
        for event in ask(LoadModel(str(checkpoint), dtype="bfloat16", calibration=saved))
        if not isinstance(event, LoadProgress)
    )
    assert isinstance(unloaded, ModelUnloaded)
    assert isinstance(failed, Failed)
    assert f"{saved} cannot be used: This recording is of another model" in failed.message
    assert "bh-studio calibrate --out" in failed.advice
    assert kinds(ask(run_request())) == [Failed]
