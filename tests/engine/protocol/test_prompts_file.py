"""Prompts files: what is read of each kind, and which rows are set apart with which reason."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from bh_studio.engine.errors import EngineError
from bh_studio.engine.protocol.prompts_file import PromptsFile, read_prompts
from bh_studio.engine.records.rows import FilePrompt, SkippedRow


def read(tmp_path: Path, name: str, content: str | bytes, field: str | None = None) -> PromptsFile:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_prompts(path, field)


def reasons(file: PromptsFile) -> dict[int, str]:
    return {row.line: row.reason for row in file.skipped}


def test_text_is_one_prompt_a_line(tmp_path: Path) -> None:
    file = read(tmp_path, "p.txt", "\ufeffOne \r\n\n   \n☃ two\n three")
    assert file.prompts == (FilePrompt(1, "One "), FilePrompt(4, "☃ two"), FilePrompt(5, " three"))
    assert file.skipped == ()


def test_a_line_that_is_not_utf8_costs_only_itself(tmp_path: Path) -> None:
    file = read(tmp_path, "p.txt", b"One\n\xff\nThree\n")
    assert [asked.line for asked in file.prompts] == [1, 3]
    assert file.skipped == (SkippedRow(2, "It has bytes that are no text."),)


def test_csv_takes_the_column_prompt_and_carries_the_others(tmp_path: Path) -> None:
    file = read(
        tmp_path, "p.csv", '\ufeffid,prompt,text\r\na,"One, ""1""",x\r\n\r\nb,"Two\nlines",y\nc,3,z'
    )
    assert file.prompts == (
        FilePrompt(2, 'One, "1"', {"id": "a", "text": "x"}),
        FilePrompt(4, "Two\nlines", {"id": "b", "text": "y"}),
        FilePrompt(6, "3", {"id": "c", "text": "z"}),
    )


def test_csv_takes_its_only_column_whatever_its_name(tmp_path: Path) -> None:
    assert read(tmp_path, "p.csv", "story\nOne\nTwo\n").prompts == (
        FilePrompt(2, "One"),
        FilePrompt(3, "Two"),
    )


def test_bad_csv_rows_are_set_apart(tmp_path: Path) -> None:
    file = read(
        tmp_path, "p.csv", b'id,prompt\n1,good\n2\n3,a,b\n4, \n5,\xff\n6,"a\n\nb",c\n"7",good\n'
    )
    assert [asked.line for asked in file.prompts] == [2, 10]
    assert reasons(file) == {
        3: "It has 1 column, the first row 2.",
        4: "It has 3 columns, the first row 2.",
        5: "The prompt is empty.",
        6: "It has bytes that are no text.",
        7: "It has 3 columns, the first row 2.",
        8: "It belongs to the row that begins in line 7.",
        9: "It belongs to the row that begins in line 7.",
    }


def test_json_lines_are_strings_or_objects(tmp_path: Path) -> None:
    file = read(
        tmp_path, "p.jsonl", '"One"\n\n{"prompt": "T\\u2603\\n", "id": 3, "tags": ["a"]}\r\n'
    )
    assert file.prompts == (
        FilePrompt(1, "One"),
        FilePrompt(3, "T☃\n", {"id": 3, "tags": ["a"]}),
    )


def test_bad_json_lines_are_set_apart(tmp_path: Path) -> None:
    lines = [
        b'"good"', b"{", b"[1]", b'{"text": "x"}', b'{"prompt": 3}', b'""', b'"\xff"',
        b'"\\ud800"', b'{"prompt": "x", "n": NaN}', b'{"prompt": "x", "n": 1e999}',
        b"[" * 100_000,
    ]  # fmt: skip
    file = read(tmp_path, "p.jsonl", b"\n".join(lines))
    assert file.prompts == (FilePrompt(1, "good"),)
    other = 'It is neither a string nor an object with a string "prompt".'
    missing = 'It has no "prompt"; --prompts-field names another field.'
    not_json, no_text = "It is not valid JSON.", "It has bytes that are no text."
    assert reasons(file) == {
        2: not_json, 3: other, 4: missing, 5: other, 6: "The prompt is empty.", 7: no_text,
        8: not_json, 9: not_json, 10: not_json, 11: not_json,
    }  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    ("name", "content", "prompts"),
    [
        ("p.txt", "a\u00a0\u2028\u2029b\r\r\n\n\x85c\n", {1: "a\u00a0\u2028\u2029b\r", 3: "\x85c"}),
        ("P.TXT", "One", {1: "One"}),
        ("p.csv", '\r\nprompt\r\n"a\u00a0\r\nb\u2028\rc"\r\nd\u2029',
         {3: "a\u00a0\r\nb\u2028\rc", 6: "d\u2029"}),
        ("p.jsonl", '"a\u00a0\u2028"\r\n{"prompt": "b\\r\\n"}', {1: "a\u00a0\u2028", 2: "b\r\n"}),
    ],
)  # fmt: skip
def test_prompts_are_what_was_given(
    name: str, content: str, prompts: dict[int, str], encoding: str, tmp_path: Path
) -> None:
    file = read(tmp_path, name, content.encode(encoding))
    assert {asked.line: asked.prompt for asked in file.prompts} == prompts
    assert file.skipped == ()


