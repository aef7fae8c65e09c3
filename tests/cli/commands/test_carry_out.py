"""Commands that are given a definition made elsewhere: it decides, the options only say where."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bh_studio import cli
from bh_studio.cli.commands import budget, calibrate, compare_file, compare_text, evaluate, sweep
from bh_studio.engine.calibration.recorder import calibration_text
from bh_studio.engine.protocol.experiments import (
    Batch,
    Budget,
    Calibration,
    Evaluation,
    Experiment,
    SameText,
    Sweep,
)
from bh_studio.engine.protocol.texts import Text
from bh_studio.engine.records.rows import FilePrompt, SkippedRow
from bh_studio.engine.records.terms import Conversation, GenerationParameters
from bh_studio.engine.routing.recordings import load_recording
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.text import parse_rule
from tests.tiny_olmoe import CONTEXT

CarryOut = Callable[[argparse.Namespace, Any], int]

GENERATION = GenerationParameters(max_new_tokens=4)
SIDES = (None, parse_rule("bh:0.1,max_k=4"))
FIT, CHECK = (Text(f"{start}.txt", calibration_text()[start:][:400]) for start in (0, 5000))
SWEEP = Sweep(prompts=("Who?",), sides=SIDES, generation=GENERATION)
BATCH = Batch(
    prompts=(FilePrompt(1, "Who?"), FilePrompt(3, "Why?")), prompts_sha256="abc", sides=SIDES,
    generation=GENERATION, prompts_name="p.txt", unusable=(SkippedRow(2, "It is empty."),),
)  # fmt: skip
EVALUATION = Evaluation(texts=(FIT,), rules=(parse_rule("top-k:2"),))
SAME_TEXT = SameText(text=Text("short.txt", "Once upon a time"), sides=SIDES)
BUDGET = Budget(target=3.0, rule=RuleParameters(), fit=(FIT,), check=(CHECK,), tokens=128)
CALIBRATION = Calibration(texts=(FIT, CHECK))


def options(out: Path | None, model: str, **values: Any) -> argparse.Namespace:
    """What any command with a definition from a file has: nothing that decides rows."""
    given = {
        "model": model, "device": "auto", "dtype": "auto", "load_anyway": False,
        "calibration": None, "out": out, "restart": False, "json": False, "chat": None,
        "system": None,
    }  # fmt: skip
    return argparse.Namespace(**{**given, **values})


def run(carry_out: CarryOut, given: argparse.Namespace, definition: Experiment) -> int:
    given.run = lambda arguments: carry_out(arguments, definition)
    return cli.run(given)


@pytest.mark.parametrize(
    ("carry_out", "definition", "what"),
    [
        (sweep.carry_out, SWEEP, "2 answers"),
        (compare_file.carry_out, BATCH, "2 prompts"),
        (compare_text.carry_out, SAME_TEXT, "window passes"),
        (evaluate.carry_out, EVALUATION, "window passes"),
        (budget.carry_out, BUDGET, "window passes"),
    ],
    ids=["sweep", "batch", "same-text", "evaluation", "budget"],
)
def test_a_definition_is_carried_out_and_its_result_is_told_again(
    carry_out: CarryOut, definition: Experiment, what: str, checkpoint: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "r.json"
    assert run(carry_out, options(out, checkpoint, json=True), definition) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1] == f"Saved {out}"
    document = json.loads(out.read_bytes())
    assert json.loads(captured.out) == document
    settings = json.loads(json.dumps(definition.settings()))
    assert {**document["settings"], **settings} == document["settings"]
    assert document["rows"]
    assert document["complete"] is True
    assert run(carry_out, options(out, checkpoint), definition) == 0
    captured = capsys.readouterr()
    assert f"{what} already." in captured.err
    assert "Saved" not in captured.err
    assert len(captured.out.splitlines()) > 3
    other = tmp_path / "r.npz"
    assert run(carry_out, options(other, checkpoint), definition) == 2
    assert "r.npz: use .json" in capsys.readouterr().err


def test_a_prompts_file_need_not_be_there_and_is_still_named(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    assert run(compare_file.carry_out, options(out, checkpoint), BATCH) == 0
    assert capsys.readouterr().err.startswith("Line 2 is skipped. It is empty.\n")
    document = json.loads(out.read_bytes())
    assert document["prompts_file"] == {"name": "p.txt", "sha256": "abc"}
    assert document["skipped"] == [{"line": 2, "reason": "It is empty."}]
    long = msgspec.structs.replace(
        BATCH, prompts=(FilePrompt(1, "x" * CONTEXT),), prompts_name="", unusable=()
    )
    assert run(compare_file.carry_out, options(None, checkpoint), long) == 1
    assert "None of the prompts could be answered." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("carry_out", "definition"),
    [(sweep.carry_out, SWEEP), (compare_file.carry_out, BATCH)],
    ids=["sweep", "batch"],
)
def test_options_decide_only_what_a_definition_leaves_open(
    carry_out: CarryOut, definition: Sweep | Batch, chat_checkpoint: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "r.json"

    def settings(definition: Sweep | Batch, **values: Any) -> dict[str, Any]:
        given = options(out, chat_checkpoint, restart=True, **values)
        assert run(carry_out, given, definition) == 0
        found: dict[str, Any] = json.loads(out.read_bytes())["settings"]
        return {name: found.get(name) for name in ("prompt_format", "system_prompt")}

    text, chat = ({"prompt_format": name, "system_prompt": None} for name in ("plain text", "chat"))
    brief, long = (Conversation(f"Be {how}.") for how in ("brief", "long"))
    assert settings(definition) == {**chat, "system_prompt": ""}
    assert "Chat: a prompt is a message" in capsys.readouterr().err
    assert settings(definition, chat=False) == text
    assert settings(definition, system=brief.system) == {**chat, "system_prompt": "Be brief."}
    as_text = msgspec.structs.replace(definition, conversation=None)
    assert settings(as_text, system=brief.system) == text
    as_chat = msgspec.structs.replace(definition, conversation=long)
    assert settings(as_chat, chat=False) == {**chat, "system_prompt": "Be long."}
    given = options(out, chat_checkpoint, chat=False, system=brief.system)
    assert run(carry_out, given, definition) == 2
    assert "leave out --no-chat" in capsys.readouterr().err
    # What is decided can be compared before the model is loaded.
    assert run(carry_out, options(out, "/nowhere"), as_text) == 2
    assert "prompt format (chat then, plain text now)" in capsys.readouterr().err


def test_a_recording_is_kept_and_told(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "null.npz"
    assert run(calibrate.carry_out, options(out, checkpoint), CALIBRATION) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1] == f"Saved {out}"
    recording = load_recording(out)
    assert captured.out == (
        f"{recording.logits.shape[1]} tokens a layer, 3 layers of 16 experts.\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["null.npz"]
    assert run(calibrate.carry_out, options(out, checkpoint, json=True), CALIBRATION) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["model"]["null_sha256"] == recording.sha256
    assert document["recording"]["texts"] == ["0.txt", "5000.txt"]
    assert "diagnostics" not in document


@pytest.mark.parametrize("name", [None, "r.json"])
def test_a_recording_without_its_file_is_refused_before_the_model_is_loaded(
    name: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = None if name is None else tmp_path / name
    assert run(calibrate.carry_out, options(out, "/nowhere"), CALIBRATION) == 2
    assert ".npz" in capsys.readouterr().err
