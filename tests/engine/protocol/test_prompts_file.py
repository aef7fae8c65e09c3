"""Prompts files: what is read of each kind, and which rows are set apart with which reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from bh_studio.engine.errors import EngineError
from bh_studio.engine.protocol.prompts_file import PromptsFile, read_prompts
from bh_studio.engine.records.rows import FilePrompt, SkippedRow


def read(tmp_path: Path, name: str, content: str | bytes) -> PromptsFile:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_prompts(path)


def reasons(file: PromptsFile) -> dict[int, str]:
    return {row.line: row.reason for row in file.skipped}


def test_text_is_one_prompt_a_line(tmp_path: Path) -> None:
    file = read(tmp_path, "p.txt", "\ufeffOne \r\n\n   \n☃ two\n three")
    assert file.prompts == (FilePrompt(1, "One "), FilePrompt(4, "☃ two"), FilePrompt(5, " three"))
    assert file.skipped == ()


def test_a_line_that_is_not_utf8_costs_only_itself(tmp_path: Path) -> None:
    file = read(tmp_path, "p.txt", b"One\n\xff\nThree\n")
    assert [asked.line for asked in file.prompts] == [1, 3]
    assert file.skipped == (SkippedRow(2, "It is not valid UTF-8."),)


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
        tmp_path, "p.csv", b'id,prompt\n1,good\n2\n3,a,b\n4, \n5,\xff\n6,"x"y\n7,good\n8,"open'
    )
    assert [asked.line for asked in file.prompts] == [2, 8]
    assert reasons(file) == {
        3: "It has 1 column, the first row 2.",
        4: "It has 3 columns, the first row 2.",
        5: "The prompt is empty.",
        6: "It is not valid UTF-8.",
        7: "It is not valid CSV: ',' expected after '\"'.",
        9: "It is not valid CSV: unexpected end of data.",
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
    not_json, not_utf8 = "It is not valid JSON.", "It is not valid UTF-8."
    assert reasons(file) == {
        2: not_json, 3: other, 4: other, 5: other, 6: "The prompt is empty.", 7: not_utf8,
        8: not_json, 9: not_json, 10: not_json, 11: not_json,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("p.txt", b"", "holds no prompts."),
        ("p.txt", b"\n \n", "holds no prompts."),
        ("p.csv", b"", "holds no prompts."),
        ("p.csv", b"prompt\n", "holds no prompts."),
        ("p.csv", b"prompt,id\nx\n", "none of its rows can be used (1). Line 2: It has 1 column,"),
        ("p.csv", b"id,text\n1,x\n", 'has no column "prompt"; its columns are id, text.'),
        ("p.csv", b"prompt,id,id\nx,1,2\n", "has two columns of the same name."),
        ("p.csv", b"id;prompt\n1;x\n", "separate the columns with commas."),
        ("p.csv", b"prompt,\xff\nx,1\n", "has a first row that is not valid UTF-8."),
        ("p.csv", b'"prompt"x,id\nx,1\n', "has a first row that is not valid CSV"),
        ("p.txt", "One".encode("utf-16"), "is in UTF-16; save it as UTF-8."),
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
