"""Saving what a command would run, and running it from the file: the same numbers either way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bh_studio import cli
from bh_studio.__main__ import build_parser
from bh_studio.engine.calibration.recorder import calibration_text
from bh_studio.engine.records.session_file import load_session
from bh_studio.engine.routing.recordings import load_recording

FEW = ("--max-new-tokens", "6", "--rule", "bh:0.1,max_k=4")


def command(*words: object) -> int:
    return cli.run(build_parser().parse_args([*map(str, words)]))


def without_times(value: Any) -> Any:
    """`value` without what differs from run to run."""
    times = {
        "started_at", "finished_at", "tokens_per_second", "time_to_first_token_s", "environment",
        "speed_ratio",
    }  # fmt: skip
    if isinstance(value, dict):
        return {name: without_times(item) for name, item in value.items() if name not in times}
    return [without_times(item) for item in value] if isinstance(value, list) else value


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "tale.txt"
    path.write_text(calibration_text()[:700], encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "kind", ["comparison", "sweep", "batch", "same-text", "evaluation", "budget"]
)
def test_a_saved_definition_gives_what_the_command_gives(
    kind: str, checkpoint: str, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "p.txt"
    prompts.write_text("Once\n\nThe king\n")
    short = tmp_path / "short.txt"
    short.write_text("Once upon a time")
    asked: dict[str, tuple[object, ...]] = {
        "comparison": ("compare", "Once", "--prove", *FEW),
        "sweep": ("sweep", "Once", "--seeds", "2", *FEW),
        "batch": ("compare", "--prompts-file", prompts, *FEW),
        "same-text": ("compare", "--text", short, "--rule", "bh:0.1,max_k=4"),
        "evaluation": ("evaluate", text, "--rule", "bh:0.1,max_k=4", "--controls"),
        "budget": ("budget", "3", "--fit", text, "--tokens", "128"),
    }
    saved = tmp_path / "saved.json"
    assert command(*asked[kind], "--save-definition", saved) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1] == f"Saved {saved}"
    assert json.loads(saved.read_text())["kind"] == kind

    model = ("--model", checkpoint, "--json")
    assert command(*asked[kind], *model) == 0
    expected = json.loads(capsys.readouterr().out)
    assert command("run", saved, *model) == 0
    assert without_times(json.loads(capsys.readouterr().out)) == without_times(expected)


def test_a_recording_is_made_from_a_saved_definition(
    checkpoint: str, text: Path, tmp_path: Path
) -> None:
    saved, model = tmp_path / "saved.json", ("--model", checkpoint)
    assert command("calibrate", text, "--score", "output", "--save-definition", saved) == 0
    assert command("calibrate", text, "--score", "output", *model, "--out", tmp_path / "a.npz") == 0
    assert command("run", saved, *model, "--out", tmp_path / "b.npz") == 0
    one, other = (load_recording(tmp_path / name) for name in ("a.npz", "b.npz"))
    assert one.sha256 == other.sha256


def test_a_saved_replay_gives_what_the_command_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logits = Path(__file__).parents[2] / "data" / "olmoe_router_logits_160.npz"
    asked = ("replay", logits, "--leave-one-out", "--skip", "5", "--rule", "bh:0.05")
    saved = tmp_path / "saved.json"
    assert command(*asked, "--save-definition", saved) == 0
    assert command(*asked, "--json") == 0
    expected = capsys.readouterr().out
    assert command("run", saved, "--json") == 0
    assert capsys.readouterr().out == expected
    assert command("run", saved, "--out", tmp_path / "x.npz") == 2


def test_a_saved_sweep_goes_on_where_the_command_stopped(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, out, model = tmp_path / "saved.json", tmp_path / "r.json", ("--model", checkpoint)
    assert command("sweep", "Once", *FEW, *model, "--out", out) == 0
    assert command("sweep", "Once", *FEW, "--save-definition", saved) == 0
    capsys.readouterr()
    assert command("run", saved, *model, "--out", out) == 0
    assert f"{out} has all 2 answers already." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "conversation"),
    [
        ((), None),
        (("--no-chat",), {"conversation": None}),
        (("--chat",), {"conversation": {"system": "", "turns": []}}),
        (("--system", "Be brief."), {"conversation": {"system": "Be brief.", "turns": []}}),
    ],
)
def test_what_the_options_leave_to_the_model_stays_open(
    options: tuple[str, ...], conversation: dict[str, Any] | None, tmp_path: Path
) -> None:
    saved = tmp_path / "saved.json"
    assert command("compare", "Who?", *options, "--save-definition", saved) == 0
    document = json.loads(saved.read_text())
    found = {name: value for name, value in document.items() if name == "conversation"}
    assert found == (conversation or {})


def test_a_session_is_saved_from_a_definition(checkpoint: str, tmp_path: Path) -> None:
    saved, out = tmp_path / "saved.json", tmp_path / "run.bhsession"
    assert command("compare", "Once", *FEW, "--save-definition", saved) == 0
    assert command("run", saved, "--model", checkpoint, "--out", out) == 0
    assert load_session(out).prompt == "Once"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("run", "{folder}/gone.json"), "gone.json cannot be read"),
        (("run", "{folder}/tale.txt"), "tale.txt is not valid JSON"),
        (("run", "{folder}/saved.json", "--out", "{folder}/x.csv"), "x.csv: use .json"),
        (("run", "{folder}/saved.json", "--out", "{folder}/x.npz"), "x.npz: use .json"),
        (("run", "{folder}/saved.json", "--restart"), "--restart needs --out"),
        (("calibrate", "--save-definition", "{folder}/c.json"), "A definition names its texts"),
    ],
)
def test_what_cannot_be_run_is_said_before_a_model_is_loaded(
    words: tuple[str, ...], sentence: str, text: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert command("budget", "3", "--fit", text, "--save-definition", tmp_path / "saved.json") == 0
    before = sorted(tmp_path.iterdir())
    assert command(*(word.format(folder=tmp_path) for word in words)) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "Loading" not in said
    assert sorted(tmp_path.iterdir()) == before


def test_a_text_that_has_changed_is_refused(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "saved.json"
    assert command("evaluate", text, "--save-definition", saved) == 0
    text.write_text("Another tale.")
    assert command("run", saved) == 2
    assert "tale.txt is not the file that was meant" in capsys.readouterr().err
