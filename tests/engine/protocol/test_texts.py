"""Which files of a folder are texts, and what is none of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bh_studio.engine.errors import InputError
from bh_studio.engine.protocol.texts import read_texts, sources_of


def test_a_folder_gives_the_texts_that_people_put_there(tmp_path: Path) -> None:
    for name in ("b.txt", "A.TXT", "c.Txt", "._a.txt", ".hidden.txt", "d.md", "txt"):
        (tmp_path / name).write_text(f"text of {name}")
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "folder.txt" / "inside.txt").write_text("inside")
    assert [text.name for text in read_texts([tmp_path])] == ["A.TXT", "b.txt", "c.Txt"]
    assert list(sources_of([tmp_path]).values()) == [
        tmp_path / name for name in ("A.TXT", "b.txt", "c.Txt")
    ]
    assert [text.name for text in read_texts([tmp_path / "folder.txt"])] == ["inside.txt"]
    # What is named is read, whatever it is called.
    given = [tmp_path / "d.md", tmp_path / ".hidden.txt"]
    assert [text.name for text in read_texts(given)] == ["d.md", ".hidden.txt"]


def test_a_link_to_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=r"a\.txt cannot be read: No such file"):
        read_texts([tmp_path])


def test_only_hidden_files_are_no_texts(tmp_path: Path) -> None:
    (tmp_path / "._a.txt").write_bytes(b"\x00\x05\x16\x07")
    with pytest.raises(InputError, match=r"holds no \.txt file"):
        read_texts([tmp_path])


@pytest.mark.parametrize("data", [b"", b" \r\n", b"\xef\xbb\xbf", b"\xff\xfe \x00"])
def test_a_blank_text_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.txt is empty"):
        read_texts([tmp_path])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_definition_cannot_name_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(InputError, match=r"a\.txt is no file that could be read again"):
        sources_of([tmp_path])
