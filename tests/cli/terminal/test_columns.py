"""Columns on a terminal."""

from __future__ import annotations

import io
import time

import pytest

from bh_studio.cli.terminal.columns import ColumnPrinter, display_width, shorten, wrap


def printed(left: list[str], right: list[str], width: int = 43) -> list[str]:
    out = io.StringIO()
    printer = ColumnPrinter(out, width, ("left", "right"))
    for index in range(max(len(left), len(right))):
        if index < len(left):
            printer.add(0, left[index])
        if index < len(right):
            printer.add(1, right[index])
    printer.end(0)
    printer.end(1)
    return out.getvalue().splitlines()


def test_words_are_wrapped_and_rows_are_aligned() -> None:
    lines = printed(["The quick brown fox ", "jumps over"], ["A lazy", " dog"])
    assert lines == [
        "left                 | right",
        "-------------------- | --------------------",
        "The quick brown fox  | A lazy dog",
        "jumps over           |",
    ]


def test_a_row_appears_as_soon_as_both_columns_have_it() -> None:
    out = io.StringIO()
    printer = ColumnPrinter(out, 43, ("left", "right"))
    assert out.getvalue() == ""
    printer.add(0, "one\ntwo\n")
    printer.add(1, "eins\n")
    assert out.getvalue().splitlines()[2:] == ["one                  | eins"]
    printer.end(1)
    assert out.getvalue().splitlines()[3:] == ["two                  |"]


def beside(width: int, texts: list[str]) -> list[list[str]]:
    """The cells of what is printed of `texts`, each of which ends at once."""
    out = io.StringIO()
    printer = ColumnPrinter(out, width, "ABCD"[: len(texts)])
    for column, text in enumerate(texts):
        printer.add(column, text)
    for column in range(len(texts)):
        printer.end(column)
    lines = out.getvalue().splitlines()
    assert max(map(display_width, lines)) <= width
    return [[cell.strip("- ") for cell in line.split("|")] for line in lines]


def test_four_columns_stand_beside_each_other_or_two_by_two() -> None:
    texts = ["one", "two\nlines", "three", "four"]
    assert beside(121, texts) == [
        ["A", "B", "C", "D"], [""] * 4, ["one", "two", "three", "four"], ["", "lines", "", ""],
    ]  # fmt: skip
    assert beside(120, texts) == [
        ["A", "B"], ["", ""], ["one", "two"], ["", "lines"], [""],
        ["C", "D"], ["", ""], ["three", "four"],
    ]  # fmt: skip


def test_three_columns_leave_the_last_below() -> None:
    assert beside(90, ["one", "two", "three"])[2] == ["one", "two", "three"]
    assert beside(80, ["one", "two", "three"])[2:] == [["one", "two"], [""], ["C"], [""], ["three"]]


def test_one_text_takes_the_whole_width() -> None:
    assert beside(59, ["word " * 24])[2:] == [[" ".join(["word"] * 12)]] * 2


def test_columns_below_wait_for_those_above() -> None:
    out = io.StringIO()
    printer = ColumnPrinter(out, 43, "ABC")
    printer.add(2, "last\n")
    printer.add(0, "one\n")
    printer.add(1, "two\n")
    assert "last" not in out.getvalue()
    printer.end(0)
    printer.end(1)
    assert out.getvalue().splitlines()[-1].split() == ["last"]


def test_long_words_are_cut_and_wide_characters_counted() -> None:
    lines = printed(["x" * 45], ["日本語" * 5])
    assert [line.split(" |")[0].rstrip() for line in lines[2:]] == ["x" * 20, "x" * 20, "x" * 5]
    for line in lines[2:4]:
        assert display_width(line.split(" | ")[1]) <= 20


@pytest.mark.parametrize("text", ["a\x1b[31mred", "bell\x07", "back\x08", "\u202eright to left"])
def test_control_characters_do_not_reach_the_terminal(text: str) -> None:
    shown = "\n".join(printed([text], ["ok"]))
    assert all(character.isprintable() or character == "\n" for character in shown)


def test_all_text_arrives() -> None:
    text = "It was a long day, and nobody knew what to do about the rain. " * 5
    lines = printed([text], [])[2:]
    joined = " ".join(line.split(" |")[0].rstrip() for line in lines)
    assert joined.split() == text.split()


def test_what_is_long_takes_as_long_as_it_is() -> None:
    started = time.perf_counter()
    for text in ("é" * 200_000, "e\u0301 日" * 50_000):
        assert "".join(wrap(text, 60)).replace(" ", "") == text.replace(" ", "")
        assert shorten(text, 60).endswith("…")
        assert 57 <= display_width(shorten(text, 60)) <= 60
    assert time.perf_counter() - started < 20
