"""Texts of people: what was given, from files and pipes that end."""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
import threading
from pathlib import Path

import pytest

from bh_studio.engine.errors import InputError
from bh_studio.engine.files.text import decoded, decoded_in_part, is_text, lines_in_part, read_text

# Ends of lines, spaces that do not break and separators of lines are characters like others.
CONTENT = "a\r\nb\rc\n\r\r\nd\u00a0: \u2028\u2029\x85\x0b\x1c ä 日本 \x00😀\ufeff\n"
MARKS = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
}


@pytest.mark.parametrize("encoding", MARKS)
def test_what_was_given_is_what_is_read(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for content in (CONTENT, "", "\n\n"):
        path.write_bytes(MARKS[encoding] + content.encode(encoding))
        assert read_text(path) == content
        path.write_bytes(content.encode())
        assert read_text(path) == content


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(InputError, match=re.escape(f"{path} cannot be read: No such file")):
        read_text(path)
    path.write_bytes(b"four")
    assert read_text(path, 4) == "four"
    path.write_bytes(b"fives")
    with pytest.raises(InputError, match=re.escape(f"{path} is longer than the ")):
        read_text(path, 4)


@pytest.mark.parametrize(
    ("data", "encoding", "line"),
    [
        (b"\xff", "UTF-8", 1),
        (b"a\nb\r\nc\rd\xc3\n\xff", "UTF-8", 4),
        (codecs.BOM_UTF8 + b"a\n\xe4", "UTF-8", 2),
        (codecs.BOM_UTF16_LE + "a\nb\n".encode("utf-16-le") + b"\x00\xd8", "UTF-16", 3),
        (codecs.BOM_UTF16_BE + "a\n".encode("utf-16-be") + b"\x00", "UTF-16", 2),
    ],
)
def test_what_is_no_text_is_told_with_its_first_line(data: bytes, encoding: str, line: int) -> None:
    with pytest.raises(InputError) as refused:
        decoded(data, "a.txt")
    assert str(refused.value) == (
        f"a.txt is not {encoding} text: the first byte that is none is in line {line}. "
        "Save it as UTF-8."
    )


@pytest.mark.parametrize("read", [decoded, decoded_in_part])
def test_utf_32_is_not_taken_for_utf_16(read: object) -> None:
    assert callable(read)
    with pytest.raises(InputError, match=re.escape("a.txt is in UTF-32. Save it as UTF-8.")):
        read("One".encode("utf-32"), "a.txt")


def test_what_is_spoilt_in_part_costs_only_that() -> None:
    for data in (
        b"One\n\xff\xfe\nThree",
        codecs.BOM_UTF16_LE
        + "One\n".encode("utf-16-le")
        + b"\x00\xd8"
        + "\nThree".encode("utf-16-le"),
    ):
        lines = decoded_in_part(data, "a").split("\n")
        assert [is_text(line) for line in lines] == [True, False, True]
        assert (lines[0], lines[2]) == ("One", "Three")


@pytest.mark.parametrize("encoding", MARKS)
def test_lines_end_where_lines_end(encoding: str) -> None:
    # A letter that has the byte of an end of line in it, and none of the ends that only look so.
    content = "One\u0a05\u2028\x85x\r\n\r\r\nfour\ufeff\n\nlast"
    for data in (MARKS[encoding] + content.encode(encoding), content.encode()):
        lines = list(lines_in_part(io.BytesIO(data), "a"))
        assert lines == ["One\u0a05\u2028\x85x", "\r", "four\ufeff", "", "last"]


def test_a_line_that_is_no_text_costs_only_itself() -> None:
    wide = (
        codecs.BOM_UTF16_LE + "One\n".encode("utf-16-le") + b"\x00\xd8" + "\nx".encode("utf-16-le")
    )
    for data in (b"One\n\xff\nx", wide, wide + b"y"):
        lines = list(lines_in_part(io.BytesIO(data), "a"))
        assert lines[0] == "One"
        assert not is_text(lines[1])
        assert lines[2][0] == "x"
    assert not is_text(lines[2])


@pytest.mark.parametrize("encoding", MARKS)
def test_a_line_is_there_before_the_next_one_is_written(encoding: str) -> None:
    reader, writer = (
        os.fdopen(end, mode) for end, mode in zip(os.pipe(), ("rb", "wb"), strict=True)
    )
    # If nothing came the test would hang; so it ends.
    guard = threading.Timer(20, writer.close)
    guard.start()
    with reader:
        writer.write(MARKS[encoding])
        lines = lines_in_part(reader, "a")  # type: ignore[arg-type]
        for asked in ("One", "Two\u0a05", "Three"):
            writer.write((asked + "\n").encode(encoding))
            writer.flush()
            assert next(lines) == asked
            assert not writer.closed
        guard.cancel()
        writer.close()
        assert list(lines) == []


@pytest.mark.skipif(sys.platform != "linux", reason="Looks into /dev/zero")
def test_what_never_ends_is_given_up() -> None:
    with pytest.raises(InputError, match="longer than"):
        read_text(Path("/dev/zero"), 2**20)
