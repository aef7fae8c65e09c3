"""The file of a result: what the result says, what the header says, and going on from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bh_studio.engine.records.journal import Journal
from bh_studio.engine.records.result_document import Result, file_of, result_document

HEADER: dict[str, Any] = {
    "schema_version": 2,
    "kind": "evaluation",
    "settings": {"tokens": 3},
    "model": {"fingerprint": "f", "expert_path": "e"},
    "started_at": "then",
}


class Found:
    """A result that says of itself what it was made with."""

    def __init__(self, is_complete: bool = True, **content: Any) -> None:
        self.is_complete, self._content = is_complete, content

    def to_json(self) -> dict[str, Any]:
        return dict(self._content)


def document(out: Path | None, result: Result) -> dict[str, Any]:
    """The document of `result` after two rows, of which one was taken over; it is kept at `out`."""
    with Journal(out) as journal:
        if not journal.begin(HEADER):
            journal.add("x", {"a": 1})
            journal.add("y", {"a": "☃"})
        whole = result_document(journal, result)
        if result.is_complete:
            journal.finish(file_of(whole), holds_rows=True)
        return whole


def test_a_document_is_the_content_the_header_and_the_rows_that_were_kept() -> None:
    whole = document(None, Found(mean=2.5, kind="its own"))
    finished_at = whole.pop("finished_at")
    rows = [{"key": "x", "a": 1}, {"key": "y", "a": "☃"}]
    assert whole == {**HEADER, "mean": 2.5, "rows": rows, "complete": True}
    # In the order in which one reads it.
    assert list(whole)[:3] == ["mean", "kind", "rows"]
    assert finished_at[10] == "T"
    assert document(None, Found(is_complete=False))["complete"] is False


def test_a_result_may_say_its_rows_itself() -> None:
    rows = [{"key": "x", "a": 1, "b": 2}]
    assert document(None, Found(rows=rows))["rows"] == rows


def test_the_file_holds_the_document_and_the_next_run_goes_on_from_it(tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    whole = document(out, Found(mean=2.5))
    assert json.loads(out.read_bytes()) == whole
    assert '  {"key": "y", "a": "☃"}' in out.read_text("utf-8").splitlines()
    before = out.read_bytes()
    # What it said holds: it was finished then, and called what it was called then.
    assert document(out, Found(mean=2.5)) == whole
    assert document(out, Found(mean=3.5))["mean"] == 2.5
    assert out.read_bytes() == before


@pytest.mark.parametrize("name", ["finished_at", "complete"])
def test_a_document_says_when_it_ended_and_whether_it_is_whole(name: str) -> None:
    assert name in document(None, Found())
