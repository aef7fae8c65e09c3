"""The engine thread: requests in, events out, errors as events, and an end that is an end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QObject, Slot
from pytestqt.qtbot import QtBot

from bh_studio.engine.messages import (
    Event,
    Failed,
    GenerationParameters,
    LoadCancelled,
    LoadModel,
    ModelLoaded,
    RunComparison,
    RunFinished,
    TokenGenerated,
)
from bh_studio.engine.rule_parameters import RuleParameters
from bh_studio.engine.worker import Engine
from tests.tiny_olmoe import TOP_K, save_tiny_checkpoint


class Listener(QObject):
    """Keeps events and the thread they were delivered in."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.threads: set[int] = set()

    @Slot(object)
    def take(self, event: Event) -> None:
        self.events.append(event)
        self.threads.add(threading.get_ident())

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


def run_request(tokens: int = 8, prompt: str = "Once upon a time") -> RunComparison:
    return RunComparison(
        1, prompt, RuleParameters(level=0.1, max_k=TOP_K), GenerationParameters(tokens)
    )


def test_loads_runs_and_reports_in_the_receivers_thread(
    engine: Engine, listener: Listener, checkpoint: Path, qtbot: QtBot
) -> None:
    engine.submit(LoadModel(str(checkpoint)))
    qtbot.waitUntil(lambda: isinstance(listener.last(), ModelLoaded), timeout=60_000)
    engine.submit(run_request())
    qtbot.waitUntil(lambda: isinstance(listener.last(), RunFinished), timeout=60_000)
    assert sum(isinstance(event, TokenGenerated) for event in listener.events) == 16
    assert listener.threads == {threading.get_ident()}


def test_a_run_without_a_model_fails_and_the_engine_goes_on(
    engine: Engine, listener: Listener, checkpoint: Path, qtbot: QtBot
) -> None:
    engine.submit(run_request())
    qtbot.waitUntil(lambda: isinstance(listener.last(), Failed), timeout=60_000)
    failed = listener.last()
    assert isinstance(failed, Failed)
    assert failed.message == "No model is loaded."
    assert failed.run_id == 1
    engine.submit(LoadModel(str(checkpoint / "missing")))
    qtbot.waitUntil(lambda: getattr(listener.last(), "run_id", 1) is None, timeout=60_000)
    engine.submit(LoadModel(str(checkpoint)))
    qtbot.waitUntil(lambda: isinstance(listener.last(), ModelLoaded), timeout=60_000)
    engine.submit(run_request(prompt=""))
    qtbot.waitUntil(lambda: isinstance(listener.last(), Failed), timeout=60_000)
    engine.submit(run_request())
    qtbot.waitUntil(lambda: isinstance(listener.last(), RunFinished), timeout=60_000)


def test_a_cancelled_load_says_so(
    engine: Engine, listener: Listener, checkpoint: Path, qtbot: QtBot
) -> None:
    request = LoadModel(str(checkpoint))
    request.cancel.cancel()
    engine.submit(request)
    qtbot.waitUntil(lambda: isinstance(listener.last(), LoadCancelled), timeout=60_000)


def test_shutting_down_stops_a_run(
    engine: Engine, listener: Listener, checkpoint: Path, qtbot: QtBot
) -> None:
    engine.submit(LoadModel(str(checkpoint)))
    qtbot.waitUntil(lambda: isinstance(listener.last(), ModelLoaded), timeout=60_000)
    request = run_request(tokens=100)
    engine.submit(request)
    qtbot.waitUntil(lambda: isinstance(listener.last(), TokenGenerated), timeout=60_000)
    engine.shutdown()
    assert engine._thread.isFinished()
    assert request.cancel.is_cancelled
