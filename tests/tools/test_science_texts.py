"""Passages for calibration: from the middle of a book, whole lines first, no longer than said."""

from __future__ import annotations

from pathlib import Path

from tools.science_texts import PASSAGE_CHARACTERS, middle, write_texts


def test_a_passage_comes_from_the_middle_and_begins_with_a_line() -> None:
    text = "".join(f"line {number:06d}\n" for number in range(5000))
    passage = middle(text)
    assert len(passage) == PASSAGE_CHARACTERS
    assert passage.startswith("line ")
    place = text.index(passage)
    assert abs(place + PASSAGE_CHARACTERS // 2 - len(text) // 2) < 20


def test_a_short_book_is_taken_from_its_second_line() -> None:
    assert middle("first\nsecond\nthird") == "second\nthird"


def test_texts_are_written_under_their_names(tmp_path: Path) -> None:
    write_texts(tmp_path / "new", [("007", "naïve"), ("008", "b")])
    assert (tmp_path / "new" / "007.txt").read_text(encoding="utf-8") == "naïve"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["007.txt", "008.txt"]
