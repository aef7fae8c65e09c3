"""Reading what was saved: what a file is, of which version, and that a bad one is told of."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bh_studio
from bh_studio.engine import reading
from bh_studio.engine.errors import InputError
from bh_studio.engine.files import bounded
from bh_studio.engine.reading import Result, read
from bh_studio.engine.records.batch import BatchResult
from bh_studio.engine.records.benchmark.document import document as bench_document
from bh_studio.engine.records.benchmark.result import BenchResult
from bh_studio.engine.records.budget import BudgetResult, Solution
from bh_studio.engine.records.evaluation import ContenderRow, Control
from bh_studio.engine.records.recording import RecordedLogits
from bh_studio.engine.records.rows import FilePrompt, PromptRow, SkippedRow
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.sessions.exports import export_json, export_routed_experts
from bh_studio.engine.records.sweep import SweepResult, SweepRow
from bh_studio.engine.rules.text import parse_rule
from tests.bench_results import result as bench_result
from tests.test_architecture import HEAVY, QT, loaded_after

DATA = Path(__file__).parents[1] / "data"
FORMER = DATA / "former"
RESULTS = FORMER / "results" / "116cce4"
SWEEP, PROMPTS = RESULTS / "whole_sweep.json", RESULTS / "whole_prompts.json"
EVALUATION, BUDGET = RESULTS / "evaluation.json", RESULTS / "budget.json"
SESSIONS = sorted((FORMER / "sessions").glob("*.bhsession"))


def written(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document


def result_of(path: Path) -> Result:
    found = read(path)
    assert isinstance(found, Result)
    return found


def refused(path: Path, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        read(path)
    assert sentence in str(caught.value)


# --- what each kind of file gives -----------------------------------------------------------


def test_the_package_hands_it_on_and_loads_nothing_for_it() -> None:
    assert bh_studio.read is read
    assert "read" in dir(bh_studio)
    with pytest.raises(AttributeError, match="no attribute 'write'"):
        bh_studio.write  # noqa: B018
    bare = loaded_after("import bh_studio")
    assert bare.isdisjoint({*HEAVY, *QT, "numpy", "msgspec"})


@pytest.mark.parametrize(
    "path",
    [*SESSIONS, FORMER / "calibrations" / "output.npz", SWEEP, PROMPTS, EVALUATION, BUDGET],
    ids=lambda path: path.stem,
)
def test_nothing_heavy_is_needed_to_read_a_file(path: Path) -> None:
    code = "import sys, bh_studio; bh_studio.read(sys.argv[1])"
    assert loaded_after(code, str(path)).isdisjoint(HEAVY + QT)


@pytest.mark.parametrize("path", SESSIONS, ids=lambda path: path.stem)
def test_a_session_of_each_version(path: Path) -> None:
    session = read(str(path))
    assert isinstance(session, Session)
    assert session.model.name == "tiny"


def test_a_session_is_shown_in_a_few_lines() -> None:
    shown = repr(read(FORMER / "runs" / "format_1_decided"))
    assert "array" not in shown
    assert "token_ids" not in shown
    assert len(shown) < 2000


def test_what_else_is_made_of_a_session_is_named(tmp_path: Path) -> None:
    session = read(FORMER / "runs" / "format_1_decided")
    assert isinstance(session, Session)
    export_routed_experts(session, tmp_path / "a.npz")
    refused(tmp_path / "a.npz", "a.npz is the export of a session: which experts ran.")
    for name, printed in (
        ("replayed.json", {"session": {"file": "a.bhsession"}, "note": "", "rows": []}),
        ("inspected.json", {"rule": "bh:0.1", "position": 3, "token": 1, "layers": []}),
    ):
        (tmp_path / name).write_text(json.dumps({"schema_version": 1, **printed}))
        refused(tmp_path / name, f"{name} says what rules do with a session. json.load reads it.")


def test_a_recording_and_a_bare_array(tmp_path: Path) -> None:
    recording = read(FORMER / "calibrations" / "output.npz")
    assert isinstance(recording, RecordedLogits)
    assert recording.logits.shape == (2, 307, 8)
    assert recording.origin is not None
    assert recording.origin.tokens == 307
    assert list(recording.factors) == ["output"]
    bare = read(DATA / "olmoe_router_logits_160.npz")
    assert isinstance(bare, RecordedLogits)
    assert bare.origin is None
    assert bare.logits.shape == (16, 10, 64)
    np.savez(tmp_path / "wide.npz", logits=np.ones((1, 2, 3)))
    wide = read(tmp_path / "wide.npz")
    assert isinstance(wide, RecordedLogits)
    assert wide.logits.dtype == np.float64


def test_a_sweep_of_version_1() -> None:
    sweep, document = result_of(SWEEP), written(SWEEP)
    assert (sweep.kind, sweep.is_complete) == ("sweep", True)
    assert (sweep.started_at, sweep.finished_at) == (
        document["started_at"], document["finished_at"],
    )  # fmt: skip
    assert sweep.model is not None
    assert sweep.model.fingerprint == document["model"]["fingerprint"]
    assert sweep.environment == document["environment"]
    assert sweep.document == document
    assert sweep.settings["prompts"] == ["Once upon a time"]
    assert isinstance(sweep.record, SweepResult)
    assert sweep.record.seeds == 1
    for row, of_file in zip(sweep.rows, document["rows"], strict=True):
        assert isinstance(row, SweepRow)
        assert row.to_json() | of_file == row.to_json()
    assert [found.rule for found in sweep.summaries] == list(sweep.record.sides)
    assert sweep.record.sides[1] == parse_rule("bh:0.02,max_k=6")
    assert "rows" not in repr(sweep)


@pytest.mark.parametrize("commit", ["116cce4", "c1f6a0e"])
def test_a_batch_of_version_1(commit: str) -> None:
    path = FORMER / "results" / commit / "whole_prompts.json"
    batch, document = result_of(path), written(path)
    assert batch.kind == "batch"
    assert isinstance(batch.record, BatchResult)
    assert batch.rows == batch.record.rows
    lines = [row.line for row in batch.rows if isinstance(row, PromptRow | SkippedRow)]
    assert lines == [1, 2, 3, 4, 5, 7, 8]
    answered, refusals = batch.record.answered, batch.record.refused
    for row, of_file in zip(answered, document["rows"], strict=True):
        own, rule = row.to_json().pop("sides")
        assert own == of_file["sides"]["baseline"]
        shared = {name: of_file[name] for name in ("agreement", "matching_tokens")}
        assert rule | shared | of_file["sides"]["bh"] == rule
        assert row.asked == FilePrompt(of_file["line"], of_file["prompt"], of_file["fields"])
    assert [row.to_json() for row in refusals] == document["skipped"]
    assert batch.settings["prompt_format"] == document.get("prompt_format", "plain text")


def test_an_evaluation_of_version_1_has_estimates_and_no_sums() -> None:
    found, document = result_of(EVALUATION), written(EVALUATION)
    assert (found.kind, found.record, found.settings) == ("evaluation", None, {})
    assert (found.started_at, found.finished_at) == (None, None)
    for row, of_file in zip(found.rows, document["contenders"], strict=True):
        assert isinstance(row, ContenderRow)
        assert row.contender.label == of_file["label"]
        assert row.scores.to_dict() == of_file["scores"]
        assert row.on_front is of_file["on_front"]
        fixed = row.contender.control in (Control.FIXED, Control.FIXED_BY_LAYER)
        assert len(row.contender.means) == (2 if fixed else 0)


def test_a_budget_of_version_1_has_its_solutions() -> None:
    found, document = result_of(BUDGET), written(BUDGET)
    assert (found.kind, found.record) == ("budget", None)
    for row, name in zip(found.rows, ("one_level", "by_layer"), strict=True):
        assert isinstance(row, Solution)
        assert json.loads(json.dumps(row.to_json())) == document[name]


def test_an_unchecked_budget_of_version_1_is_whole(tmp_path: Path) -> None:
    document = {**written(BUDGET), "check": None}
    (tmp_path / "b.json").write_text(json.dumps(document))
    record = result_of(tmp_path / "b.json").record
    assert isinstance(record, BudgetResult)
    said = json.loads(json.dumps(record.to_json()))
    # What a model was not asked for then is not known.
    assert said["model"].pop("norm_topk_prob") is None
    assert said == {**document, "schema_version": 2}


@pytest.mark.parametrize(
    "left_out",
    [{}, {"pair_seconds": None, "mean_level": None, "memory_limit": None}, {"prefill": None}],
)
def test_a_benchmark(left_out: dict[str, Any], tmp_path: Path) -> None:
    made = bench_result(**left_out)
    (tmp_path / "bench.json").write_text(json.dumps(bench_document(made)))
    found = result_of(tmp_path / "bench.json")
    assert found.kind == "bench"
    assert isinstance(found.record, BenchResult)
    assert found.rows == found.record.contenders == made.contenders
    assert found.record == made
    assert found.model == made.model


def test_a_benchmark_that_was_stopped(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(json.dumps(bench_document(bench_result(rounds_asked=5))))
    assert not result_of(tmp_path / "bench.json").is_complete


# --- what is none of them -------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["sweep.json.rows.jsonl", "prompts.csv.rows.jsonl", "whole_prompts.csv.rows.jsonl"]
)
def test_rows_of_an_unfinished_run_are_named(name: str, tmp_path: Path) -> None:
    refused(RESULTS / name, "holds the rows of a run that is not finished, or was saved as .csv.")
    # Before the first row, and with one that was cut short.
    lines = (RESULTS / name).read_bytes().splitlines(keepends=True)
    for content in (lines[0], lines[0] + lines[1][:20]):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, "The same command goes on from there")


def test_a_missing_file_is_named_and_a_begun_one_too(tmp_path: Path) -> None:
    refused(tmp_path / "no.json", f"There is no file {tmp_path / 'no.json'}.")
    (tmp_path / "no.json.rows.jsonl").write_text("{}\n")
    refused(
        tmp_path / "no.json", "no.json.rows.jsonl beside it holds the rows of a run that is not"
    )
    refused(tmp_path, f"{tmp_path} is no folder of a run: it has no run.json.")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "_PATIENCE_SECONDS", 0.01)
    os.mkfifo(tmp_path / "pipe.bhsession")
    refused(tmp_path / "pipe.bhsession", "is no file but a pipe or a device")


def test_the_export_of_a_session_lacks_too_much(tmp_path: Path) -> None:
    session = read(SESSIONS[0])
    assert isinstance(session, Session)
    export_json(session, tmp_path / "export.json")
    refused(
        tmp_path / "export.json",
        "export.json is the export of a session, without its counts and times",
    )


@pytest.mark.parametrize("content", [b"", b"hello", b"[1, 2]", b"3", b"{}", b'{"kind": ["sweep"]}'])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    refused(tmp_path / "a.json", "a.json cannot be read: it is neither a session, a recording of")


def test_other_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("notes.txt", "x")
    refused(path, "a.zip cannot be read: it is neither")
    np.savez(path.with_suffix(".npz"), weights=np.ones(3))
    refused(path.with_suffix(".npz"), 'a.npz holds no array "logits"; it holds weights.')
    refused(FORMER / "calibrations" / "format_1.npz", "was written by another version")


@pytest.mark.parametrize("path", [SWEEP, PROMPTS, EVALUATION, BUDGET], ids=lambda path: path.stem)
def test_a_newer_version_is_refused(path: Path, tmp_path: Path) -> None:
    newest = 3 if path is PROMPTS else 2
    for version in (newest + 1, 0, "1", None):
        (tmp_path / "a.json").write_text(json.dumps({**written(path), "schema_version": version}))
        refused(
            tmp_path / "a.json",
            f"a.json has schema version {version!r}; this program reads 1 to {newest}.",
        )


def test_a_file_larger_than_a_result_can_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_MOST_BYTES", 2**20)
    (tmp_path / "a.json").write_bytes(b"{" + b" " * 2**20)
    refused(tmp_path / "a.json", "is longer than the 1 MiB that a result may have.")
