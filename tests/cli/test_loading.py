"""How commands load a model: device, number format, memory, calibration, and what they say."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from bh_studio import cli
from bh_studio.__main__ import build_parser
from bh_studio.cli.terminal.progress import StageProgress
from bh_studio.engine.calibration.recorder import calibration_text, make_recording
from bh_studio.engine.routing.recordings import save_recording
from tests.tiny_olmoe import TOP_K, tiny_model, tiny_tokenizer

OPTIONS = ("--max-k", str(TOP_K), "--max-new-tokens", "2", "--json")


def compare(*arguments: str) -> int:
    return cli.run(build_parser().parse_args(["compare", "Once", *OPTIONS, *arguments]))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_device_and_number_format_can_be_chosen(
    dtype: str, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare("--model", checkpoint, "--device", "cpu", "--dtype", dtype) == 0
    model = json.loads(capsys.readouterr().out)["model"]
    assert (model["device"], model["dtype"]) == ("cpu", dtype)


def test_a_number_format_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        compare("--dtype", "int8")
    assert stop.value.code == 2
    assert "--dtype: invalid choice: 'int8'" in capsys.readouterr().err


def test_short_memory_is_refused_unless_one_insists(
    checkpoint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bh_studio.engine.models.memory.free_bytes", lambda device: 1000)
    arguments = ("--model", checkpoint, "--device", "cpu")
    assert compare(*arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    last = captured.err.splitlines()[-1]
    assert "for its weights" in last
    assert "1.0 kB are free." in last
    assert last.endswith("or insist with --load-anyway.")
    assert compare(*arguments, "--load-anyway") == 0
    assert json.loads(capsys.readouterr().out)["model"]["device"] == "cpu"


def test_a_calibration_is_used_if_it_fits(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "null.npz"
    foreign = make_recording(tiny_model(seed=1), tiny_tokenizer(), calibration_text()[:900])
    save_recording(foreign, path)
    assert compare("--model", checkpoint, "--calibration", str(path)) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    last = captured.err.splitlines()[-1]
    assert f"{path} cannot be used: This recording is of another model" in last
    assert last.endswith("`bh-studio calibrate --out FILE`.")
    calibrate = ["calibrate", "--model", checkpoint, "--out", str(path), "--json"]
    assert cli.run(build_parser().parse_args(calibrate)) == 0
    recorded = json.loads(capsys.readouterr().out)["model"]["null_sha256"]
    assert compare("--model", checkpoint, "--calibration", str(path)) == 0
    assert json.loads(capsys.readouterr().out)["model"]["null_sha256"] == recorded
    assert recorded != foreign.sha256


@pytest.mark.parametrize("interrupted", ["Reading the weights", "Warming up"])
def test_ctrl_c_stops_a_load(
    interrupted: str,
    checkpoint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(_progress: StageProgress, stage: str, _fraction: float | None) -> None:
        if stage == interrupted:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(StageProgress, "show", interrupt)
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert compare("--model", checkpoint) == 130
    finally:
        signal.signal(signal.SIGINT, former)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1] == "bh-studio: Stopped while the model was loading."


def test_progress_is_a_line_that_changes_on_a_terminal_and_nothing_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    StageProgress().show("Warming up", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = StageProgress()
    progress.show("Reading the weights", 0.504)
    progress.show("Warming up", None)
    progress.clear()
    clear = "\r\x1b[K"
    expected = f"{clear}Reading the weights 50%{clear}Warming up{clear}"
    assert capsys.readouterr().err == expected
