"""Results that grow: what is on disk when, what the next run takes over, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bh_studio.engine.errors import InputError
from bh_studio.engine.records.journal import ResultFile
from tests.cli.conftest import version

MODEL = {"fingerprint": "f", "null_sha256": "n", "dtype": "float32", "device": "cpu", "name": "a"}
HEADER: dict[str, Any] = {
    "schema_version": 1,
    "command": "sweep",
    "prompt": "Once",
    "parameters": {"alphas": [0.1], "generation": {"seed": 0}},
    "model": MODEL,
    "started_at": "then",
}


def begin(result: ResultFile, header: dict[str, Any] = HEADER) -> list[dict[str, Any]]:
    return result.begin(header, lambda rows: rows)


def taken_over(path: Path, header: dict[str, Any] = HEADER) -> list[dict[str, Any]]:
    with ResultFile(path) as result:
        return begin(result, header)


def leave(path: Path, *rows: dict[str, Any]) -> Path:
    """What an interrupted run leaves; its journal."""
    with ResultFile(path) as result:
        begin(result)
        for row in rows:
            result.add(row)
    return path.with_name(f"{path.name}.rows.jsonl")


def finish(path: Path, *rows: dict[str, Any]) -> bool:
    with ResultFile(path) as result:
        begin(result)
        for row in rows:
            result.add(row)
        content = json.dumps({**result.header, "rows": rows}).encode()
        return result.finish({".json": lambda: content, ".csv": lambda: b"a,b\n"})


def test_a_row_is_on_disk_when_it_was_added(tmp_path: Path) -> None:
    with ResultFile(tmp_path / "r.json") as result:
        begin(result)
        result.add({"a": "☃\n"})
        lines = (tmp_path / "r.json.rows.jsonl").read_bytes().splitlines()
        assert [json.loads(line) for line in lines] == [HEADER, {"a": "☃\n"}]
        assert not (tmp_path / "r.json").exists()


def test_rows_are_taken_over_with_the_header_of_the_first_run(tmp_path: Path) -> None:
    leave(tmp_path / "r.json", {"a": 1}, {"a": 2})
    with ResultFile(tmp_path / "r.json") as result:
        assert begin(result, {**HEADER, "started_at": "now"}) == [{"a": 1}, {"a": 2}]
        assert result.header["started_at"] == "then"
        assert not result.is_finished


def test_a_row_that_was_cut_short_is_forgotten(tmp_path: Path) -> None:
    journal = leave(tmp_path / "r.json", {"a": 1})
    with journal.open("ab") as file:
        file.write(b'{"a": 2')
    with ResultFile(tmp_path / "r.json") as result:
        assert begin(result) == [{"a": 1}]
        result.add({"a": 3})
    assert taken_over(tmp_path / "r.json") == [{"a": 1}, {"a": 3}]


def test_a_run_without_a_row_leaves_nothing(tmp_path: Path) -> None:
    leave(tmp_path / "r.json")
    assert list(tmp_path.iterdir()) == []


def test_a_finished_json_needs_no_journal(tmp_path: Path) -> None:
    finish(tmp_path / "r.json", {"a": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
    before = version(tmp_path / "r.json")
    with ResultFile(tmp_path / "r.json") as result:
        assert result.is_finished
        assert begin(result) == [{"a": 1}]
        result.finish({".json": lambda: b"other"})
    assert version(tmp_path / "r.json") == before


def test_a_finished_csv_keeps_its_rows_and_settings_beside_it(tmp_path: Path) -> None:
    assert finish(tmp_path / "r.csv", {"a": 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.csv", "r.csv.rows.jsonl"]
    before = version(tmp_path / "r.csv")
    with ResultFile(tmp_path / "r.csv") as result:
        assert begin(result) == [{"a": 1}]
        assert not result.finish({".csv": lambda: b"a,b\n"})
    assert version(tmp_path / "r.csv") == before


@pytest.mark.parametrize("is_finished", [True, False])
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"prompt": "Twice " * 9}, 'prompt (Once then, Twice Twice Twice Twice… now)'),
        ({"parameters": {"alphas": [0.1, 0.2]}}, "alphas ([0.1] then, [0.1, 0.2] now)"),
        ({"parameters": {"generation": {"seed": 1}}}, "generation seed (0 then, 1 now)"),
        ({"model": {**MODEL, "fingerprint": "g"}}, "model fingerprint (f then, g now)"),
        ({"command": "compare"}, "command (sweep then, compare now)"),
    ],
)  # fmt: skip
def test_other_settings_are_refused_with_what_differs(
    change: dict[str, Any], sentence: str, is_finished: bool, tmp_path: Path
) -> None:
    (finish if is_finished else leave)(tmp_path / "r.json", {"a": 1})
    with pytest.raises(InputError) as refused:
        taken_over(tmp_path / "r.json", HEADER | change)
    assert sentence in str(refused.value)
    assert "--restart" in str(refused.value)


def test_many_differences_are_counted(tmp_path: Path) -> None:
    leave(tmp_path / "r.json", {"a": 1})
    other = {"command": "x", "prompt": "y", "parameters": {"alphas": [], "generation": {"seed": 9}}}
    with pytest.raises(InputError, match="and 1 more"):
        ResultFile(tmp_path / "r.json").check(other)


def test_time_and_place_and_the_models_folder_are_no_settings(tmp_path: Path) -> None:
    leave(tmp_path / "r.json", {"a": 1})
    moved = {"model": {**MODEL, "name": "b"}, "environment": {"python": "4"}, "started_at": "now"}
    assert taken_over(tmp_path / "r.json", HEADER | moved) == [{"a": 1}]


def test_settings_can_be_checked_before_the_model_is_known(tmp_path: Path) -> None:
    leave(tmp_path / "r.json", {"a": 1})
    result = ResultFile(tmp_path / "r.json")
    result.check({"command": "sweep", "prompt": "Once"})
    with pytest.raises(InputError, match="prompt"):
        result.check({"command": "sweep", "prompt": "Twice"})


def test_restart_replaces_the_result_only_when_it_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    finish(path, {"a": 1})
    before = path.read_bytes()
    with ResultFile(path, restart=True) as result:
        assert begin(result, HEADER | {"prompt": "Twice"}) == []
        result.add({"a": 2})
        assert path.read_bytes() == before
        result.finish({".json": lambda: b"new"})
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.json", b"{"), ("r.json", b"[]"), ("r.json", b"\xff"), ("r.json", b'{"sides": {}}'),
        ("r.csv", b"a,b\n"), ("r.json.rows.jsonl", b""), ("r.json.rows.jsonl", b"{}\n[]\n"),
        ("r.json.rows.jsonl", b"{\n{}\n"),
    ],
)  # fmt: skip
def test_a_file_of_something_else_is_never_overwritten(
    name: str, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="--restart"):
        ResultFile(tmp_path / name.removesuffix(".rows.jsonl"))
    assert (tmp_path / name).read_bytes() == content


def test_rows_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    leave(tmp_path / "r.json", {"a": 1})
    with pytest.raises(InputError, match="a row that cannot be read"):
        ResultFile(tmp_path / "r.json").begin(HEADER, lambda rows: rows[0]["b"])


def test_an_error_keeps_the_rows_there_are(tmp_path: Path) -> None:
    with pytest.raises(MemoryError), ResultFile(tmp_path / "r.json") as result:  # noqa: PT012
        begin(result)
        result.add({"a": 1})
        assert result.unfinished_rows == 1
        raise MemoryError
    assert result.unfinished_rows == 0
    assert taken_over(tmp_path / "r.json") == [{"a": 1}]


def test_without_a_path_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with ResultFile(None) as result:
        assert begin(result) == []
        result.add({"a": 1})
        result.finish({})
    assert list(tmp_path.iterdir()) == []
