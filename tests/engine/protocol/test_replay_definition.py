"""What a replay is, as a value: what decides its rows, its way through JSON, its file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bh_studio.engine.errors import InputError
from bh_studio.engine.protocol import logits_files
from bh_studio.engine.protocol.experiments import NullSource, Replay, kind_of
from bh_studio.engine.protocol.logits_files import LogitsFile, read_logits_file
from bh_studio.engine.rules.text import parse_rule

FILE = LogitsFile("a.npz", b"\x00logits\xff")
NULL = LogitsFile("null.npz", b"null")


def test_all_that_decides_the_rows_is_in_its_settings() -> None:
    rules = (parse_rule("bh:0.1"), parse_rule("top-k:4"))
    whole = Replay(logits=FILE, null=NULL, skip=2, top_k=4, rules=rules)
    assert kind_of(whole) == "replay"
    assert whole.settings() == {
        "logits": hashlib.sha256(FILE.content).hexdigest(),
        "null": hashlib.sha256(NULL.content).hexdigest(),
        "skip": 2,
        "top_k": 4,
        "rules": ["bh:0.1", "top-k:4"],
    }
    # Not the names of its files.
    renamed = Replay(
        logits=LogitsFile("b.npz", FILE.content), null=NULL, skip=2, top_k=4, rules=rules
    )
    assert renamed.settings() == whole.settings()
    assert Replay(logits=FILE).settings()["null"] == "own"
    left_out = Replay(logits=FILE, null=NullSource.LEAVE_ONE_OUT)
    assert left_out.settings()["null"] == "leave-one-out"


@pytest.mark.parametrize("null", [NULL, *NullSource])
def test_it_comes_back_from_json_as_it_was(null: LogitsFile | NullSource) -> None:
    whole = Replay(logits=FILE, null=null, rules=(parse_rule("top-p:0.5,max_k=4"),))
    assert msgspec.json.decode(msgspec.json.encode(whole), type=Replay) == whole


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"skip": -1}, "skip must be at least 0; got -1."),
        ({"rules": (parse_rule("bh:0.1"),) * 2}, "The rule bh:0.1 is given twice"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Replay(logits=FILE, **values)


def test_a_file_is_read_whole_under_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(FILE.content)
    assert read_logits_file(path) == FILE
    assert "logits" not in repr(FILE)


def test_a_file_that_is_too_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logits_files, "_MOST_BYTES", 2**30)
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        file.truncate(2**30 + 1)  # takes no place on the disk
    with pytest.raises(InputError, match="longer than the 1 GiB that a file of router logits may"):
        read_logits_file(path)
