"""--prove as a person or a script uses it: what is printed, kept, refused, and how it ends."""

from __future__ import annotations

import io
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bh_studio import cli, paths
from bh_studio.__main__ import build_parser
from bh_studio.cli import side_by_side
from bh_studio.engine.decoding.cpu_step import CpuStep
from bh_studio.engine.experiments.side_run import SideRun
from bh_studio.engine.records.runs.reader import load_run
from bh_studio.engine.records.session_file import load_session

TOKENS = 6
CHECKS = [
    "repeat", "experts of A", "experts of B", "own k in one pass", "own k step by step",
    "model restored",
]  # fmt: skip


def command(*words: object) -> int:
    return cli.run(build_parser().parse_args([*map(str, words)]))


def compare(checkpoint: str, *words: object) -> int:
    return command(
        "compare", "Once upon a time", "--model", checkpoint, "--rule", "bh:0.1,max_k=4",
        "--max-new-tokens", TOKENS, *words,
    )  # fmt: skip


@pytest.fixture
def drifting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second answer of A is another at token 4."""
    read, finish, answers, tokens = CpuStep._read, SideRun.finish, list[SideRun](), list[int]()

    def noted(side: SideRun, *reason: Any) -> Any:
        answers.append(side)
        return finish(side, *reason)

    def drift(step: CpuStep, token_id: int) -> tuple[Tensor, np.ndarray | None]:
        logits, raw = read(step, token_id)
        if len(answers) == 2:
            tokens.append(token_id)
            if len(tokens) == 4:
                logits = torch.roll(logits, 1)
        return logits, raw

    monkeypatch.setattr(SideRun, "finish", noted)
    monkeypatch.setattr(CpuStep, "_read", drift)


def test_each_check_is_printed_and_kept(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "a.bhsession"
    assert compare(checkpoint, "--prove", "--out", saved) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    found = lines[lines.index("Proof:") :]
    assert [line[2:] for line in found if line[2:8] == "passed"] == [
        f"passed  {name}" for name in CHECKS
    ]
    assert found[-1] == "The proof passed: 6 checks."
    assert max(map(len, found)) <= 88
    assert lines[lines.index("Proof:") - 2].startswith("B ")
    assert [line for line in err.splitlines() if line.startswith("Proof: ")] == [
        f"Proof: {name}" for name in CHECKS
    ]
    assert "bh-studio:" not in err
    session = load_session(saved)
    assert session.proof is not None
    assert [check.name for check in session.proof.checks] == CHECKS
    (folder,) = paths.history_dir().glob("*/*/*")
    assert load_run(folder).to_json() == session.to_json()


def test_without_it_nothing_is_checked(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(checkpoint, "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["proof"] is None
    assert "roof" not in err


@pytest.mark.usefixtures("drifting")
def test_a_check_that_fails_is_said_loudly_and_is_no_error(
    checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(checkpoint, "--prove") == 0
    out, err = capsys.readouterr()
    assert "  FAILED  repeat" in out.splitlines()
    text = " ".join(out.split())
    assert "The second answer first differs at token 4, in the bits of its logits" in text
    verdict = "The proof FAILED in 1 of 6 checks: do not take a difference between the sides"
    assert verdict in text
    assert err.splitlines()[-1].startswith(f"bh-studio: {verdict}")


@pytest.mark.usefixtures("drifting")
def test_a_script_finds_in_json_what_failed(
    checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(checkpoint, "--prove", "--json") == 0
    out, err = capsys.readouterr()
    checks = json.loads(out)["proof"]["checks"]
    assert {check["name"]: check["passed"] for check in checks} == {
        name: name != "repeat" for name in CHECKS
    }
    assert set(checks[0]) == {
        "name", "passed", "compared", "positions", "layers", "numbers", "problem",
    }  # fmt: skip
    assert "The proof FAILED" in err


def test_an_interrupted_proof_leaves_the_answers(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def interrupt(text: str) -> None:
        if text == "Proof: experts of B":
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(side_by_side, "say", interrupt)
    saved = tmp_path / "a.json"
    assert compare(checkpoint, "--prove", "--out", saved) == 130
    out, err = capsys.readouterr()
    document = json.loads(saved.read_text())
    assert [len(side["token_ids"]) for side in document["sides"]] == [TOKENS] * 2
    assert [check["passed"] for check in document["proof"]["checks"]] == [True, True, None]
    assert "  not finished  experts of B" in out.splitlines()
    assert "The proof is not finished: experts of B." in err


@pytest.mark.parametrize("name", ["--prompts-file", "--text"])
def test_it_is_for_one_prompt(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.txt"
    path.write_text("Once\n")
    assert command("compare", name, path, "--model", "/nowhere", "--prove") == 2
    assert capsys.readouterr().err == (
        "bh-studio: --prove is for one PROMPT; leave it out with --prompts-file and --text.\n"
    )


def test_a_saved_definition_is_proved(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "saved.json"
    assert compare(checkpoint, "--prove", "--save-definition", saved) == 0
    assert command("run", saved, "--model", checkpoint, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["proof"]["checks"]) == 6
    # As the program wrote it before there were proofs.
    values: dict[str, Any] = json.loads(saved.read_text())
    assert values.pop("prove") is True
    saved.write_text(json.dumps(values))
    assert command("run", saved, "--model", checkpoint, "--json") == 0
    assert json.loads(capsys.readouterr().out)["proof"] is None
    saved.write_text(json.dumps({**values, "prove": "yes"}))
    assert command("run", saved, "--model", checkpoint) == 2
    assert "prove is the string 'yes', not true or false" in capsys.readouterr().err


def chat(checkpoint: str, lines: str, monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    return command(
        "chat", "--model", checkpoint, "--rule", "top-k:2", "--max-new-tokens", TOKENS, "--prove",
        *words,
    )  # fmt: skip


def test_each_turn_of_a_chat_is_proved(
    chat_checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    saved = tmp_path / "a.bhsession"
    assert chat(chat_checkpoint, "Hello\nWhy?\n", monkeypatch, "--out", saved) == 0
    assert capsys.readouterr().out.count("The proof passed: 6 checks.") == 2
    session = load_session(saved)
    assert session.proof is not None
    assert not session.proof.failed


def test_a_chat_from_a_pipe_ends_with_an_interrupted_proof(
    chat_checkpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(text: str) -> None:
        if text == "Proof: repeat":
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(side_by_side, "say", interrupt)
    assert chat(chat_checkpoint, "Hello\nWhy?\n", monkeypatch) == 130
    out, err = capsys.readouterr()
    assert "> Hello" in out
    assert "> Why?" not in out
    assert "forgotten" not in err
