"""JSON into dataclasses: what is taken, and the sentence for what is not."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from bh_studio.engine.files.plain_json import (
    JsonError,
    check_encodable,
    convert,
    decode,
    encode,
    parsed,
)


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Whole:
    parts: tuple[Part, ...]
    place: Path
    share: float = 0.5
    colour: Colour = Colour.RED
    level: float | tuple[float, ...] = 1.0
    is_open: bool = False
    others: dict[str, list[int]] | None = None

    def __post_init__(self) -> None:
        if self.share > 1:
            raise ValueError(f"A share is at most 1; got {self.share}.")


WHOLE = Whole(
    (Part("ä\udcff", 2**70), Part("", 0)), Path("/a/ü"), 1e-05, others={"x": [1], "ß": []}
)
GOOD: dict[str, Any] = {"parts": [{"name": "a", "size": 1}], "place": "/a"}


def test_what_is_written_comes_back() -> None:
    written = encode(WHOLE)
    assert decode(Whole, written) == WHOLE
    assert written.isascii()
    assert b"\n" not in written
    # Also paths that are not Unicode, and numbers as Python writes them.
    assert b'"\\u00e4\\udcff"' in written
    assert b"1e-05" in written
    assert decode(tuple[Whole, ...], encode([WHOLE, WHOLE], indent=1)) == (WHOLE, WHOLE)


def test_indented_json_is_python_s_own() -> None:
    assert encode(GOOD, indent=1).decode() == json.dumps(GOOD, indent=1)


def test_what_may_be_left_out() -> None:
    made = decode(Whole, encode(GOOD))
    assert made == Whole((Part("a", 1),), Path("/a"))
    assert convert(Whole, GOOD | {"level": [1, 0.5], "share": 1}).level == (1.0, 0.5)
    assert convert(dict[str, Any], {"a": {"b": [None]}}) == {"a": {"b": [None]}}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"share": "x"}, "share is the string 'x', not a number."),
        ({"share": None}, "share is None, not a number."),
        ({"share": 2}, "A share is at most 1; got 2.0."),
        ({"share": 10**400}, "share is too large."),
        ({"is_open": 1}, "is_open is 1, not true or false."),
        ({"place": 3}, "a path is 3."),
        ({"colour": "blue"}, "colour is 'blue', which cannot be."),
        ({"level": {}}, "level is an object, not a number or a list."),
        ({"level": [1, "2"]}, "level[1] is the string '2', not a number."),
        ({"others": 1}, "others is 1, not an object or null."),
        ({"others": {"a b": [True]}}, "others[...][0] is another value, not a whole number."),
        ({"parts": {}}, "parts is an object, not a list."),
        ({"parts": ["x"]}, "parts[0] is the string 'x', not an object."),
        ({"parts": [{"name": "a"}]}, "'size' is missing in parts[0]."),
        ({"parts": [{"name": 1, "size": 1}]}, "parts[0].name is wrong: a text is 1."),
        ({"parts": [{"name": "a", "size": 1.0}]}, "parts[0].size is 1.0, not a whole number."),
        ({"parts": [{"name": "a", "size": True}]}, "parts[0].size is True, not a whole number."),
        ({"parts": [{"name": "a", "size": "9" * 99}]}, f"parts[0].size is the string '{'9' * 58}…"),
        ({"parts": [{**GOOD["parts"][0], "more": 1}]}, "parts[0].more is not known."),
        ({"more": 1}, "more is not known."),
        ({"": 1}, "A field without a name is not known."),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(JsonError) as refused:
        convert(Whole, GOOD | change)
    assert str(refused.value).startswith(sentence)
    with pytest.raises(JsonError):
        decode(Whole, json.dumps(GOOD | change))


def test_names_lead_to_the_place() -> None:
    with pytest.raises(JsonError, match=r"^whole\.parts\[0\]\.size is None, not a whole number\.$"):
        convert(Whole, GOOD | {"parts": [{"name": "", "size": None}]}, "whole")
    with pytest.raises(JsonError, match=r"^whole\.more is not known\.$"):
        convert(Whole, GOOD | {"more": 1}, "whole")
    with pytest.raises(JsonError, match=r"^'parts' is missing in whole\.$"):
        convert(Whole, {}, "whole")
    with pytest.raises(JsonError, match=r"^'parts' is missing\.$"):
        convert(Whole, {})
    with pytest.raises(JsonError, match=r"^whole is a list, not an object\.$"):
        convert(Whole, [], "whole")
    with pytest.raises(JsonError, match=r"^it is the string '', not an object\.$"):
        decode(Whole, '""')


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff", b'{"a": 1} x', b"[" * 10**5, b"9" * 10**4, b'"'],
)
def test_what_is_no_json_is_refused(data: bytes) -> None:
    for read in (parsed, lambda given: decode(Whole, given)):
        with pytest.raises(JsonError, match=r"^it is not valid JSON\.$"):
            read(data)
    with pytest.raises(JsonError, match=r"^a file is not valid JSON\.$"):
        parsed(data, "a file")


def test_what_is_nested_deep_ends_in_a_sentence() -> None:
    said = set()
    for depth in range(300, 1001, 10):
        try:
            convert(dict[str, Any], {"a": parsed("[" * depth + "]" * depth)})
        except JsonError as error:
            said.add(str(error))
    assert said <= {"it is nested too deep.", "it is not valid JSON."}
    assert said


def test_numbers_that_are_not_finite_are_not_written() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        encode({"a": math.nan})


# --- what may fill the memory ---------------------------------------------------------------


@pytest.mark.parametrize("text", ["[" + "[]," * 10**6 + "0]", "[" + '{"a":0},' * 10**6 + "0]"])
def test_lists_of_nothing_are_not_read(text: str) -> None:
    with pytest.raises(JsonError, match=r"^the file would take \d+ MiB of memory, more than"):
        parsed(text, "the file")


def test_many_numbers_and_long_texts_are_read() -> None:
    numbers = list(range(10**6))
    assert parsed(json.dumps(numbers)) == numbers
    assert parsed(json.dumps(["x," * 10**6, "é👑"], ensure_ascii=False))[1] == "é👑"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"\\ud800"', "\ud800"), ("1e999", float("inf")), ("-0", 0), ("1" * 400, int("1" * 400)),
        ('{"a": 1, "a": 2}', {"a": 2}), ("[1.0, 1, true, null]", [1.0, 1, True, None]),
        ("\ufeff[]".encode(), []), ("[NaN]".replace("NaN", "-Infinity"), [float("-inf")]),
        (json.dumps("ü").encode("utf-16"), "ü"),
    ],
)  # fmt: skip
def test_what_python_reads_is_read_as_python_reads_it(text: str | bytes, value: Any) -> None:
    found = parsed(text)
    assert found == value
    assert repr(found) == repr(value)


def test_what_cannot_be_written_again_is_told() -> None:
    check_encodable({"a": [1, "ü", None]})
    for value in (float("nan"), "\ud800", {"\udfff": 1}):
        with pytest.raises(JsonError, match=r"^it has a number or a character that is no JSON\.$"):
            check_encodable([value])
    deep: list[Any] = []
    for _ in range(500):
        deep = [deep]
    with pytest.raises(JsonError, match=r"^a is nested too deep\.$"):
        check_encodable(deep, "a")


def test_half_a_character_is_told_of_wherever_it_stands() -> None:
    for kind in (dict[str, int], int, Colour, tuple[int, ...]):
        with pytest.raises(JsonError, match=r"^x has a character that does not exist\.$"):
            convert(kind, "\ud800", "x")
