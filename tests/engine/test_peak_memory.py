"""Small files take little memory, whatever they claim: the whole process is weighed."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bh_studio.engine.records.session_file import load_session
from tests.damaged_arrays import npy, with_member
from tests.peak_memory import ROOM, weighed

FORMER = Path(__file__).parents[1] / "data" / "former"
SESSION = FORMER / "sessions" / "schema_3.bhsession"
NULL = FORMER / "calibrations" / "probability.npz"
SWEEP = FORMER / "results" / "116cce4" / "whole_sweep.json"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def session_with(text: Callable[[str], str]) -> bytes:
    with zipfile.ZipFile(SESSION) as bundle:
        document = bundle.read("session.json").decode()
    return with_member(SESSION.read_bytes(), "session.json", text(document).encode())


def in_environment(value: str) -> Callable[[str], str]:
    def put(text: str) -> str:
        document = json.loads(text)
        document["environment"] = {"x": 0}
        return json.dumps(document).replace('"x": 0', f'"x": {value}')

    return put


def alike(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(shape, np.float32))
    return file.getvalue()


def unpredictable(count: int) -> str:
    """Lists of nothing that no packing makes a hundred times as small."""
    drawn = np.random.default_rng(0).integers(0, 2, count // 4)
    return "[" + ",".join(np.where(drawn, "[],[[]],[]", "[[]],[],{}").tolist()) + "]"


def with_arrays(change: Callable[[bytes], bytes]) -> bytes:
    with zipfile.ZipFile(SESSION) as bundle:
        arrays = bundle.read("arrays.npz")
    return with_member(SESSION.read_bytes(), "arrays.npz", change(arrays))


UNCLOSED = npy("{'descr': '<f4', 'shape': (2, 3,")
HUGE = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (16, 1000000000, 64), }")
DEEP = "[" * 10**5 + "]" * 10**5
CASES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "a session that says nothing at length": (
        "a.bhsession", lambda: session_with(in_environment("[" + "[]," * 6 * 10**7 + "0]")),
        "more than numbers or a text can",
    ),
    "one that is not packed as well": (
        "a.bhsession", lambda: session_with(in_environment(unpredictable(10**7))),
        "its session.json would take",
    ),
    "a session with arrays of no use": (
        "a.bhsession",
        lambda: with_arrays(lambda a: with_member(a, "x.npy", bytes(10**7), 0)),
        "arrays.npz would unpack to",
    ),
    "a session nested deep": (
        "a.bhsession", lambda: session_with(in_environment(DEEP)), "session.json",
    ),
    "an unclosed header in a session": (
        "a.bhsession",
        lambda: with_arrays(lambda a: with_member(a, "bh_raw_counts.npy", UNCLOSED)),
        "a.bhsession is damaged: its array has no header that is known.",
    ),
    "an unclosed header": (
        "a.npz", lambda: with_member(NULL.read_bytes(), "logits.npy", UNCLOSED),
        "a.npz is damaged: its array has no header that is known.",
    ),
    "a null of zeros": (
        "a.npz", lambda: with_member(NULL.read_bytes(), "logits.npy", alike((2, 10**7, 8))),
        "more than numbers or a text can",
    ),
    "a null of more tokens than it says": (
        "a.npz", lambda: with_member(NULL.read_bytes(), "logits.npy", alike((2, 10**5, 8))),
        "its header does not fit its router logits",
    ),
    "a null that claims a huge shape": (
        "a.npz", lambda: with_member(NULL.read_bytes(), "logits.npy", HUGE),
        "does not fit the shape",
    ),
    "an archive of nothing but names": ("a.npz", lambda: many_members(10**5), "far more members"),
    "a result with huge rows": (
        "a.json",
        lambda: SWEEP.read_bytes().replace(b'"rows": [', b'"rows": [' + b"[]," * 10**7),
        "would take",
    ),
    "a result nested deep": (
        "a.json", lambda: SWEEP.read_bytes().replace(b'"rows": [', f'"rows": [{DEEP},'.encode()),
        "it is not valid JSON",
    ),
}  # fmt: skip


def many_members(count: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as bundle:
        for number in range(count):
            bundle.writestr(f"{number}.npy", b"")
    return file.getvalue()


@pytest.mark.parametrize("name", CASES)
def test_what_claims_much_takes_little_and_is_refused(name: str, tmp_path: Path) -> None:
    file, make, sentence = CASES[name]
    path = tmp_path / file
    path.write_bytes(make())
    found = weighed("read", path)
    assert found.said.startswith("InputError: ")
    assert sentence in found.said
    assert found.grown < ROOM + 4 * path.stat().st_size


@pytest.mark.parametrize("reader", ["definition", "journal"])
def test_other_documents_of_nothing_too(reader: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"kind": "sweep", "rows": [' + "[]," * 10**7 + "0]}")
    found = weighed(reader, path)
    assert found.said.startswith("InputError: ")
    assert found.grown < ROOM + 4 * path.stat().st_size


def test_a_huge_text_takes_what_it_is_worth(tmp_path: Path) -> None:
    path = tmp_path / "a.bhsession"
    words = " ".join(map(str, np.random.default_rng(0).integers(0, 10**9, 2 * 10**6)))

    def long(text: str) -> str:
        document = json.loads(text)
        document["prompt"] = f"{words} 👑"
        return json.dumps(document, ensure_ascii=False)

    path.write_bytes(session_with(long))
    found = weighed("session", path)
    assert found.said == ""
    assert found.grown < ROOM + 4 * len(words)


@pytest.mark.parametrize("path", sorted(FORMER.rglob("*.bhsession")), ids=lambda path: path.stem)
def test_what_was_written_is_far_from_any_bound(path: Path) -> None:
    load_session(path)
    found: Any = weighed("session", path)
    assert found.said == ""
    assert found.grown < ROOM
