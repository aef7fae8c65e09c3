"""`bh-studio compare --prompts-file` as a person or a script runs it, on a tiny checkpoint."""

from __future__ import annotations

import csv
import json
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bh_studio
from bh_studio import cli
from bh_studio.__main__ import build_parser
from bh_studio.engine.reading import Result
from bh_studio.engine.records.batch import BatchResult
from bh_studio.engine.rules import parse_rule
from tests.cli.conftest import Start, version
from tests.tiny_olmoe import CONTEXT, LAYERS, TOP_K

LINES = (
    '{"prompt": "Once upon a time", "id": "a", "line": "mine"}',
    "{broken",
    '{"prompt": "The king", "id": "b"}',
    json.dumps({"prompt": "x" * CONTEXT}),
    '"Two\\nlines"',
)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return path


def compare(prompts: Path, *arguments: str, tokens: int = 12) -> int:
    common = ["compare", "--prompts-file", str(prompts), "--max-new-tokens", str(tokens)]
    return cli.run(build_parser().parse_args([*common, "--max-k", str(TOP_K), *arguments]))


def without_times(value: Any) -> Any:
    """A result without what differs from run to run."""
    times = ("started_at", "finished_at", "tokens_per_second", "time_to_first_token_s")
    if isinstance(value, dict):
        return {name: without_times(item) for name, item in value.items() if name not in times}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def test_a_row_a_prompt_and_the_numbers_of_all(
    prompts: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(prompts, "--model", checkpoint) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [
        ["line", "side"], ["1", "B"], ["3", "B"], ["5", "B"]
    ]  # fmt: skip
    assert [line.rpartition("  ")[2] for line in lines[1:4]] == [
        "Once upon a time", "The king", "Two lines"
    ]  # fmt: skip
    (totals,) = [line.split() for line in lines if line.startswith("tokens  ")]
    assert totals == ["tokens", "36", "36"]
    assert "3 prompts done, 2 rows skipped." in lines
    assert captured.err.splitlines() == [
        "Line 2 is skipped. It is not valid JSON.",
        "Loading the model ...",
        "1 of 4 prompts",
        "2 of 4 prompts",
        "3 of 4 prompts",
        "Line 4 is skipped. The prompt has 128 tokens; this model reads at most 128, the answer "
        "included.",
        "4 of 4 prompts",
    ]


def test_json_has_rows_skipped_rows_and_the_numbers_of_all(
    prompts: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    assert compare(prompts, "--model", checkpoint, "--json", "--out", str(out)) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(out.read_text(encoding="utf-8"))
    assert document["prompts_file"]["name"] == "prompts.jsonl"
    rows, overall = document["rows"], document["overall"]
    assert [(row["line"], row["prompt"], row["fields"]) for row in rows] == [
        (1, "Once upon a time", {"id": "a", "line": "mine"}),
        (3, "The king", {"id": "b"}),
        (5, "Two\nlines", {}),
    ]
    assert [row["line"] for row in document["skipped"]] == [2, 4]
    assert (overall["prompts"], overall["skipped"]) == (3, 2)
    for side in range(2):
        statistics = [row["sides"][side]["statistics"] for row in rows]
        pooled = overall["sides"][side]["statistics"]
        assert pooled["tokens"] == 36
        assert pooled["mean"] == pytest.approx(np.mean([s["mean"] for s in statistics]))
        assert len(pooled["per_layer_mean"]) == LAYERS
    matching = sum(row["sides"][1]["matching_tokens"] for row in rows)
    assert overall["sides"][1]["agreement"] == matching / 36


def test_a_row_is_what_a_comparison_of_its_prompt_says(
    prompts: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(prompts, "--model", checkpoint, "--json") == 0
    row = json.loads(capsys.readouterr().out)["rows"][0]
    arguments = ["--model", checkpoint, "--max-new-tokens", "12", "--max-k", str(TOP_K), "--json"]
    parser = build_parser()
    assert cli.run(parser.parse_args(["compare", "Once upon a time", *arguments])) == 0
    session = json.loads(capsys.readouterr().out)
    for said, record in zip(row["sides"], session["sides"], strict=True):
        assert said.get("first_difference") == record["first_difference"]
        assert said["text"] == record["text"]
        assert said["statistics"] == record["statistics"]["answer"]


def test_csv_has_a_line_for_every_row_and_carries_columns(
    prompts: Path, checkpoint: str, tmp_path: Path
) -> None:
    out = tmp_path / "r.csv"
    assert compare(prompts, "--model", checkpoint, "--out", str(out)) == 0
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["line"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [row["id"] for row in rows] == ["a", "", "b", "", ""]
    assert rows[0]["input_line"] == "mine"
    assert rows[1]["skipped"] == "It is not valid JSON."
    assert rows[4]["prompt"] == "Two\nlines"
    assert [row["B_tokens"] for row in rows] == ["12", "", "12", "", "12"]
    assert rows[0]["A_mean_experts"] == f"{TOP_K}.0"
    assert (rows[0]["A_rule"], rows[0]["B_rule"]) == ("", f"bh:0.05,max_k={TOP_K}")


def test_several_sides_have_a_line_each(
    prompts: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    rules = ("--rule", "top-k:2", "--rule", "top-k:1", "--no-own")
    asked = ["compare", "--prompts-file", str(prompts), "--model", checkpoint, *rules]
    options = ["--max-new-tokens", "12", "--out", str(out)]
    assert cli.run(build_parser().parse_args([*asked, *options])) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:7]] == [
        [line, side] for line in "135" for side in "AB"
    ]
    assert lines[1].endswith("  Once upon a time")
    assert "with A's token" in " ".join(lines)
    assert any(line.startswith("B has the token of A at ") for line in lines)
    document = json.loads(out.read_text(encoding="utf-8"))
    assert (document["schema_version"], document["settings"]["sides"]) == (
        3,
        ["top-k:2", "top-k:1"],
    )
    assert [side["statistics"]["mean"] for side in document["overall"]["sides"]] == [2.0, 1.0]
    read = bh_studio.read(out)
    assert isinstance(read, Result)
    assert isinstance(read.record, BatchResult)
    assert read.record.sides == (parse_rule("top-k:2"), parse_rule("top-k:1"))
    assert cli.run(build_parser().parse_args([*asked[:-1], *options])) == 2
    assert "other settings: sides" in capsys.readouterr().err


@pytest.mark.parametrize("rows", [1, 3, 4])
@pytest.mark.parametrize("ending", [".json", ".csv"])
def test_a_killed_run_goes_on_and_ends_the_same(
    rows: int, ending: str, prompts: Path, checkpoint: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    whole, resumed = tmp_path / "whole.csv", tmp_path / f"resumed{ending}"
    assert compare(prompts, "--model", checkpoint, "--json", "--out", str(whole)) == 0
    expected = json.loads(capsys.readouterr().out)
    lines = (tmp_path / "whole.csv.rows.jsonl").read_bytes().splitlines(keepends=True)
    journal = tmp_path / f"{resumed.name}.rows.jsonl"
    journal.write_bytes(b"".join(lines[: 1 + rows]) + b'{"line": 5, "pro')
    assert compare(prompts, "--model", checkpoint, "--json", "--out", str(resumed)) == 0
    captured = capsys.readouterr()
    assert without_times(json.loads(captured.out)) == without_times(expected)
    assert f"Saved {resumed}" in captured.err
    if ending == ".json":
        assert without_times(json.loads(resumed.read_text("utf-8"))) == without_times(expected)


@pytest.mark.parametrize("ending", [".json", ".csv"])
def test_a_finished_run_is_only_printed(
    ending: str, prompts: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"r{ending}"
    assert compare(prompts, "--model", checkpoint, "--out", str(out)) == 0
    first, before = capsys.readouterr().out, version(out)
    renamed = prompts.rename(tmp_path / "renamed.jsonl")
    assert compare(renamed, "--model", checkpoint, "--out", str(out)) == 0
    captured = capsys.readouterr()
    assert captured.out == first
    assert f"{out} has all 4 prompts already." in captured.err
    assert "Saved" not in captured.err
    assert version(out) == before


def test_other_prompts_are_refused(
    prompts: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    assert compare(prompts, "--model", checkpoint, "--out", str(out)) == 0
    prompts.write_text('"Another"')
    assert compare(prompts, "--model", "/nowhere", "--out", str(out)) == 2
    assert "prompts sha256" in capsys.readouterr().err


def test_a_file_whose_prompts_are_all_too_long_fails_and_says_so(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, out = tmp_path / "p.txt", tmp_path / "r.json"
    prompts.write_text("x" * CONTEXT)
    assert compare(prompts, "--model", checkpoint, "--out", str(out)) == 1
    captured = capsys.readouterr()
    assert "None of the prompts in p.txt could be answered." in captured.err.splitlines()[-1]
    assert "0 prompts done, 1 row skipped." in captured.out
    document = json.loads(out.read_text())
    assert (document["rows"], document["overall"]["sides"][1]["agreement"]) == ([], None)


def test_the_field_of_the_prompts_is_a_setting(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, out = tmp_path / "P.JSONL", tmp_path / "r.json"
    prompts.write_text('{"turns": ["Once", "Then"], "prompt": "no"}')
    options = ("--model", checkpoint, "--out", str(out))
    assert compare(prompts, *options, "--prompts-field", "turns") == 0
    document = json.loads(out.read_text())
    assert document["settings"]["prompts_field"] == "turns"
    (row,) = document["rows"]
    assert (row["prompt"], row["fields"]["turns"]) == ("Once", ["Once", "Then"])
    capsys.readouterr()
    assert compare(prompts, *options) == 2
    assert "prompts field (turns then, prompt now)" in capsys.readouterr().err


def test_a_field_needs_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("compare", "sweep"):
        arguments = [command, "Once", "--prompts-field", "turns"]
        assert cli.run(build_parser().parse_args(arguments)) == 2
        assert "--prompts-field needs --prompts-file." in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "\n\n", "{\n3\n"])
def test_a_file_without_prompts_fails_before_the_model_is_loaded(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text(content)
    assert compare(prompts, "--model", "/nowhere", "--out", str(tmp_path / "r.json")) == 1
    captured = capsys.readouterr()
    assert "p.jsonl holds no prompts" in captured.err
    assert "Loading" not in captured.err
    assert [path.name for path in tmp_path.iterdir()] == ["p.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["Once", "--prompts-file", "p.txt"], "not allowed with argument"),
        ([], "one of the arguments PROMPT --prompts-file --text is required"),
        (["--prompts-file", "missing.txt"], "missing.txt: there is no such file"),
        (["--prompts-file", "p.md"], "p.md: use one of .txt, .csv, .jsonl"),
    ],
)
def test_wrong_arguments_end_with_two(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("One")
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args(["compare", *arguments])
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--out", "r.bhsession"], "many prompts go to one of .json, .csv, not to .bhsession"),
        (["--out", "p.csv", "--restart"], "p.csv is read by this command"),
        (["--restart"], "--restart needs --out"),
        (["--alpha", "2"], "alpha must lie between 0 and 1"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("p.csv").write_text("prompt\nOne\n")
    assert compare(Path("p.csv"), "--model", "/nowhere", *arguments) == 2
    assert sentence in capsys.readouterr().err
    assert Path("p.csv").read_text() == "prompt\nOne\n"


def test_one_prompt_takes_no_restart(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(build_parser().parse_args(["compare", "Once", "--restart"])) == 2
    assert "--restart needs --prompts-file" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_keeps_the_finished_rows_and_the_next_run_goes_on(
    checkpoint: str, tmp_path: Path, start: Start
) -> None:
    prompts, out = tmp_path / "p.txt", tmp_path / "r.json"
    prompts.write_text("\n".join(f"Prompt {number}" for number in range(60)))
    arguments = ("compare", "--prompts-file", str(prompts), "--model", checkpoint, "--json")
    common = (*arguments, "--max-new-tokens", "20", "--out", str(out))
    program = start(*common)
    assert program.stderr is not None
    while not program.stderr.readline().startswith("2 of 60"):
        pass
    program.send_signal(signal.SIGINT)
    output, messages = program.communicate(timeout=60)
    assert program.returncode == 130
    assert "They are kept; the same command goes on from there." in messages.splitlines()[-1]
    partial = json.loads(output)
    assert partial["complete"] is False
    done = len(partial["rows"])
    assert not out.exists()
    program = start(*common)
    output, messages = program.communicate(timeout=120)
    assert program.returncode == 0
    assert f"{done} of 60 prompts taken over from {out}." in messages
    document = json.loads(output)
    assert document["rows"][:done] == partial["rows"]
    assert [row["line"] for row in document["rows"]] == list(range(1, 61))
