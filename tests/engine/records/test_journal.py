"""Results that grow: what is on disk when, what the next run takes over, and what it refuses."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from bh_studio.engine.errors import EngineError, InputError
from bh_studio.engine.records.journal import Journal, Row, rows_path, with_rows
from tests.cli.conftest import version

MODEL = {
    "fingerprint": "f", "null_sha256": "n", "dtype": "float32", "device": "cpu", "name": "a",
    "expert_path": "selected experts, one product each (in slices)",
}  # fmt: skip
SETTINGS = {"prompts": ["Once"], "rules": ["bh:0.1"], "generation": {"seed": 0}, "seeds": 1}
HEADER: dict[str, Any] = {
    "schema_version": 2,
    "kind": "sweep",
    "settings": SETTINGS,
    "model": MODEL,
    "started_at": "then",
}


def setting(**changes: Any) -> dict[str, Any]:
    return {**HEADER, "settings": {**SETTINGS, **changes}}


def taken_over(path: Path, header: dict[str, Any] = HEADER) -> dict[str, Row]:
    with Journal(path) as journal:
        return journal.begin(header)


def leave(path: Path, **rows: Row) -> Path:
    """What an interrupted run leaves; its journal."""
    with Journal(path) as journal:
        journal.begin(HEADER)
        for key, row in rows.items():
            journal.add(key, row)
    return rows_path(path)


def finish(path: Path, **rows: Row) -> bool:
    with Journal(path) as journal:
        journal.begin(HEADER)
        for key, row in rows.items():
            journal.add(key, row)
        if path.suffix == ".csv":
            return journal.finish(b"a,b\n", holds_rows=False)
        return journal.finish(with_rows(journal.header, journal.rows), holds_rows=True)


def test_a_row_is_on_disk_when_it_was_added(tmp_path: Path) -> None:
    with Journal(tmp_path / "r.json") as journal:
        journal.begin(HEADER)
        journal.add("0", {"a": "☃\n"})
        lines = (tmp_path / "r.json.rows.jsonl").read_bytes().splitlines()
        assert [json.loads(line) for line in lines] == [HEADER, {"key": "0", "a": "☃\n"}]
        assert not (tmp_path / "r.json").exists()


def test_rows_are_taken_over_with_the_header_of_the_first_run(tmp_path: Path) -> None:
    leave(tmp_path / "r.json", x={"a": 1}, y={"a": 2})
    with Journal(tmp_path / "r.json") as journal:
        assert journal.begin({**HEADER, "started_at": "now"}) == {"x": {"a": 1}, "y": {"a": 2}}
        assert journal.header["started_at"] == "then"
        assert not journal.is_finished


def test_a_row_that_was_cut_short_is_forgotten(tmp_path: Path) -> None:
    path = leave(tmp_path / "r.json", x={"a": 1})
    with path.open("ab") as file:
        file.write(b'{"key": "y", "a": 2')
    with Journal(tmp_path / "r.json") as journal:
        assert journal.begin(HEADER) == {"x": {"a": 1}}
        journal.add("z", {"a": 3})
    assert taken_over(tmp_path / "r.json") == {"x": {"a": 1}, "z": {"a": 3}}


def test_a_run_without_a_row_leaves_nothing(tmp_path: Path) -> None:
    leave(tmp_path / "r.json")
    assert list(tmp_path.iterdir()) == []


def test_a_finished_json_needs_no_journal(tmp_path: Path) -> None:
    assert finish(tmp_path / "r.json", x={"a": 1.5e-300}, y={"a": [0.1 + 0.2]})
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
    before = version(tmp_path / "r.json")
    with Journal(tmp_path / "r.json") as journal:
        assert journal.is_finished
        assert journal.begin(HEADER) == {"x": {"a": 1.5e-300}, "y": {"a": [0.1 + 0.2]}}
        assert not journal.finish(b"other", holds_rows=True)
    assert version(tmp_path / "r.json") == before


@pytest.mark.parametrize("size", [242, 250, 255])
def test_the_longest_names_have_rows_beside_them(size: int, tmp_path: Path) -> None:
    path = tmp_path / f"{'a' * (size - 5)}.json"
    rows = leave(path, x={"a": 1})
    assert list(tmp_path.iterdir()) == [rows]
    assert finish(path, y={"a": 2})
    assert list(tmp_path.iterdir()) == [path]
    assert taken_over(path) == {"x": {"a": 1}, "y": {"a": 2}}


def test_rows_that_cannot_be_kept_are_told_of_before_the_work(tmp_path: Path) -> None:
    rows = leave(tmp_path / "r.json", x={"a": 1})
    rows.chmod(0o444)
    with pytest.raises(InputError, match=r"r\.json\.rows\.jsonl cannot be written: The file is"):
        Journal(tmp_path / "r.json").check("sweep", SETTINGS)
    rows.chmod(0o644)
    assert taken_over(tmp_path / "r.json") == {"x": {"a": 1}}


def test_no_row_is_kept_in_a_folder_that_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(EngineError, match="could not be written"), Journal(folder / "r.json") as j:  # noqa: PT012
        j.begin(HEADER)
        j.add("x", {"a": 1})
        shutil.rmtree(folder)
        assert j.unfinished_rows == 0
        j.finish(b"", holds_rows=True)


def test_a_finished_csv_keeps_its_rows_and_settings_beside_it(tmp_path: Path) -> None:
    assert finish(tmp_path / "r.csv", x={"a": 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.csv", "r.csv.rows.jsonl"]
    before = version(tmp_path / "r.csv")
    with Journal(tmp_path / "r.csv") as journal:
        assert journal.begin(HEADER) == {"x": {"a": 1}}
        assert not journal.finish(b"a,b\n", holds_rows=False)
    assert version(tmp_path / "r.csv") == before


@pytest.mark.parametrize("is_finished", [True, False])
@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (setting(prompts=["Twice " * 9]), 'prompts (["Once"] then, ["Twice Twice Twice Twi… now)'),
        (setting(rules=["bh:0.2"]), 'rules (["bh:0.1"] then, ["bh:0.2"] now)'),
        (setting(generation={"seed": 1}), "generation seed (0 then, 1 now)"),
        ({**HEADER, "model": {**MODEL, "fingerprint": "g"}}, "model fingerprint (f then, g now)"),
        ({**HEADER, "kind": "batch"}, "kind (sweep then, batch now)"),
        (
            {**HEADER, "model": {**MODEL, "expert_path": "bh_selected"}},
            "model expert path (selected experts, one p… then, bh_selected now)",
        ),
    ],
)
def test_other_settings_are_refused_with_what_differs(
    changed: dict[str, Any], sentence: str, is_finished: bool, tmp_path: Path
) -> None:
    (finish if is_finished else leave)(tmp_path / "r.json", x={"a": 1})
    with pytest.raises(InputError) as refused:
        taken_over(tmp_path / "r.json", changed)
    assert sentence in str(refused.value)
    assert "--restart" in str(refused.value)


def test_where_long_settings_differ_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    rules = ["bh:0.01", "top-k:5", "top-p:0.4"]
    with Journal(path) as journal:
        journal.begin(setting(rules=rules))
        journal.add("0", {"value": 1})
    for others, shown in (
        (rules[:2], '["bh:0.01", "top-k:5", … then, ["bh:0.01", "top-k:5"] now'),
        ([*rules[:2], "top-p:0.45,max_k=16"], '…op-p:0.4"] then, …op-p:0.45,max_k=16"] now'),
        (
            [*rules[:2], "top-p:0.4,weights=renormalize"],
            '…op-p:0.4"] then, …op-p:0.4,weights=renorm… now',
        ),
    ):
        with Journal(path) as journal, pytest.raises(InputError) as caught:
            journal.begin(setting(rules=others))
        assert f"other settings: rules ({shown})." in str(caught.value)


def test_many_differences_are_counted(tmp_path: Path) -> None:
    leave(tmp_path / "r.json", x={"a": 1})
    other = {"prompts": [], "rules": [], "seeds": 2, "generation": {"seed": 9}}
    with pytest.raises(InputError, match="and 1 more"):
        Journal(tmp_path / "r.json").check("sweep", other)


def test_time_and_place_the_models_folder_and_the_row_product_are_no_settings(
    tmp_path: Path,
) -> None:
    leave(tmp_path / "r.json", x={"a": 1})
    model = {**MODEL, "name": "b", "expert_path": "selected experts, one product each (other)"}
    moved = {"model": model, "environment": {"python": "4"}, "started_at": "now"}
    assert taken_over(tmp_path / "r.json", HEADER | moved) == {"x": {"a": 1}}


def test_settings_can_be_checked_before_the_model_is_known(tmp_path: Path) -> None:
    leave(tmp_path / "r.json", x={"a": 1})
    journal = Journal(tmp_path / "r.json")
    journal.check("sweep", {"prompts": ["Once"]})
    with pytest.raises(InputError, match="prompts"):
        journal.check("sweep", {"prompts": ["Twice"]})
    with pytest.raises(InputError, match="kind"):
        journal.check("evaluation", {})


def test_restart_replaces_the_result_only_when_it_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    finish(path, x={"a": 1})
    before = path.read_bytes()
    with Journal(path, restart=True) as journal:
        assert journal.begin(setting(prompts=["Twice"])) == {}
        journal.add("x", {"a": 2})
        assert path.read_bytes() == before
        assert journal.finish(b"new", holds_rows=True)
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.json", b"{"), ("r.json", b"[]"), ("r.json", b"\xff"), ("r.json", b'{"sides": {}}'),
        ("r.csv", b"a,b\n"), ("r.json.rows.jsonl", b""), ("r.json.rows.jsonl", b"{}\n[]\n"),
        ("r.json.rows.jsonl", b"{\n{}\n"), ("r.json.rows.jsonl", b'{"settings": {}}\n{"a": 1}\n'),
        ("r.json", b'{"rows": [], "skipped": null}'), ("r.json", b'{"rows": [1], "settings": {}}'),
        ("r.json", b'{"rows": [], "command": "nonsense"}'),
    ],
)  # fmt: skip
def test_a_file_of_something_else_is_never_overwritten(
    name: str, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="--restart"):
        Journal(tmp_path / name.removesuffix(".rows.jsonl"))
    assert (tmp_path / name).read_bytes() == content


def test_an_error_keeps_the_rows_there_are(tmp_path: Path) -> None:
    with pytest.raises(MemoryError), Journal(tmp_path / "r.json") as journal:  # noqa: PT012
        journal.begin(HEADER)
        journal.add("x", {"a": 1})
        assert journal.unfinished_rows == 1
        raise MemoryError
    assert journal.unfinished_rows == 0
    assert taken_over(tmp_path / "r.json") == {"x": {"a": 1}}


def test_without_a_path_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Journal(None) as journal:
        assert journal.begin(HEADER) == {}
        journal.add("x", {"a": 1})
        assert journal.rows == {"x": {"a": 1}}
        assert not journal.finish(b"", holds_rows=True)
    assert list(tmp_path.iterdir()) == []


def test_a_result_is_json_with_a_row_a_line() -> None:
    rows: dict[str, Row] = {"x": {"a": [1, 2]}, "y": {"a": "☃"}}
    content = with_rows({"kind": "sweep", "n": None}, rows)
    expected = [{"key": "x", "a": [1, 2]}, {"key": "y", "a": "☃"}]
    assert json.loads(content) == {"kind": "sweep", "n": None, "rows": expected}
    assert '  {"key": "y", "a": "☃"}' in content.decode().splitlines()
    assert json.loads(with_rows({"kind": "sweep"}, {})) == {"kind": "sweep", "rows": []}


@pytest.mark.skipif(sys.platform != "linux", reason="Writes into /dev/full")
def test_a_full_disk_is_told_and_its_row_is_not_counted(tmp_path: Path) -> None:
    def fill(journal: Journal) -> None:
        with journal:
            journal.begin(HEADER)
            journal.add("0", {"a": 1})
            assert journal._file is not None
            journal._file.close()
            journal._file = open("/dev/full", "ab")  # noqa: SIM115
            try:
                journal.add("1", {"a": 2})
            finally:
                assert journal.unfinished_rows == 1

    with pytest.raises(EngineError, match=r"r\.json\.rows\.jsonl could not be written: No space"):
        fill(Journal(tmp_path / "r.json"))
    assert taken_over(tmp_path / "r.json") == {"0": {"a": 1}}
