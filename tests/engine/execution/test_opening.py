"""What is opened and written beside sessions: texts, and what sides made of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bh_studio.engine.errors import CancelToken, InputError
from bh_studio.engine.execution.clerk import Clerk
from bh_studio.engine.protocol.events import Event, Failed, ResultRead, ResultWritten, TextRead
from bh_studio.engine.protocol.requests import ModelFree, ReadSession, ReadText, WriteResult
from bh_studio.engine.protocol.texts import Text
from bh_studio.engine.reading import Result, read
from bh_studio.engine.records.same_text.csv_rows import csv_text
from bh_studio.engine.rules.parameters import RuleParameters
from tests.fake_engine import MODEL
from tests.text_results import text_document

DATA = Path(__file__).resolve().parents[2] / "data" / "former"
RESULT, DOCUMENT = text_document(MODEL, (None, RuleParameters()), "Once upon a time")


def answer(body: ModelFree) -> Event:
    (event,) = Clerk().answer(body, CancelToken())
    return event


def test_a_result_is_written_as_the_command_line_writes_it_and_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "tale.json"
    assert answer(WriteResult(RESULT, DOCUMENT, path, ".json")) == ResultWritten(path)
    found = read(path)
    assert isinstance(found, Result)
    assert found.is_complete
    assert found.kind == "same-text"
    assert found.document == json.loads(json.dumps(DOCUMENT))
    opened = answer(ReadSession(path))
    assert isinstance(opened, ResultRead)
    assert opened.result.to_json() == RESULT.to_json()
    again = tmp_path / "again.json"
    answer(WriteResult(opened.result, opened.document, again, ".json"))
    assert again.read_bytes() == path.read_bytes()


def test_its_rows_are_written_as_csv(tmp_path: Path) -> None:
    path = tmp_path / "tale.txt"
    assert answer(WriteResult(RESULT, DOCUMENT, path, ".csv")) == ResultWritten(path)
    assert path.read_bytes() == csv_text(RESULT).encode()


def test_a_disk_that_refuses_a_result_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    failed = answer(WriteResult(RESULT, DOCUMENT, tmp_path / "file" / "a.json", ".json"))
    assert isinstance(failed, Failed)
    assert failed.message == "a.json could not be written."
    assert failed.details == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"kind": "same-text"', "is damaged"),
        ("{}", "it is neither a session, a recording of router logits nor a result"),
        (json.dumps({**DOCUMENT, "schema_version": 99}), "has schema version 99"),
        (json.dumps({**DOCUMENT, "token_ids": [1]}), "is damaged"),
        (json.dumps({**DOCUMENT, "rows": 5}), "is damaged"),
        (json.dumps({**DOCUMENT, "note": "\ud800"}), "a character that is no JSON"),
    ],
)
def test_what_is_no_such_result_is_told_in_a_sentence(
    tmp_path: Path, content: str, words: str
) -> None:
    path = tmp_path / "tale.json"
    path.write_text(content)
    failed = answer(ReadSession(path))
    assert isinstance(failed, Failed)
    assert failed.message == "tale.json could not be opened."
    assert words in failed.advice
    assert failed.advice.endswith(" Nothing was changed.")
    assert failed.details == ""


def test_another_result_is_not_taken_for_one(tmp_path: Path) -> None:
    files = sorted(DATA.rglob("*sweep*.json"))
    assert files
    failed = answer(ReadSession(files[0]))
    assert isinstance(failed, Failed)
    assert "something else than a text that all sides read" in failed.advice


def test_what_is_too_long_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "long.json"
    path.write_text("{")
    os.truncate(path, 2**40)
    failed = answer(ReadSession(path))
    assert isinstance(failed, Failed)
    assert "is longer than the 32 MiB that a result may have here." in failed.advice


def test_a_text_is_read_under_the_name_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "tale.txt"
    path.write_bytes("\ufeffA tale\r\nof a möwe".encode())
    read_text = answer(ReadText(path, 2**20))
    assert read_text == TextRead(Text("tale.txt", "A tale\r\nof a möwe"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file or directory."),
        (b" \n", "is empty."),
        (b"\xff\xfe\xfa", "is not UTF-16 text"),
        (b"x" * (2**20 + 1), "is longer than the 1 MiB that a text may have."),
    ],
)
def test_a_text_that_cannot_be_read_is_told(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "tale.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        answer(ReadText(path, 2**20))


def test_it_loads_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "tale.json"
    answer(WriteResult(RESULT, DOCUMENT, path, ".json"))
    code = """
import pathlib, sys
from bh_studio.engine.errors import CancelToken
from bh_studio.engine.execution.clerk import Clerk
from bh_studio.engine.protocol.requests import ReadSession
(event,) = Clerk().answer(ReadSession(pathlib.Path(sys.argv[1])), CancelToken())
print(type(event).__name__, "torch" in sys.modules)
"""
    command = [sys.executable, "-c", code, str(path)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout.split() == ["ResultRead", "False"]
