"""Texts of people: UTF-8 in files that end."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from bh_studio.engine.errors import InputError
from bh_studio.engine.files import text
from bh_studio.engine.files.text import read_text


def test_it_is_what_python_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for data in (b"", b"a\r\nb\rc\n\r\r\n", "\ufeffä 日本 \x00\x1c\u2028😀".encode(), b"\n\n"):
        path.write_bytes(data)
        assert read_text(path) == path.read_text(encoding="utf-8")


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(InputError, match=re.escape(f"{path} cannot be read: No such file")):
        read_text(path)
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match=re.escape(f"{path} is not UTF-8 text.")):
        read_text(path)
    monkeypatch.setattr(text, "_MOST_BYTES", 4)
    path.write_bytes(b"four")
    assert read_text(path) == "four"
    path.write_bytes(b"fives")
    with pytest.raises(InputError, match=re.escape(f"{path} is longer than the ")):
        read_text(path)


@pytest.mark.skipif(sys.platform != "linux", reason="Looks into /dev/zero")
def test_what_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_MOST_BYTES", 2**20)
    with pytest.raises(InputError, match="longer than"):
        read_text(Path("/dev/zero"))
