"""Reading and writing sessions on request: what is told, what is written, and without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bh_studio.engine.errors import Cancelled, CancelToken
from bh_studio.engine.execution import opening
from bh_studio.engine.execution.clerk import Clerk
from bh_studio.engine.protocol.events import Event, Failed, SessionRead, SessionWritten
from bh_studio.engine.protocol.requests import ModelFree, ReadSession, WriteSession
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.session_file import SESSION_WRITERS, load_session

ROOT = Path(__file__).resolve().parents[3]
SAVED = ROOT / "tests" / "data" / "former" / "sessions" / "schema_3.bhsession"


@pytest.fixture
def session() -> Session:
    return load_session(SAVED)


def answer(body: ModelFree) -> Event:
    (event,) = Clerk().answer(body, CancelToken())
    return event


def test_a_session_is_read(session: Session) -> None:
    read = answer(ReadSession(SAVED))
    assert isinstance(read, SessionRead)
    assert read.session.to_json() == session.to_json()


def test_experts_that_were_not_kept_are_not_written(session: Session, tmp_path: Path) -> None:
    told = answer(WriteSession(session, tmp_path / "a.npz", ".npz"))
    assert isinstance(told, Failed)
    assert told.message == "a.npz was not written."
    assert told.advice == "This session does not hold which experts ran; run it again."
    assert told.details == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", [form for form in SESSION_WRITERS if form != ".npz"])
def test_the_form_decides_what_is_written_and_folders_are_made(
    session: Session, tmp_path: Path, form: str
) -> None:
    path = tmp_path / "a" / "b" / "any.name"
    assert answer(WriteSession(session, path, form)) == SessionWritten(path)
    expected = tmp_path / "expected"
    SESSION_WRITERS[form](session, expected)
    if form == ".bhsession":
        assert load_session(path).to_json() == load_session(expected).to_json()
    else:
        assert path.read_bytes() == expected.read_bytes()
    if form == ".json":
        assert "sides" in json.loads(path.read_text())


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file or directory."), (b"", "(not a zip file).")]
)
def test_a_file_that_cannot_be_read_is_told_without_a_trace(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "bad.bhsession"
    if content is not None:
        path.write_bytes(content)
    failed = answer(ReadSession(path))
    assert isinstance(failed, Failed)
    assert failed.message == "bad.bhsession could not be opened."
    assert failed.advice.endswith(f"{reason} Nothing was changed.")
    assert failed.details == ""


def test_what_was_not_foreseen_is_told_with_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> Session:
        raise OverflowError("Too large")

    monkeypatch.setattr(opening, "open_session", fail)
    failed = answer(ReadSession(SAVED))
    assert isinstance(failed, Failed)
    assert failed.advice == "Too large. Nothing was changed."
    assert "OverflowError: Too large" in failed.details


def test_a_disk_that_refuses_is_told(session: Session, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    failed = answer(WriteSession(session, tmp_path / "file" / "a", ".csv"))
    assert isinstance(failed, Failed)
    assert failed.message.endswith(" could not be written.")
    assert failed.advice.endswith(". The run stays on screen; save it elsewhere.")
    assert failed.details == ""


def test_nothing_is_written_for_who_has_cancelled(session: Session, tmp_path: Path) -> None:
    cancel = CancelToken()
    cancel.cancel()
    body: Any
    for body in (WriteSession(session, tmp_path / "a", ".json"), ReadSession(SAVED)):
        with pytest.raises(Cancelled):
            next(Clerk().answer(body, cancel))
    assert list(tmp_path.iterdir()) == []


def test_a_service_reads_and_writes_without_torch(tmp_path: Path) -> None:
    code = """
import pathlib, queue, sys
from bh_studio.engine.execution.service import Service
from bh_studio.engine.protocol.requests import ListRuns, ReadSession, Request, WriteSession
source, folder = map(pathlib.Path, sys.argv[1:])
reports = queue.SimpleQueue()
service = Service(reports.put)
service.submit(Request(1, ReadSession(source)))
session = reports.get(timeout=30).event.session
service.submit(Request(2, WriteSession(session, folder / "run.csv", ".csv")))
service.submit(Request(3, ListRuns(folder / "none", source.parent)))
reports.get(timeout=30)
runs = reports.get(timeout=30).event.runs
service.close()
assert source in [run.path for run in runs]
assert len(list(folder.iterdir())) == 1
heavy = {"torch", "transformers", "tokenizers", "safetensors", "PySide6"}
assert heavy.isdisjoint(sys.modules), heavy & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(SAVED), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
