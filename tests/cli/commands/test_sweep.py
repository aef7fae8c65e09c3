"""`bh-studio sweep` as a person or a script runs it, on a tiny checkpoint."""

from __future__ import annotations

import csv
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from bh_studio import cli
from bh_studio.__main__ import build_parser
from tests.cli.conftest import Start, version
from tests.tiny_olmoe import CONTEXT, LAYERS, TOP_K

PROMPT = "Once upon a time"


def sweep(*arguments: str, prompt: str = PROMPT, tokens: int = 12) -> int:
    common = ["sweep", prompt, "--max-new-tokens", str(tokens)]
    return cli.run(build_parser().parse_args([*common, *arguments]))


def without_times(document: dict[str, Any]) -> dict[str, Any]:
    """A result without what differs from run to run."""
    times = ("started_at", "finished_at", "tokens_per_second", "time_to_first_token_s")
    kept = {name: value for name, value in document.items() if name not in times}
    return (
        {**kept, "rows": [without_times(row) for row in kept["rows"]]} if "rows" in kept else kept
    )


def cut(journal: Path, rows: int) -> None:
    """Leave the header and `rows` rows, as if the program had been killed after them."""
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: 1 + rows]) + b'{"alpha": 0.')


def journal_of(result: Path) -> Path:
    return result.with_name(f"{result.name}.rows.jsonl")


