"""`bh-studio replay` as a person or a script runs it, on published and on tiny router logits."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bh_studio import cli
from bh_studio.__main__ import build_parser
from bh_studio.cli.commands.replay import carry_out
from bh_studio.engine.calibration.recorder import calibration_text, make_recording
from bh_studio.engine.protocol.experiments import Replay
from bh_studio.engine.protocol.logits_files import read_logits_file
from bh_studio.engine.routing.recordings import save_recording
from bh_studio.engine.rules.text import parse_rule
from tests.tiny_olmoe import LAYERS, TOP_K, tiny_model, tiny_tokenizer

REAL = str(Path(__file__).parents[2] / "data" / "olmoe_router_logits_160.npz")
LEFT_OUT = (REAL, "--skip", "1", "--leave-one-out")


def replay(*arguments: str) -> int:
    return cli.run(build_parser().parse_args(["replay", *arguments]))


def saved_null(folder: Path, **model: Any) -> str:
    recording = make_recording(tiny_model(**model), tiny_tokenizer(), calibration_text()[:2000])
    save_recording(recording, folder / "null.npz")
    return str(folder / "null.npz")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_null(tmp_path_factory.mktemp("tiny"))


def line(out: str, label: str) -> list[str]:
    return next(row for row in out.splitlines() if row.startswith(label)).split()


def test_prints_a_line_a_rule(capsys: pytest.CaptureFixture[str]) -> None:
    rules = ("--rule", "bh:0.05,null=pooled", "--rule", "top-k:8", "--rule", "bh:0.05")
    assert replay(*LEFT_OUT, *rules) == 0
    out = capsys.readouterr().out
    assert "9 tokens, the first 1 left out, 16 layers of 64 experts, top 8" in out
    assert line(out, "bh:0.05,null=pooled")[1:3] == ["6.49", "1.51"]
    assert line(out, "top-k:8")[1:6] == ["8.00", "0.00", "100.0%", "100.0%", "1.00"]
    assert line(out, "bh:0.05 !")[2] == "6.60"  # its null is small
    assert "The null is small for this level. bh:0.05: The null holds 448 scores" in out
    assert "Selections, not quality" in out
    assert all(len(row) <= 100 for row in out.splitlines())


def test_without_rules_shows_a_choice(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay(tiny) == 0
    out = capsys.readouterr().out
    assert "nulls from the same recording" in " ".join(out.split())
    names = ("bh:", "by:", "storey:", "hc:", "top-k:", "top-p:", "min-p:", "cut:", "entropy:")
    assert all(any(row.startswith(name) for row in out.splitlines()) for name in names)
    assert f"max_k={TOP_K}" in out


def test_layers_are_printed_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    levels = "8/7/6/5/5/5/5/5/5/5/5/5/5/6/7/8"
    assert replay(*LEFT_OUT, "--layers", "--rule", f"top-k:{levels}") == 0
    out = capsys.readouterr().out
    assert "  ".join(f"{int(level):.2f}" for level in levels.split("/")) in out
    assert all(len(row) <= 100 for row in out.splitlines())


def test_the_result_is_saved_in_the_format_of_its_ending(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = ("--rule", "bh:0.1,max_k=4", "--rule", "top-p:0.5,max_k=4")
    assert replay(tiny, *rules, "--out", str(tmp_path / "a.json"), "--json") == 0
    assert replay(tiny, *rules, "--out", str(tmp_path / "a.csv")) == 0
    document = json.loads((tmp_path / "a.json").read_text())
    assert document == json.loads(capsys.readouterr().out.splitlines()[0])
    assert document["schema_version"] == 1
    assert document["logits"]["layers"] == LAYERS
    assert document["null"]["kind"] == "own recording"
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rule"] for row in rows] == [row["rule"] for row in document["rows"]]
    for row, expected in zip(rows, document["rows"], strict=True):
        assert float(row["mean"]) == expected["mean"]
        assert float(row[f"mean_layer_{LAYERS - 1}"]) == expected["per_layer_mean"][-1]


def test_nulls_can_come_from_another_recording(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bh_studio.engine.routing.recordings import load_recording

    np.savez(tmp_path / "bare.npz", logits=load_recording(Path(tiny)).logits.numpy())
    rule = ("--rule", "bh:0.1,max_k=4", "--json")
    assert replay(str(tmp_path / "bare.npz"), "--calibration", tiny, *rule) == 0
    assert replay(tiny, *rule) == 0
    bare, own = map(json.loads, capsys.readouterr().out.splitlines())
    assert bare["null"]["kind"] == "calibration"
    assert bare["rows"] == own["rows"]
    assert bare["top_k"] == TOP_K


def test_rules_without_a_null_need_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay(REAL, "--rule", "cut:0.04", "--top-k", "4", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["null"] == {"kind": "none"}
    assert document["top_k"] == 4


def test_a_definition_from_elsewhere_is_carried_out(
    tiny: str, capsys: pytest.CaptureFixture[str]
) -> None:
    definition = Replay(logits=read_logits_file(Path(tiny)), rules=(parse_rule("cut:0.1,max_k=4"),))
    options = argparse.Namespace(layers=False, out=None, json=True)
    assert carry_out(options, definition) == 0
    assert replay(tiny, "--rule", "cut:0.1,max_k=4", "--json") == 0
    from_elsewhere, typed = capsys.readouterr().out.splitlines()
    assert from_elsewhere == typed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["/nowhere.npz"], "/nowhere.npz cannot be read: No such file or directory."),
        ([__file__], "test_replay.py is not an .npz file of router logits."),
        ([REAL], "holds no null; give --calibration FILE or --leave-one-out."),
        ([REAL, "--calibration", REAL], "was not saved by bh-studio calibrate."),
        ([REAL, "--skip", "10"], "has 10 positions; --skip 10 leaves none."),
        ([REAL, "--skip", "9", "--leave-one-out"], "is for 2 to 128 tokens; there are 1."),
        ([REAL, "--top-k", "0"], "--top-k must lie between 1 and 63; got 0."),
        ([REAL, "--top-k", "64"], "--top-k must lie between 1 and 63; got 64."),
        ([REAL, "--rule", "top-k:65"], "top-k:65 cannot be replayed: max_k must not exceed"),
        ([REAL, "--rule", "cut:1,score=output"], "factor of each expert that was not measured"),
    ],
)
def test_bad_input_gets_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err.splitlines()[-1]
    assert "Traceback" not in captured.err


def test_nulls_of_another_model_are_refused(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay(tiny, "--calibration", saved_null(tmp_path, seed=1)) == 2
    assert "were recorded from two models." in capsys.readouterr().err
    shallow = saved_null(tmp_path, num_hidden_layers=2)
    assert replay(REAL, "--calibration", shallow, "--rule", "bh:0.1", "--top-k", "4") == 2
    assert "The null has 2 layers of 16 experts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--rule", "bh:2"], "The rule 'bh:2' cannot be used: alpha must lie between 0 and 1"),
        (["--rule", "bj:2"], "rule must be one of bh, by, storey, hc, top-k,"),
        (["--skip", "-1"], "-1 is not a whole number from 0"),
        (["--out", "a.txt"], "use one of .json, .csv as the ending"),
        (["--leave-one-out", "--calibration", "a.npz"], "not allowed with argument"),
    ],
)
def test_bad_arguments_are_refused_before_the_work(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        replay("/nowhere.npz", *arguments)
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err
