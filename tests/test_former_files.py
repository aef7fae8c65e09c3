"""Files that this version and earlier ones wrote: each is read, and stopped runs are gone on with.

tests/data/former/README.md says what wrote them. They stay as they are: what an earlier program
wrote lies on people's disks.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import shutil
import zipfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bh_studio.__main__ import build_parser
from bh_studio.cli import run
from bh_studio.engine.hub.cache import RepositoryCache
from bh_studio.engine.hub.snapshots import SnapshotRecord, load_records, recorded_repos
from bh_studio.engine.hub.source import HubSource
from bh_studio.engine.hub.status import HubState, hub_folder, hub_status
from bh_studio.engine.protocol.prompts_file import read_prompts
from bh_studio.engine.records.decisions.routed_experts import NO_EXPERT
from bh_studio.engine.records.recording import RecordingError, RecordingOrigin
from bh_studio.engine.records.runs.reader import load_run
from bh_studio.engine.records.session_file import load_session, save_session
from bh_studio.engine.records.terms import (
    Conversation,
    FinishReason,
    GenerationParameters,
    Keep,
    Turn,
)
from bh_studio.engine.routing.recordings import load_recording, load_router_logits
from bh_studio.engine.routing.replay import replay
from bh_studio.engine.rules.parameters import MixingWeights, Mode, RuleParameters, ScoreName
from bh_studio.engine.rules.text import parse_rule
from bh_studio.paths import data_dir
from bh_studio.settings import Settings, load_settings

FORMER = Path(__file__).parent / "data" / "former"
MODEL, SESSIONS, CALIBRATIONS = FORMER / "model", FORMER / "sessions", FORMER / "calibrations"
# Folders of results are named after the commits that wrote them. Results of the first do not say
# whether a prompt was plain text or a message; those of the first two name the way through the
# experts by another name than today, and not the decoder.
FIRST, SECOND, NEWEST = "c1f6a0e", "d97f7ac", "116cce4"
FINGERPRINT = "36a8ba74060cb8b5444a08bbf076340a"
NULL_SHA256 = "262eef3cb277801ba757e19069c7de59ccb0668e89b3f0204858b88b2a6750dc"

LOADING = (
    "--model", str(MODEL), "--device", "cpu", "--dtype", "float32",
    "--calibration", str(CALIBRATIONS / "probability.npz"),
)  # fmt: skip
LEVELS = (0.02, 0.05, 0.1, 0.2, 0.4)
SWEEP = (
    "sweep", "Once upon a time", "--alphas", *map(str, LEVELS), *LOADING,
    "--max-k", "6", "--seed", "5", "--max-new-tokens", "12",
)  # fmt: skip
PROMPTS = (
    "compare", "--prompts-file", str(FORMER / "prompts.jsonl"), *LOADING,
    "--alpha", "0.1", "--temperature", "1.25", "--min-k", "2", "--max-k", "5",
    "--weights", "match", "--seed", "9", "--max-new-tokens", "12",
)  # fmt: skip
PLAIN, CHAT = ("--no-chat",), ("--system", "Be brief.")
# Which results there are, and the command that writes each, --out left out.
COMMANDS = {
    (commit, name): (*command, *(PLAIN if commit == FIRST else conversation))
    for commit in (FIRST, SECOND, NEWEST)
    for name, command, conversation in (
        ("sweep.json", SWEEP, PLAIN),
        ("prompts.csv", PROMPTS, CHAT),
    )
}
OTHER_EXPERT_PATH = [key for key in COMMANDS if key[0] in (FIRST, SECOND)]


def bh_studio(*arguments: str) -> int:
    return run(build_parser().parse_args(arguments))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A copy of the results, to go on with."""
    return Path(shutil.copytree(FORMER / "results", tmp_path / "results"))


def journal_of(result: Path) -> Path:
    return result.with_name(f"{result.name}.rows.jsonl")


def lines_of(journal: Path) -> list[bytes]:
    return journal.read_bytes().splitlines(keepends=True)


def unkeyed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows under the names that versions before the key, the prompt and the rule had, and before
    there were sides but the model's own routing and one rule."""
    later = ("key", "prompt", "seed", "rule") if "alpha" in rows[0] else ("key",)
    named = [{name: v for name, v in row.items() if name not in later} for row in rows]
    return [of_two_sides(row) if isinstance(row.get("sides"), list) else row for row in named]