def test_a_row_for_the_baseline_and_each_alpha(
    checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("--model", checkpoint) == 0
    captured = capsys.readouterr()
    rows = {line.split()[0]: line.split()[1:] for line in captured.out.splitlines() if line.strip()}
    assert rows["alpha"] == [
        "tokens",
        "experts",
        "std",
        "min_k",
        "max_k",
        "same",
        "differs",
        "tok/s",
    ]
    assert rows["baseline"][:7] == ["12", f"{TOP_K}.00", "0.00", "-", "-", "-", "-"]
    means = [float(rows[alpha][1]) for alpha in ("0.01", "0.05", "0.1", "0.2")]
    assert 1 <= means[0] < means[-1] <= 16
    assert means == sorted(means)
    assert captured.err.splitlines() == [
        "Loading the model ...", *(f"{done} of 5 answers" for done in range(1, 6))
    ]  # fmt: skip


def test_analyze_changes_no_answer_and_says_so(
    checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("--model", checkpoint, "--mode", "analyze", "--alphas", "0.05") == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert rows["0.05"][5:7] == ["100.0%", "-"]
    assert float(rows["0.05"][1]) != TOP_K
    assert "BH's counts are simulated" in out


def test_json_on_standard_output_and_in_the_file_are_the_same(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    assert sweep("--model", checkpoint, "--json", "--out", str(out), "--alphas", "0.2", "0.02") == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(out.read_text())
    assert document["complete"] is True
    assert document["settings"]["rules"] == ["bh:0.2,max_k=16", "bh:0.02,max_k=16"]
    assert [row["alpha"] for row in document["rows"]] == [None, 0.2, 0.02]
    baseline, *others = document["rows"]
    assert "agreement" not in baseline
    for row in others:
        same = [a == b for a, b in zip(baseline["token_ids"], row["token_ids"], strict=True)]
        assert row["agreement"] == sum(same) / 12
        assert row["matching_tokens"] == sum(same)
        assert row["first_difference"] == (same.index(False) if False in same else None)
        assert len(row["statistics"]["per_layer_mean"]) == LAYERS
        assert row["finish_reason"] == "max_new_tokens"


def test_csv_has_a_line_a_row(checkpoint: str, tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    assert sweep("--model", checkpoint, "--out", str(out)) == 0
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["alpha"] for row in rows] == ["", "0.01", "0.05", "0.1", "0.2"]
    assert rows[0]["agreement"] == ""
    assert rows[0]["mean_experts"] == f"{TOP_K}.0"
    assert all(row["tokens"] == "12" for row in rows)


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("ending", [".json", ".csv"])
def test_a_killed_sweep_goes_on_and_ends_the_same(
    rows: int, ending: str, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    whole, resumed = tmp_path / "whole.csv", tmp_path / f"resumed{ending}"
    assert sweep("--model", checkpoint, "--json", "--out", str(whole)) == 0
    expected = json.loads(capsys.readouterr().out)
    journal_of(resumed).write_bytes(journal_of(whole).read_bytes())
    cut(journal_of(resumed), rows)
    assert sweep("--model", checkpoint, "--json", "--out", str(resumed)) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert without_times(document) == without_times(expected)
    assert document["rows"][:rows] == expected["rows"][:rows]
    taken = (
        f"{resumed} has all 5" if rows == 5 else f"{rows} of 5 answers taken over from {resumed}"
    )
    assert taken in captured.err
    assert f"Saved {resumed}" in captured.err
    assert journal_of(resumed).exists() == (ending == ".csv")


@pytest.mark.parametrize("ending", [".json", ".csv"])
def test_a_finished_sweep_is_only_printed(
    ending: str, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"r{ending}"
    assert sweep("--model", checkpoint, "--out", str(out)) == 0
    first, before = capsys.readouterr().out, version(out)
    assert sweep("--model", checkpoint, "--out", str(out)) == 0
    captured = capsys.readouterr()
    assert captured.out == first
    assert captured.err.splitlines() == [
        "Loading the model ...", f"{out} has all 5 answers already."
    ]  # fmt: skip
    assert version(out) == before


def test_prompts_that_are_refused_are_not_counted_as_answers_to_come(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, out = tmp_path / "p.txt", tmp_path / "r.json"
    prompts.write_text("x" * CONTEXT + "\nThe king")
    arguments = ["sweep", "--prompts-file", str(prompts), "--max-new-tokens", "4"]
    arguments += ["--model", checkpoint, "--alphas", "0.1", "--out", str(out)]
    skipped = f'The prompt "{"x" * 39}…" is skipped. The prompt has {CONTEXT} tokens'
    for said in (["1 of 2 answers", "2 of 2 answers", skipped, f"Saved {out}"],
                 [f"{out} has all 2 answers already.", skipped]):  # fmt: skip
        assert cli.run(build_parser().parse_args(arguments)) == 0
        lines = capsys.readouterr().err.splitlines()[1:]
        assert [line.partition(";")[0] for line in lines] == said
    assert list(json.loads(out.read_text())["refused"]) == ["0"]


def test_other_settings_are_refused_before_the_model_is_loaded(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    assert sweep("--model", checkpoint, "--out", str(out)) == 0
    before = out.read_bytes()
    capsys.readouterr()
    assert sweep("--model", "/nowhere", "--out", str(out), "--seed", "3") == 2
    captured = capsys.readouterr()
    assert "generation seed (0 then, 3 now)" in captured.err
    assert captured.err.count("\n") == 1
    assert out.read_bytes() == before
    assert sweep("--model", checkpoint, "--out", str(out), "--seed", "3", "--restart") == 0
    assert json.loads(out.read_text())["settings"]["generation"]["seed"] == 3


def test_another_model_is_refused(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    assert sweep("--model", checkpoint, "--out", str(out)) == 0
    document = json.loads(out.read_text())
    document["model"]["fingerprint"] = "another"
    out.write_text(json.dumps(document))
    assert sweep("--model", checkpoint, "--out", str(out)) == 2
    assert "model fingerprint (another then" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--alphas", "0.1", "0.2", "0.1"], 2, "alpha 0.1 is given twice"),
        (["--alphas", "0.1", "0.10"], 2, "alpha 0.1 is given twice"),
        (["--alphas", "0"], 2, "alpha must lie between 0 and 1"),
        (["--alphas", "0.1", "1.5"], 2, "alpha must lie between 0 and 1"),
        (["--alphas", "nan"], 2, "alpha must lie between 0 and 1"),
        (["--min-k", "17"], 2, "min_k must not exceed max_k"),
        (["--restart"], 2, "--restart needs --out"),
        (["--max-k", "17"], 1, "16 experts"),
        (["--model", "/nowhere"], 1, "no config.json"),
    ],
)
def test_bad_input_gets_one_sentence_and_leaves_no_file(
    arguments: list[str], code: int, sentence: str, checkpoint: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = [] if "--restart" in arguments else ["--out", str(tmp_path / "r.json")]
    assert sweep("--model", checkpoint, *out, *arguments) == code
    captured = capsys.readouterr()
    assert sentence in captured.err.splitlines()[-1]
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_prompt_after_the_alphas_is_taken_for_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args(["sweep", "--alphas", "0.1", "Once upon"])
    assert stop.value.code == 2
    assert "Once upon is not a number; PROMPT goes before --alphas" in capsys.readouterr().err


def test_an_empty_prompt_is_refused_and_leaves_no_file(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("--model", checkpoint, "--out", str(tmp_path / "r.json"), prompt=" ") == 2
    assert "The prompt is empty." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["r.txt", "r.bhsession", "missing/r.json"])
def test_a_bad_output_file_is_refused_before_the_work(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        sweep("--model", "/nowhere", "--out", str(tmp_path / name))
    assert stop.value.code == 2
    assert name in capsys.readouterr().err


def test_a_file_of_something_else_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    out.write_text('{"mine": 1}')
    assert sweep("--model", "/nowhere", "--out", str(out)) == 2
    assert "exists already" in capsys.readouterr().err
    assert out.read_text() == '{"mine": 1}'


def test_a_reader_that_leaves_costs_no_result(
    checkpoint: str, tmp_path: Path, start: Start
) -> None:
    out = tmp_path / "r.json"
    program = start(
        "sweep", PROMPT, "--max-new-tokens", "12", "--model", checkpoint, "--out", str(out)
    )
    assert program.stdout is not None
    assert program.stderr is not None
    program.stdout.readline()
    program.stdout.close()
    messages = program.stderr.read()
    assert program.wait(timeout=60) == 0
    assert messages.splitlines()[-1] == f"Saved {out}"
    assert len(json.loads(out.read_text())["rows"]) == 5


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_keeps_the_finished_rows_and_says_how_to_go_on(
    checkpoint: str, tmp_path: Path, start: Start
) -> None:
    out = tmp_path / "r.json"
    alphas = [str(alpha / 1000) for alpha in range(1, 200)]
    arguments = ("sweep", PROMPT, "--max-new-tokens", "40", "--model", checkpoint)
    program = start(*arguments, "--alphas", *alphas, "--out", str(out))
    assert program.stdout is not None
    assert program.stderr is not None
    while not program.stderr.readline().startswith("2 of 200"):
        pass
    program.send_signal(signal.SIGINT)
    _, messages = program.communicate(timeout=60)
    assert program.returncode == 130
    said = messages.splitlines()[-1]
    assert said.startswith("Stopped after ")
    assert said.endswith(" of 200 answers. They are kept; the same command goes on from there.")
    done = int(said.split()[2])
    assert len(journal_of(out).read_text().splitlines()) == 1 + done
    assert not out.exists()