def test_a_blank_line_of_a_text_is_told_where_it_is_not_of_ordinary_spaces(tmp_path: Path) -> None:
    file = read(tmp_path, "p.txt", " \t\n\u00a0\nOne\n")
    assert [asked.line for asked in file.prompts] == [3]
    assert reasons(file) == {2: "The prompt is empty."}


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        # An unclosed quote takes the rows after it into its cell.
        (
            'id,prompt\n1,The ship\n2,"Come here\n3,The dog\n4,"A storm, over"\n5,They\n',
            "in the row that begins in line 3 (it breaks in line 5),",
        ),
        (
            'prompt\nThe ship\n"He said "wait" and\nturned to\nwent below"\nThe dog\n',
            "in the row that begins in line 3,",
        ),
        (
            'prompt\nOne\n"open\nTwo\nThree',
            "in the row that begins in line 3 (it breaks in line 5),",
        ),
        ('prompt\nOne\n"open', "in the row that begins in line 3,"),
    ],
)
def test_quotes_that_do_not_match_are_refused_with_their_line(
    content: str, rows: str, tmp_path: Path
) -> None:
    with pytest.raises(EngineError) as refused:
        read(tmp_path, "p.csv", content)
    assert str(refused.value) == (
        f"{tmp_path / 'p.csv'} has a stray or unclosed quote {rows} so it cannot be told where "
        "rows end. A cell that begins with a quote has to end with one, and a quote inside it is "
        "written twice."
    )


def test_a_cell_may_be_of_any_length(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    long = "word " * 30_000 + "\nsecond line"
    file = read(tmp_path, "p.csv", f'prompt\r\nOne\r\n"{long}"\r\nTwo\r\n')
    assert [asked.prompt for asked in file.prompts] == ["One", long, "Two"]
    with pytest.raises(EngineError):
        read(tmp_path, "p.csv", f'prompt\n"{long}"x')
    assert csv.field_size_limit() == limit


def test_prompts_can_stand_in_another_field(tmp_path: Path) -> None:
    file = read(tmp_path, "p.csv", "id,question,prompt\n1,Why?,no\n2,,no\n", "question")
    assert file.prompts == (FilePrompt(2, "Why?", {"id": "1", "prompt": "no"}),)
    assert reasons(file) == {3: "The prompt is empty."}
    lines = [
        '{"turns": ["One", "Two"], "id": 3}', '{"turns": "Three", "prompt": "no"}', '"Four"',
        '{"prompt": "no"}', '{"turns": []}', '{"turns": ["a", 3]}', '{"turns": [" ", "b"]}',
    ]  # fmt: skip
    file = read(tmp_path, "p.jsonl", "\n".join(lines), "turns")
    assert file.field == "turns"
    assert file.prompts == (
        FilePrompt(1, "One", {"turns": ["One", "Two"], "id": 3}),
        FilePrompt(2, "Three", {"prompt": "no"}),
        FilePrompt(3, "Four"),
    )
    other = 'It is neither a string nor an object with a string "turns".'
    assert reasons(file) == {
        4: 'It has no "turns"; --prompts-field names another field.', 5: other, 6: other,
        7: "The prompt is empty.",
    }  # fmt: skip
    for name, content, sentence in (
        ("p.csv", "story\nOne\n", 'has no column "turns"; its columns are story. Name the one that '
         "holds the prompts with --prompts-field."),
        ("p.txt", "One\n", "has no fields, for each line is a prompt. Leave --prompts-field out."),
    ):  # fmt: skip
        with pytest.raises(EngineError, match=re.escape(sentence)):
            read(tmp_path, name, content, "turns")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("p.txt", b"", "holds no prompts."),
        ("p.txt", b"\n \n", "holds no prompts."),
        ("p.csv", b"", "holds no prompts."),
        ("p.csv", b"prompt\n", "holds no prompts."),
        ("p.csv", b"prompt,id\nx\n", "none of its rows can be used (1). Line 2: It has 1 column,"),
        (
            "p.csv",
            b"id,text\n1,x\n",
            'has no column "prompt"; its columns are id, text. Name the one',
        ),
        ("p.csv", b"prompt,id,id\nx,1,2\n", "has two columns of the same name."),
        ("p.csv", b"id;prompt\n1;x\n", "separate the columns with commas."),
        ("p.csv", b"prompt,\xff\nx,1\n", "has a first row with bytes that are no text."),
        (
            "p.csv",
            b'"prompt"x,id\nx,1\n',
            "stray or unclosed quote in the row that begins in line 1,",
        ),
        ("p.txt", "One".encode("utf-32"), "is in UTF-32. Save it as UTF-8."),
        ("p.jsonl", b"{\n}\n", "none of its rows can be used (2). Line 1: It is not valid JSON."),
    ],
)
def test_a_file_without_prompts_is_an_error(
    name: str, content: bytes, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(EngineError) as refused:
        read(tmp_path, name, content)
    assert str(refused.value).startswith(str(tmp_path / name))
    assert sentence in str(refused.value)


def test_the_hash_is_of_the_bytes_alone(tmp_path: Path) -> None:
    files = [read(tmp_path, name, text) for name, text in (("a.txt", "x"), ("b.txt", "x"))]
    assert files[0].sha256 == files[1].sha256 != read(tmp_path, "a.txt", "y").sha256
