"""Runs are kept while they go on, whatever becomes of them, and never in the way of the answer."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from bh_studio.engine.errors import CancelToken, EngineError
from bh_studio.engine.execution.host import Host
from bh_studio.engine.protocol.events import (
    Event,
    Finished,
    KeptIn,
    Notice,
    PromptRead,
    SideFinished,
    TokenGenerated,
)
from bh_studio.engine.protocol.experiments import Batch, Comparison
from bh_studio.engine.protocol.requests import LoadModel
from bh_studio.engine.records.rows import FilePrompt
from bh_studio.engine.records.runs import writer
from bh_studio.engine.records.runs.lines import EndLine, RunEnd
from bh_studio.engine.records.runs.reader import load_run, read_end
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import FinishReason, GenerationParameters
from bh_studio.engine.rules.parameters import RuleParameters
from tests.tiny_olmoe import TOP_K, save_tiny_checkpoint

RULE = RuleParameters(level=0.1, max_k=TOP_K)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny-olmoe"))


@pytest.fixture(scope="module")
def loaded_host(checkpoint: Path) -> Host:
    host = Host()
    for _ in host.answer(LoadModel(str(checkpoint)), CancelToken()):
        pass
    return host


@pytest.fixture
def host(loaded_host: Host, tmp_path: Path) -> Host:
    host = Host(tmp_path / "runs")
    host.loaded = loaded_host.loaded
    return host


def comparison(prompt: str = "Once upon a time", tokens: int = 8) -> Comparison:
    generation = GenerationParameters(tokens, sampling=False)
    return Comparison(prompt=prompt, sides=(None, RULE), generation=generation)


def folder_of(events: list[Event]) -> Path:
    (folder,) = (event.folder for event in events if isinstance(event, KeptIn))
    return folder


def session_of(events: list[Event]) -> Session:
    finished = events[-1]
    assert isinstance(finished, Finished)
    session: Session = finished.document
    return session


def kept_folders(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "runs").glob("*/*/*"))


def test_a_run_is_in_its_folder_when_its_end_is_told(host: Host, tmp_path: Path) -> None:
    for event in host.answer(comparison(), CancelToken()):
        if isinstance(event, Finished):
            (folder,) = kept_folders(tmp_path)
            session: Session = event.document
            assert load_run(folder).to_json() == session.to_json()
            assert read_end(folder) == EndLine(RunEnd.COMPLETE, session.finished_at)
            break
    else:
        pytest.fail("It has no end.")


def test_the_folder_is_told_before_the_first_token(host: Host, tmp_path: Path) -> None:
    events = list(host.answer(comparison(), CancelToken()))
    kinds = [type(event) for event in events]
    assert kinds.index(KeptIn) < kinds.index(PromptRead) < kinds.index(TokenGenerated)
    assert [folder_of(events)] == kept_folders(tmp_path)
    assert kinds.count(PromptRead) == 2


def test_a_stopped_run_is_kept_as_such(host: Host) -> None:
    cancel, events = CancelToken(), []
    for event in host.answer(comparison(), cancel):
        events.append(event)
        if sum(isinstance(one, TokenGenerated) for one in events) == 4:
            cancel.cancel()
    folder, session = folder_of(events), session_of(events)
    assert load_run(folder).to_json() == session.to_json()
    assert read_end(folder) == EndLine(RunEnd.STOPPED, session.finished_at)


def test_a_run_that_nobody_listens_to_any_more_is_kept(host: Host) -> None:
    answered = host.answer(comparison(), CancelToken())
    events = [next(answered) for _ in range(9)]
    answered.close()
    end = read_end(folder_of(events))
    assert end is not None
    assert end.how is RunEnd.STOPPED
    assert load_run(folder_of(events)).is_broken_off


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("CUDA out of memory."), "CUDA out of memory."),
        (EngineError("The model gave out.", "Load it again."), "The model gave out."),
    ],
)
def test_a_run_that_fails_is_kept_as_far_as_it_came(
    host: Host, error: Exception, message: str
) -> None:
    assert host.loaded is not None
    calls = iter(range(100))

    def failing(*_: object, **__: object) -> None:
        if next(calls) == 9:
            raise error

    handle = host.loaded.model.model.layers[1].register_forward_pre_hook(failing)
    events: list[Event] = []
    with pytest.raises(type(error)):
        events.extend(host.answer(comparison(), CancelToken()))
    handle.remove()
    said = [event for event in events if isinstance(event, TokenGenerated)]
    assert len(said) == 9
    found = load_run(folder_of(events))
    assert [len(record.token_ids) for record in found.records] == [5, 4]
    assert all(record.finish_reason is FinishReason.BROKEN_OFF for record in found.records)
    assert found.records[0].text == "".join(event.text for event in said if event.side == 0)
    end = read_end(folder_of(events))
    assert end is not None
    assert (end.how, end.message) == (RunEnd.FAILED, message)


def test_a_run_of_which_no_prompt_was_read_leaves_nothing(host: Host, tmp_path: Path) -> None:
    with pytest.raises(EngineError):
        list(host.answer(comparison(prompt="a" * 5000), CancelToken()))
    cancel = CancelToken()
    cancel.cancel()
    list(host.answer(comparison(), cancel))
    assert kept_folders(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_told_and_the_answer_comes(
    host: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "runs").write_text("a file in the way")
    events = list(host.answer(comparison(), CancelToken()))
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert notices[-1] == f"This run is not kept in {tmp_path / 'runs'}: Not a directory."
    assert len(session_of(events).records[1].token_ids) == 8
    # A warning would say it once more on standard error.
    assert all(record.levelno < logging.WARNING for record in caplog.records)


@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_disk_that_becomes_full_is_told_once_and_the_answer_comes(
    host: Host, monkeypatch: pytest.MonkeyPatch, at_the_end: bool
) -> None:
    full = threading.Event()

    def refuse(descriptor: int) -> None:
        full.set()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "os", SimpleNamespace(fsync=refuse))
    if not at_the_end:
        monkeypatch.setattr(writer, "_FLUSH_SECONDS", 0.001)
        monkeypatch.setattr(writer, "_SYNC_SECONDS", 0.0)
    events: list[Event] = []
    for event in host.answer(comparison(), CancelToken()):
        events.append(event)
        if not at_the_end and len(events) == 10:
            assert full.wait(10)
    said = [event.text for event in events if isinstance(event, Notice)]
    assert said.count("The run is not kept to its end: No space left on device.") == 1
    assert len(session_of(events).records[1].token_ids) == 8


def test_an_answer_does_not_wait_for_the_disk(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = threading.Event()

    def slow(descriptor: int) -> None:
        assert held.wait(60)

    monkeypatch.setattr(writer, "os", SimpleNamespace(fsync=slow))
    monkeypatch.setattr(writer, "_SYNC_SECONDS", 0.0)
    for event in host.answer(comparison(), CancelToken()):
        if isinstance(event, SideFinished):
            (folder,) = kept_folders(tmp_path)
            assert read_end(folder) is None
            held.set()
    assert read_end(folder) is not None


def test_what_keeps_its_rows_elsewhere_is_not_kept_here(host: Host, tmp_path: Path) -> None:
    one = comparison()
    prompts = (FilePrompt(1, one.prompt),)
    batch = Batch(prompts=prompts, prompts_sha256="", sides=one.sides, generation=one.generation)
    assert isinstance(list(host.answer(batch, CancelToken()))[-1], Finished)
    assert kept_folders(tmp_path) == []
