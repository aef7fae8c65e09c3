"""Former results with rows that are none: told with a way out, and left as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bh_studio.__main__ import build_parser
from bh_studio.cli import run
from tools.campaign_readers import FORMER_PROMPTS, KEEPING, RESULTS

Change = Callable[[dict[str, Any]], object]


def bh_studio(*arguments: str) -> int:
    return run(build_parser().parse_args(arguments))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished result of each command that keeps its rows in it."""
    folder = tmp_path_factory.mktemp("results")
    for name, command in KEEPING.items():
        if name.endswith(".json"):
            assert bh_studio(*command, "--out", str(folder / name)) == 0
    return folder


def refused(
    out: Path, command: tuple[str, ...], document: object, capsys: pytest.CaptureFixture[str]
) -> str:
    """What is said of `document` at `out`, which stays there."""
    out.write_text(json.dumps(document))
    before = out.read_bytes()
    assert bh_studio(*command, "--out", str(out)) == 2
    assert out.read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    whole = capsys.readouterr().err
    assert "goes on from there" not in whole
    said = whole.rpartition("bh-studio: ")[2]
    assert "--restart" in said
    return said


def statistics(row: dict[str, Any]) -> dict[str, Any]:
    sides = row.get("sides")
    found: dict[str, Any] = (sides[1] if sides else row)["statistics"]
    return found


@pytest.mark.parametrize(
    "change",
    [
        lambda row: statistics(row).update(mean={"x": 1}),
        lambda row: statistics(row)["per_layer_mean"].append(2.0),
        lambda row: statistics(row).update(per_layer_mean=[2.0] * 9, per_layer_std=[0.0] * 9),
        lambda row: statistics(row).update(mean=-1.0),
        lambda row: statistics(row).update(mean=1e30),
        lambda row: statistics(row).update(share_clamped_max=1.5),
        lambda row: statistics(row).update(histogram=[]),
        lambda row: statistics(row).update(histogram=[10**20]),
        lambda row: statistics(row).update(tokens=10**6),
        lambda row: row.clear() or row.update(key="1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["batch.json", "sweep.json"])
def test_answers_of_another_shape(
    name: str, change: Change, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads((results / name).read_bytes())
    change(document["rows"][0])
    said = refused(tmp_path / name, KEEPING[name], document, capsys)
    assert "is not a result of this command: The row" in said or "cannot be read" in said


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row["contenders"].pop(),
        lambda row: row["contenders"][0]["quality"].append([0.0, 0.0, 0.0]),
        lambda row: row["contenders"][0]["counts"][0].pop(),
        lambda row: row["contenders"][0]["quality"][0].__setitem__(0, 1e300),
        lambda row: row["contenders"][0]["quality"][0].__setitem__(0, -5.0),
        lambda row: row["contenders"][0]["quality"][0].__setitem__(2, 1e6),
        lambda row: row["contenders"][0]["counts"][0][0].__setitem__(0, 1e12),
        lambda row: row["contenders"][0].update(rows_read=0),
        lambda row: row["contenders"][0].update(rows_read=10**300, expert_rows=10**300),
        lambda row: row["contenders"][0].update(expert_rows=10**40),
        lambda row: row["contenders"][0].update(expert_rows=-1),
        lambda row: row.update(contenders={"x": 1}),
    ],
)
@pytest.mark.parametrize("name", ["evaluation.json", "budget.json"])
def test_sums_of_another_shape(
    name: str, change: Change, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads((results / name).read_bytes())
    change(next(row for row in document["rows"] if "contenders" in row))
    said = refused(tmp_path / name, KEEPING[name], document, capsys)
    assert "is not a result of this command: The row" in said


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row["kl"].pop(),
        lambda row: row["kl"].__setitem__(0, 1e300),
        lambda row: row["counts"].pop(),
        lambda row: row["raw_counts"][0].__setitem__(0, 10**9),
        lambda row: row["ranks"].__setitem__(0, 0),
        lambda row: row["log_probabilities"].__setitem__(0, 0.5),
        lambda row: row.update(rule="top-k:2"),
        lambda row: row.update(rule=[None]),
        lambda row: row.pop("rule"),
    ],
)
def test_readings_of_another_shape(
    change: Change, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads((results / "same_text.json").read_bytes())
    change(document["rows"][1])
    said = refused(tmp_path / "t.json", KEEPING["same_text.json"], document, capsys)
    assert "is not a result of this command: The row" in said


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.update(used=[[1]]),
        lambda row: row.update(used=[[0] * len(row["used"][0])] * len(row["used"])),
        lambda row: row.update(curves=[[[1.0, 2.0]]], tokens=3) or row.pop("used"),
    ],
)
def test_means_of_another_shape(
    change: Change, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads((results / "budget.json").read_bytes())
    change(next(row for row in document["rows"] if "used" in row))
    said = refused(tmp_path / "b.json", KEEPING["budget.json"], document, capsys)
    assert "is not a result of this command: The row" in said


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda d: d.update(model=3), "model is 3, not an object"),
        (lambda d: d.update(settings=[]), "settings is a list, not an object"),
        (lambda d: d.pop("model"), "cannot be read"),
        (lambda d: d.update(kind=None), "kind is wrong: a text is None"),
        (lambda d: d.update(finished_at=float("inf")), "is no JSON"),
        (lambda d: d["rows"].append(7), "cannot be read"),
        (lambda d: d["rows"][0].update(line=float("inf")), "is no JSON"),
    ],
)
def test_headers_that_are_none(
    change: Change, sentence: str, results: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    document = json.loads((results / "batch.json").read_bytes())
    change(document)
    assert sentence in refused(tmp_path / "b.json", KEEPING["batch.json"], document, capsys)


@pytest.mark.parametrize(
    "computation",
    [{"threads": 0, "row_products": {}}, {"threads": "x"}, [], {"threads": 1, "row_products": [1]}],
)
def test_a_journal_that_says_no_computation(
    computation: object, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads((results / "batch.json").read_bytes())
    header = {name: value for name, value in document.items() if name not in ("rows", "skipped")}
    lines = [{**header, "computation": computation}, *document["rows"][:1]]
    rows = tmp_path / "b.json.rows.jsonl"
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert bh_studio(*KEEPING["batch.json"], "--out", str(tmp_path / "b.json")) == 2
    said = capsys.readouterr().err
    assert "is not a result of this command: " in said
    assert "--restart" in said
    assert len(rows.read_text().splitlines()) == 2


def test_rows_of_the_first_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads((RESULTS / "whole_prompts.json").read_bytes())
    document["rows"][0]["sides"]["bh"]["statistics"]["per_layer_mean"].append(1.0)
    said = refused(tmp_path / "a.json", FORMER_PROMPTS, document, capsys)
    assert "is not a result of this command: The row '1'" in said