def of_two_sides(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a batch, or the numbers over all, under the names of the two sides there were."""
    own, other = row["sides"]
    shared = {name: other[name] for name in other if name not in own}
    answer = {name: other[name] for name in own}
    return {**row, **shared, "sides": {"baseline": own, "bh": answer}}


def with_expert_path_of_today(result: dict[str, Any]) -> dict[str, Any]:
    newest = lines_of(journal_of(FORMER / "results" / NEWEST / "sweep.json"))
    model = {**result["model"], "expert_path": json.loads(newest[0])["model"]["expert_path"]}
    return {**result, "model": model}


# --- sessions -------------------------------------------------------------------------------


def rule(weights: MixingWeights, mode: Mode = Mode.PATCH) -> RuleParameters:
    """What all sessions share: level is what version 1 called alpha."""
    return RuleParameters(level=0.1, temperature=1.25, min_k=2, max_k=5, weights=weights, mode=mode)


def generation(**other: Any) -> GenerationParameters:
    return GenerationParameters(**{"max_new_tokens": 8, "seed": 9, **other})


@pytest.mark.parametrize(
    ("version", "expected_rule", "expected_generation", "texts", "counts", "raw", "path"),
    [
        (
            1, rule(MixingWeights.RENORMALIZE), generation(temperature=1.5, top_p=0.9),
            ("L\ufffd^6\ufffd\ufffdpz", "L\ufffd^\ufffd\ufffd>|\ufffd"),
            [[2, 2], [2, 2], [2, 2], [3, 2], [3, 2], [4, 2], [3, 2], [4, 2]],
            [[2, 1], [2, 1], [1, 2], [3, 1], [3, 1], [4, 2], [3, 2], [4, 1]],
            "bh_selected",
        ),
        (
            2, rule(MixingWeights.MATCH, Mode.ANALYZE), generation(sampling=False),
            ("|\ufffd\ufffdZ\ufffd\u07fd\ufffd", "|\ufffd\ufffdZ\ufffd\u07fd\ufffd"),
            [[2, 2], [4, 2], [3, 3], [2, 2], [2, 2], [2, 2], [3, 2], [2, 2]],
            [[1, 2], [4, 2], [3, 3], [2, 2], [1, 2], [2, 1], [3, 2], [2, 2]],
            "bh_selected",
        ),
        (
            3, rule(MixingWeights.MATCH), generation(),
            ("L\ufffd^6\ufffd\ufffdpz", "L\ufffd^Vo\ufffdp\ufffd"),
            [[2, 2], [3, 2], [2, 2], [3, 2], [2, 2], [2, 2], [2, 2], [2, 2]],
            [[1, 1], [3, 2], [1, 2], [3, 1], [1, 2], [2, 1], [1, 1], [1, 2]],
            "selected experts, copied together for one product",
        ),
    ],
    ids=["1", "2", "3"],
)  # fmt: skip
def test_a_session_of_each_schema_version(
    version: int, expected_rule: RuleParameters, expected_generation: GenerationParameters,
    texts: tuple[str, str], counts: list[list[int]], raw: list[list[int]], path: str,
) -> None:  # fmt: skip
    session = load_session(SESSIONS / f"schema_{version}.bhsession")
    assert session.sides == (None, expected_rule)
    assert session.generation == expected_generation
    assert session.prompt == "Der König: “日本”"
    assert session.conversation is None
    assert session.first_differences == (None, {1: 3, 2: None, 3: 1}[version])
    model = session.model
    assert (model.name, model.fingerprint, model.expert_path) == ("tiny", FINGERPRINT, path)
    assert (model.layers, model.experts, model.top_k) == (2, 8, 2)
    newest = version == 3
    assert model.has_chat_template is newest
    assert model.decode_path == ("own forward on the CPU" if newest else "")
    assert model.norm_topk_prob is None
    assert session.environment["packages"]["torch"] == "2.13.0+cpu"
    for side, text in zip(range(2), texts, strict=True):
        record = session.records[side]
        assert record.text == text
        assert len(record.prompt_token_ids) == len(session.prompt.encode()) == 24
        assert record.prompt_token_ids[:4] == (35, 68, 81, 220)
        assert record.finish_reason is FinishReason.MAX_NEW_TOKENS
    assert session.records[0].expert_counts.tolist() == [[2, 2]] * 8
    bh = session.records[1]
    assert bh.expert_counts.tolist() == counts
    assert bh.raw_counts.tolist() == raw
    sums = {1: (103, 85), 2: (110, 94), 3: (107, 88)}[version]
    assert (bh.prompt_expert_counts.sum(), bh.prompt_raw_counts.sum()) == sums


def test_a_session_of_four_sides() -> None:
    session = load_session(SESSIONS / "schema_4.bhsession")
    rules = ("bh:0.1,temperature=1.25,min_k=2,max_k=5", "top-k:1", "top-p:0.5,max_k=5,mode=analyze")
    assert session.sides == (None, *map(parse_rule, rules))
    assert session.generation == generation()
    assert session.first_differences == (None, 1, 1, None)
    own, _, one, analyzed = session.records
    assert own.text == analyzed.text == "L\ufffd^6\ufffd\ufffdpz"
    assert one.raw_counts.tolist() == [[1, 1]] * 8
    assert analyzed.expert_counts.max() > 2


def test_what_was_decided_is_read_from_a_session_and_from_the_folder_of_its_run() -> None:
    session = load_session(SESSIONS / "schema_4_decided.bhsession")
    folder = load_run(FORMER / "runs" / "format_1_decided")
    texts = [record.text for record in session.records[:2]]
    assert texts == ["L\ufffd^6\ufffd\ufffdpz", "L\ufffd^Vo\ufffdp\ufffd"]
    recording = load_recording(CALIBRATIONS / "probability.npz")
    for rule, one, other in zip(session.sides, session.records, folder.records, strict=True):
        assert one.keeps is other.keeps is Keep.LOGITS
        assert one.router_logits is not None
        assert other.router_logits is not None
        assert one.routed_experts is not None
        assert one.choices is not None
        assert other.choices is not None
        assert one.router_logits.shape == (31, 2, 8)
        rows = one.router_logits.rows(0, 31)
        np.testing.assert_array_equal(other.router_logits.rows(0, 31), rows)
        np.testing.assert_array_equal(one.routed_experts, other.routed_experts)
        np.testing.assert_array_equal(one.choices.ranks, other.choices.ranks)
        counts = np.concatenate([one.prompt_expert_counts, one.expert_counts])
        if rule is not None:
            again = replay(rows.swapaxes(0, 1), rule, recording, session.model.top_k)
            np.testing.assert_array_equal(again.counts, counts)
        if rule is None or rule.mode is Mode.PATCH:
            np.testing.assert_array_equal((one.routed_experts != NO_EXPERT).sum(-1), counts)
    choices = session.records[0].choices
    assert choices is not None
    assert choices.ranks.tolist() == [2, 5, 12, 19, 8, 88, 15, 11]
    assert choices.log_probabilities[:2] == pytest.approx([-2.0774612, -3.4144518])
    assert choices.top_ids[0].tolist() == [91, 43, 105, 25, 159]


@pytest.mark.parametrize("path", sorted(SESSIONS.glob("*.bhsession")), ids=lambda path: path.stem)
def test_a_session_says_what_its_file_says_also_when_it_is_saved_again(
    path: Path, tmp_path: Path
) -> None:
    session = load_session(path)
    save_session(session, tmp_path / "again.bhsession")
    document = session.to_json()
    assert load_session(tmp_path / "again.bhsession").to_json() == document
    with zipfile.ZipFile(path) as bundle:
        written = json.loads(bundle.read("session.json"))
    # What follows from the arrays is computed as it was then, and what was not renamed is kept.
    for name in ("prompt", "started_at", "finished_at", "environment"):
        assert document[name] == written[name]
    assert document["model"] | written["model"] == document["model"]
    if written["schema_version"] == 4:
        # What was added to its version since was not written then.
        for was, now in (
            (written, document),
            *zip(written["sides"], document["sides"], strict=True),
        ):
            assert {name: now[name] for name in was if name not in ("model", "sides")} == {
                name: was[name] for name in was if name not in ("model", "sides")
            }
        return
    assert document["sides"][1]["first_difference"] == written["first_difference"]
    assert document["generation"] == written["parameters"]["generation"]
    for number, name in enumerate(("baseline", "bh")):
        side, record = document["sides"][number], written["sides"][name]
        assert session.records[number].expert_counts.tolist() == record.pop("expert_counts")
        assert side | record == side


def test_the_folder_of_a_run_says_what_the_session_of_the_same_command_says() -> None:
    run = load_run(FORMER / "runs" / "format_1")
    session = load_session(SESSIONS / "schema_3.bhsession")
    assert (run.model, run.sides, run.generation, run.prompt, run.conversation) == (
        session.model, session.sides, session.generation, session.prompt, session.conversation,
    )  # fmt: skip
    for one, other in zip(run.records, session.records, strict=True):
        timed = {"tokens_per_second", "time_to_first_token_s"}
        found, expected = (
            {name: value for name, value in record.to_json().items() if name not in timed}
            for record in (one, other)
        )
        assert found == expected
    assert (run.started_at, run.finished_at) == (
        "2026-11-27T09:50:15.583+00:00", "2026-11-27T09:50:15.661+00:00",
    )  # fmt: skip


def test_a_run_that_was_cut_off_is_read_as_far_as_it_came() -> None:
    run = load_run(FORMER / "runs" / "format_1_cut_off")
    assert run.prompt == "Warum 👑?"
    assert run.conversation is not None
    assert [turn.prompt for turn in run.conversation.turns] == ["Who mends the net?"]
    assert [record.text for record in run.records] == ["Z�^N", "Z�^"]
    assert run.records[1].raw_counts.tolist() == [[1, 2], [1, 2], [3, 3]]
    assert {record.finish_reason for record in run.records} == {FinishReason.BROKEN_OFF}
    assert run.continued == run.conversation


def test_a_conversation_is_read_and_continued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = SESSIONS / "schema_3_chat.bhsession", tmp_path / "next.bhsession"
    session = load_session(path)
    first = Turn("Who mends the net?", ("\ufffd\n^N\ufffdE|z", "\ufffd\ufffd^N\ufffdE|z"))
    second = Turn("Warum 👑?", ("Z\ufffd^N\ufffdE|z", "Z\ufffd^N\ufffdE|z"))
    assert session.conversation == Conversation("Be brief.", (first,))
    assert session.continued == Conversation("Be brief.", (first, second))
    read = [session.records[side].prompt_token_ids for side in range(2)]
    assert [len(ids) for ids in read] == [113, 115]
    assert session.records[1].expert_counts[2].tolist() == [3, 3]

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"And then?\n")))
    options = ("--max-k", "5", "--max-new-tokens", "4", "--out", str(out))
    assert bh_studio("chat", *LOADING, *options, "--continue", str(path)) == 0
    assert "After 2 earlier turns, the last of them: Warum 👑?" in capsys.readouterr().err
    assert load_session(out).conversation == session.continued
    assert load_session(out).prompt == "And then?"


# --- results that grow ----------------------------------------------------------------------


def test_a_stopped_sweep_goes_on(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = results / NEWEST / "sweep.json"
    header, *rows = map(json.loads, lines_of(journal_of(out)))
    assert [row["alpha"] for row in rows] == [None, 0.02]
    assert rows[0]["text"] == "\ufffd\ufffd\x12\ufffd\ufffd\x7f|[w\x1f\ufffd\ufffd"
    assert bh_studio(*COMMANDS[NEWEST, "sweep.json"], "--out", str(out)) == 0
    assert f"2 of 6 answers taken over from {out}" in capsys.readouterr().err
    document = json.loads(out.read_bytes())
    # The header says when and where the first row was made.
    del header["schema_version"]
    assert document | header == document
    assert document["complete"] is True
    assert unkeyed(document["rows"])[:2] == rows
    assert [row["alpha"] for row in document["rows"]] == [None, *LEVELS]
    assert [len(row["token_ids"]) for row in document["rows"]] == [12] * 6
    assert not journal_of(out).exists()


def test_stopped_prompts_go_on(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = results / NEWEST / "prompts.csv"
    before = lines_of(journal_of(out))
    rows = [json.loads(line) for line in before[1:]]
    refused = "The prompt has 586 tokens; this model reads at most 512, the answer included."
    assert [row["line"] for row in rows] == [1, 3, 4]
    assert rows[0]["fields"] == {"id": "a", "line": "mine"}
    assert rows[1] == {"line": 3, "reason": refused}
    assert rows[2]["prompt"] == "Der König und die Möwe 日本 👑"
    assert rows[2]["fields"] == {"share": 0.25, "tags": ["x", None]}
    assert bh_studio(*COMMANDS[NEWEST, "prompts.csv"], "--out", str(out)) == 0
    assert f"3 of 6 prompts taken over from {out}" in capsys.readouterr().err
    _, *after = map(json.loads, lines_of(journal_of(out)))
    assert unkeyed(after)[: len(rows)] == rows
    assert [row["line"] for row in after[len(rows) :]] == [5, 7, 8]
    with out.open(encoding="utf-8", newline="") as file:
        cells = {int(row["line"]): row for row in csv.DictReader(file)}
    assert list(cells) == [1, 2, 3, 4, 5, 7, 8]
    assert cells[2]["skipped"] == "It is not valid JSON."
    assert cells[3]["skipped"] == refused
    for row in (rows[0], rows[2]):
        assert cells[row["line"]]["prompt"] == row["prompt"]
        assert float(cells[row["line"]]["B_agreement"]) == row["agreement"]
        for letter, side in (("A", "baseline"), ("B", "bh")):
            assert cells[row["line"]][f"{letter}_text"] == row["sides"][side]["text"]


@pytest.mark.parametrize(("commit", "name"), OTHER_EXPERT_PATH)
def test_rows_of_another_way_through_the_experts_are_refused(
    commit: str, name: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = results / commit / name
    before = journal_of(out).read_bytes()
    assert bh_studio(*COMMANDS[commit, name], "--out", str(out)) == 2
    said = capsys.readouterr().err
    assert "other settings: model expert path (bh_selected then, selected experts, copie…" in said
    assert journal_of(out).read_bytes() == before
    assert not out.exists()


@pytest.mark.parametrize(("commit", "name"), OTHER_EXPERT_PATH)
def test_but_for_that_way_they_could_be_gone_on_with(
    commit: str, name: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = results / commit / name
    written, *rows = lines_of(journal_of(out))
    header = with_expert_path_of_today(json.loads(written))
    journal_of(out).write_bytes(b"".join([f"{json.dumps(header)}\n".encode(), *rows]))
    assert bh_studio(*COMMANDS[commit, name], "--out", str(out)) == 0
    assert f"{len(rows)} of 6" in capsys.readouterr().err
    assert ("prompt_format" in header) is (commit != FIRST)
    if name == "sweep.json":
        document = json.loads(out.read_bytes())
        del header["schema_version"]
        assert document | header == document
        after = document["rows"]
    else:
        _, *after = map(json.loads, lines_of(journal_of(out)))
    assert unkeyed(after)[: len(rows)] == [json.loads(row) for row in rows]
    assert len(after) == 6


def test_what_does_not_say_the_format_of_prompts_is_plain_text(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model has a chat template, so that without --no-chat the prompts would be messages."""
    assert bh_studio(*PROMPTS, "--out", str(results / FIRST / "prompts.csv")) == 2
    assert "prompt format (plain text then, chat now)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "command", "said"),
    [
        ("whole_sweep.json", "sweep.json", "has all 6 answers already"),
        ("whole_prompts.json", "prompts.csv", "has all 6 prompts already"),
        ("whole_prompts.csv", "prompts.csv", "has all 6 prompts already"),
    ],
)
def test_a_finished_result_is_only_printed(
    name: str, command: str, said: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = results / NEWEST / name
    before = {path.name: path.read_bytes() for path in out.parent.iterdir()}
    assert bh_studio(*COMMANDS[NEWEST, command], "--json", "--out", str(out)) == 0
    captured = capsys.readouterr()
    assert f"{out} {said}." in captured.err
    # The columns of a .csv have other names by now, so it is written anew, from its rows.
    assert ("Saved" in captured.err) is (out.suffix == ".csv")
    printed = json.loads(captured.out)
    if out.suffix == ".json":
        written = json.loads(before[name])
        assert unkeyed(printed["rows"]) == written["rows"]
        for other in ("model", "environment", "started_at", "finished_at"):
            assert printed[other] == written[other]
    if command == "prompts.csv":
        assert [row["line"] for row in printed["rows"]] == [1, 4, 5, 7, 8]
        assert [row["line"] for row in printed["skipped"]] == [2, 3]
        assert (printed["overall"]["prompts"], printed["overall"]["skipped"]) == (5, 2)
    after = {path.name: path.read_bytes() for path in out.parent.iterdir()}
    assert after.keys() == before.keys()
    anew = {name, f"{name}.rows.jsonl"} if out.suffix == ".csv" else set()
    assert all(after[n] == before[n] for n in before if n not in anew)


def test_an_old_finished_result_is_read_too(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, command = results / FIRST / "whole_prompts.json", COMMANDS[FIRST, "prompts.csv"]
    document = json.loads(out.read_bytes())
    assert bh_studio(*command, "--out", str(out)) == 2
    assert "model expert path (bh_selected then" in capsys.readouterr().err
    out.write_text(json.dumps(with_expert_path_of_today(document)), encoding="utf-8")
    assert bh_studio(*command, "--json", "--out", str(out)) == 0
    captured = capsys.readouterr()
    assert f"{out} has all 6 prompts already." in captured.err
    printed = json.loads(captured.out)
    assert unkeyed(printed["rows"]) == document["rows"]
    assert unkeyed(printed["skipped"]) == document["skipped"]
    assert of_two_sides(printed["overall"]) == document["overall"]
    for name in ("finished_at", "environment"):
        assert printed[name] == document[name]


def test_the_prompts_are_those_of_the_results() -> None:
    file = read_prompts(FORMER / "prompts.jsonl")
    assert [asked.line for asked in file.prompts] == [1, 3, 4, 5, 7, 8]
    assert [(row.line, row.reason) for row in file.skipped] == [(2, "It is not valid JSON.")]
    header = json.loads(lines_of(journal_of(FORMER / "results" / NEWEST / "prompts.csv"))[0])
    assert header["prompts_file"] == {"name": file.name, "sha256": file.sha256}


# --- results that are written whole ---------------------------------------------------------


def test_an_evaluation() -> None:
    document = json.loads((FORMER / "results" / NEWEST / "evaluation.json").read_bytes())
    assert (document["schema_version"], document["kind"]) == (1, "evaluation")
    assert document["is_complete"] is True
    assert document["model"]["null_sha256"] == NULL_SHA256
    assert document["texts"][0]["name"] == "reading.txt"
    assert document["window_tokens"] == [64, 32, 32, 32, 32, 31]
    assert document["scored_tokens"] == sum(document["window_tokens"])
    contenders = document["contenders"]
    assert [(c["label"], c["control"]) for c in contenders] == [
        ("baseline", None),
        ("bh:0.1,max_k=5", None),
        ("top-p:0.5,max_k=6", None),
        ("baseline (again)", "again"),
        ("bh:0.1,max_k=5 (shuffled)", "shuffled"),
        ("top-p:0.5,max_k=6 (shuffled)", "shuffled"),
        ("bh:0.1,max_k=5 (fixed)", "fixed"),
        ("bh:0.1,max_k=5 (fixed by layer)", "fixed by layer"),
        ("top-p:0.5,max_k=6 (fixed)", "fixed"),
        ("top-p:0.5,max_k=6 (fixed by layer)", "fixed by layer"),
    ]
    baseline, bh = (contender["scores"] for contender in contenders[:2])
    assert contenders[0]["parameters"] is None
    assert RuleParameters(**contenders[1]["parameters"]) == parse_rule(contenders[1]["label"])
    assert baseline["mean_experts"] == {"value": 2.0, "low": 2.0, "high": 2.0}
    assert bh["mean_experts"]["value"] == pytest.approx(1.9148, abs=1e-4)
    for contender in contenders:
        nats = sum(contender["window_nats"]) / document["scored_tokens"]
        assert contender["scores"]["nats"]["value"] == pytest.approx(nats)
        assert len(contender["scores"]["per_layer_experts"]) == 2


def test_a_budget() -> None:
    document = json.loads((FORMER / "results" / NEWEST / "budget.json").read_bytes())
    assert (document["schema_version"], document["kind"]) == (1, "budget")
    assert (document["target"], document["fit"]["tokens"]) == (1.5, 310)
    one_level, by_layer = document["one_level"], document["by_layer"]
    assert one_level["rule"] == "bh:0.019464,max_k=6"
    assert by_layer["rule"] == "bh:0.027306/0.014463,max_k=6"
    for solution in (one_level, by_layer):
        level = solution["parameters"].pop("level")
        parameters = RuleParameters(
            level=tuple(level) if isinstance(level, list) else level, **solution["parameters"]
        )
        assert parse_rule(solution["rule"]) == parameters
        assert solution["mean_experts"] == pytest.approx(1.5, rel=0.006)
    assert one_level["is_nearest_only"] is True
    assert one_level["allocation"] is None
    assert [len(curve) > 1 for curve in by_layer["allocation"]["curves"]] == [True, True]
    check = document["check"]
    assert check["one_level"]["is_missed"] is False
    assert check["gain_by_layer"]["value"] == pytest.approx(-0.02576, abs=1e-5)
    labels = [contender["label"] for contender in check["evaluation"]["contenders"]]
    assert labels[:3] == ["baseline", one_level["rule"], by_layer["rule"]]


# --- calibrations ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "scores", "sha256", "factor"),
    [
        # The score "logit" takes no more than the logits either.
        ("probability", [ScoreName.PROBABILITY, ScoreName.LOGIT], NULL_SHA256, None),
        (
            "output", [ScoreName.OUTPUT],
            "080f44be245b95fb219e29eee0feb287c151a0702cee20f1e7832f65b7354b3c", 1.8287832736968994,
        ),
        (
            "sensitivity", [ScoreName.SENSITIVITY],
            "ae650ca6b6c87f3f048969f009ccfc217537e571c73ac0dc0b895042cadb3725", 2.5605502128601074,
        ),
    ],
    ids=["probability", "output", "sensitivity"],
)  # fmt: skip
def test_a_calibration_of_each_score(
    name: str, scores: list[ScoreName], sha256: str, factor: float | None,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = CALIBRATIONS / f"{name}.npz"
    recording = load_recording(path)
    text = "05549edee5729ebdb4a1fae13947ebba23f4fa45edb73fb11775efddcc9a014b"
    assert recording.origin == RecordingOrigin(
        FINGERPRINT, text, tokens=307, skipped_positions=4, window=512, top_k=2
    )
    assert recording.sha256 == sha256
    assert recording.logits.shape == (2, 307, 8)
    assert recording.logits[0, 0, 0].item() == 0.3576424717903137
    if factor is None:
        assert recording.factors == {}
    else:
        assert recording.factors.keys() == set(scores)
        assert recording.factors[scores[0]].shape == (2, 8)
        assert recording.factors[scores[0]][0, 0].item() == factor
    assert torch.equal(load_router_logits(path).logits, recording.logits)
    for score in scores:
        model = ("--model", str(MODEL), "--device", "cpu", "--dtype", "float32")
        options = ("--check", str(path), "--score", score, "--json")
        assert bh_studio("calibrate", *model, *options) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["model"]["null_sha256"] == sha256
        assert document["recording"]["tokens"] == 307


def test_rules_are_replayed_on_a_calibration(capsys: pytest.CaptureFixture[str]) -> None:
    path = CALIBRATIONS / "output.npz"
    rules = ("--rule", "top-k:2", "--rule", "bh:0.1,max_k=5,score=output,null=pooled")
    assert bh_studio("replay", str(path), "--json", *rules) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["top_k"], document["null"]["kind"]) == (2, "own recording")
    assert document["rows"][0]["mean"] == 2
    assert 1 <= document["rows"][1]["mean"] <= 5


def test_a_calibration_of_the_first_format_is_refused_by_name() -> None:
    with pytest.raises(RecordingError, match=r"format_1\.npz was written by another version"):
        load_recording(CALIBRATIONS / "format_1.npz")


# --- settings -------------------------------------------------------------------------------

OLD_SETTINGS = {
    "prompt": "Die Möwe 日本 👑\nsecond line",
    "generation": asdict(GenerationParameters(64, False, 1.1, 0.9, 7)),
    "text_percent": 130,
    "settings_visible": False,
    "geometry": (
        "AdnQywADAAAAAAAoAAAAHgAABMcAAAMZAAAAKgAAACAAAATFAAADFwAAAAAAAAAAAyAAAAAqAAAAIAAABMUAAAMX"
    ),
    "splitters": {"answers": [590, 588], "charts": [400, 778], "rows": [420, 280]},
    "recent_sessions": (
        "/home/ada/sessions/net.bhsession",
        "/home/ada/sessions/möwe.bhsession",
    ),
    "session_folder": "/home/ada/sessions",
}


@pytest.mark.parametrize(("commit", "room"), [(NEWEST, 5.0), ("a28e52a", 12.5)])
def test_settings_with_no_default_left(
    commit: str, room: float, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        settings = load_settings(FORMER / "settings" / f"{commit}.json")
    assert caplog.text == ""
    parameters = RuleParameters(
        level=0.02, temperature=1.5, min_k=2, max_k=12, mode=Mode.ANALYZE,
        weights=MixingWeights.MATCH,
    )  # fmt: skip
    expected: dict[str, Any] = {
        **OLD_SETTINGS,
        "rule": asdict(parameters),
        "chat": False,
        "system_prompt": "Be brief.",
        "model_device": "cuda:1",
        "model_dtype": "bfloat16",
        "recent_models": ("allenai/OLMoE-1B-7B-0924-Instruct", "/home/ada/models/tiny"),
        "most_history_gb": room,
    }
    assert settings == Settings(**expected)
    # The first of them knew nothing of kept runs, and both had one rule and always the same charts.
    later = {"sides", "charts", "charts_visible", "same_text", "tint", "scrolls_together"} | (
        {"most_history_gb"} if commit == NEWEST else set()
    )
    for name in {field.name for field in fields(Settings)} - later:
        assert getattr(settings, name) != getattr(Settings(), name)
    assert RuleParameters(**settings.rule) == parameters


def test_settings_of_the_time_when_bh_was_the_only_rule(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        settings = load_settings(FORMER / "settings" / "e8e7bdc.json")
    assert caplog.text == ""
    rule = {
        "alpha": 0.02, "temperature": 1.5, "min_k": 2, "max_k": 12, "mode": "analyze",
        "weights": "renormalize",
    }  # fmt: skip
    expected: dict[str, Any] = {**OLD_SETTINGS, "rule": rule}
    assert settings == Settings(**expected)


# --- downloads ------------------------------------------------------------------------------

REPO = "owner/tiny-olmoe"
VERIFIED, PAUSED = "c0" * 20, "d1" * 20


@pytest.fixture
def records() -> dict[str, SnapshotRecord]:
    """The records by commit, where the program keeps them."""
    shutil.copytree(FORMER / "hub", data_dir() / "hub")
    return {record.commit: record for record in load_records(REPO)}


def test_records_of_downloads(records: dict[str, SnapshotRecord]) -> None:
    assert recorded_repos() == [REPO]
    verified, paused = records[VERIFIED], records[PAUSED]
    assert list(records) == [VERIFIED, PAUSED]
    assert (verified.source, paused.source) == (HubSource(REPO), HubSource(REPO, "v2"))
    sizes = {file.name: file.size for file in verified.files}
    assert sizes == {path.name: path.stat().st_size for path in MODEL.iterdir()}
    assert (verified.total, paused.total) == (114_902, 114_902)
    assert verified.files[-1].etag == (
        "cfe9ede5237630bc44618af8edea3f9af3112b85f96a1f80e796ad6c8161c836"
    )
    assert (verified.times[0], len(verified.times)) == (1795728066874093007, 6)
    assert paused.times == ()


def test_what_the_records_tell_of_the_cache(
    records: dict[str, SnapshotRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repository = RepositoryCache.of(REPO)
    verified, paused = records[VERIFIED], records[PAUSED]
    repository.blob("").mkdir(parents=True)
    for file, time in zip(verified.files, verified.times, strict=True):
        shutil.copyfile(MODEL / file.name, repository.partial(file.etag))
        os.utime(repository.partial(file.etag), ns=(time, time))
        repository.publish(VERIFIED, file)
    repository.set_ref("", VERIFIED)
    # A download that was stopped in the middle of the weights; its small files are those above.
    repository.partial(paused.files[-1].etag).write_bytes(bytes(65536))
    status = hub_status(verified.source)
    assert (status.state, status.total) == (HubState.COMPLETE, 114_902)
    assert hub_folder(verified.source) == repository.snapshot(VERIFIED)
    status = hub_status(paused.source)
    assert (status.state, status.present) == (HubState.PARTIAL, 114_902 - 107_656 + 65536)
