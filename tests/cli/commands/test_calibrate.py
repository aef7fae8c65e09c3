"""`bh-studio calibrate` as a person or a script runs it, on a tiny checkpoint."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bh_studio import cli
from bh_studio.__main__ import build_parser
from bh_studio.engine.calibration.recorder import calibration_text
from bh_studio.engine.records.journal import Journal, Row
from bh_studio.engine.routing.recordings import load_recording
from bh_studio.engine.rules.parameters import ScoreName
from tests.tiny_olmoe import EXPERTS, LAYERS, TOP_K, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("texts") / "story.txt"
    path.write_text(calibration_text()[:3000], encoding="utf-8")
    return str(path)


def calibrate(checkpoint: str, *arguments: str) -> int:
    parsed = build_parser().parse_args(["calibrate", "--model", checkpoint, *arguments])
    return cli.run(parsed)


def recorded(text: str) -> int:
    """Bytes are tokens here, in windows of 128 of which 4 are left out."""
    size = len(Path(text).read_bytes())
    return size - -(-size // 128) * 4


def rows(out: str) -> list[list[str]]:
    """The cells of the table's lines."""
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.lstrip().startswith("layer"))
    return [line.split() for line in lines[start + 1 : start + 1 + LAYERS]]


def test_prints_a_line_a_layer(
    checkpoint: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(checkpoint, text) == 0
    out = capsys.readouterr().out
    tokens = recorded(text)
    assert f"{tokens:,} tokens a layer" in out
    table = rows(out)
    assert [row[0] for row in table] == ["0", "1", "2"]
    for _, samples, smallest, distance, share, pi0 in table:
        assert samples == f"{tokens * (EXPERTS - TOP_K):,}"
        assert float(smallest) == pytest.approx(1 / (tokens * (EXPERTS - TOP_K) + 1), rel=0.05)
        assert 0 < float(distance) < 0.2
        assert share.endswith("%")
        assert 0.5 < float(pi0) < 1
    assert "a distance and no test" in " ".join(out.split())
    assert "Warning" not in out
    assert all(len(line) <= 100 for line in out.splitlines())


def test_without_a_text_takes_the_one_that_ships(
    checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(checkpoint, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["recording"]["texts"] == []
    assert document["recording"]["tokens"] > 10_000


def test_json_is_one_object_on_standard_output(
    checkpoint: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(checkpoint, text, text, "--null", "robust", "--alpha", "0.2", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1
    assert document["recording"]["texts"] == ["story.txt", "story.txt"]
    assert document["recording"]["layers"] == LAYERS
    assert document["diagnostics"]["null"] == "robust"
    assert document["diagnostics"]["alpha"] == 0.2
    assert len(document["diagnostics"]["layers"]) == LAYERS
    assert document["diagnostics"]["layers"][0]["samples"] is None


def test_a_saved_recording_can_be_checked_and_used(
    checkpoint: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "null.npz"
    assert calibrate(checkpoint, text, "--out", str(saved), "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["model"]["null_sha256"] == load_recording(saved).sha256
    assert calibrate(checkpoint, "--check", str(saved), "--json") == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["diagnostics"] == made["diagnostics"]
    assert checked["model"] == made["model"]
    assert [path.name for path in tmp_path.iterdir()] == ["null.npz"]


def test_the_factor_of_a_score_is_measured_and_saved(
    checkpoint: str, text: str, tmp_path: Path
) -> None:
    saved = tmp_path / "null.npz"
    arguments = ("--score", "output", "--null", "pooled")
    assert calibrate(checkpoint, text, *arguments, "--out", str(saved)) == 0
    assert set(load_recording(saved).factors) == {ScoreName.OUTPUT}
    assert calibrate(checkpoint, "--check", str(saved), *arguments) == 0
    # Without a text too, where the null that comes with the model has no factor.
    assert calibrate(checkpoint, *arguments) == 0


def test_a_recording_is_saved_even_if_no_null_fits_it(
    checkpoint: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def refuse(*_arguments: Any) -> None:
        raise ValueError("No null fits.")

    monkeypatch.setattr("bh_studio.engine.calibration.diagnostics.diagnose", refuse)
    saved = tmp_path / "null.npz"
    assert calibrate(checkpoint, text, "--out", str(saved)) == 1
    assert capsys.readouterr().err.endswith("bh-studio: No null fits.\n")
    assert load_recording(saved).layers == LAYERS


def test_too_small_a_null_is_warned_of(
    checkpoint: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(checkpoint, text, "--alpha", "0.0001") == 0
    out = " ".join(capsys.readouterr().out.split())
    samples = recorded(text) * (EXPERTS - TOP_K)
    assert f"Warning: The null holds {samples} scores a layer" in out


@pytest.mark.parametrize(
    ("content", "code", "sentence"),
    [
        (b"", 2, "t.txt is empty."),
        (b" \n\t", 2, "t.txt is empty."),
        (b"a\ncaf\xe9", 2, "t.txt is not UTF-8 text: the first byte that is none is in line 2."),
        (b"\xff\xfea", 2, "t.txt is not UTF-16 text: the first byte that is none is in line 1."),
        (None, 2, "t.txt cannot be read: No such file or directory."),
        (b"too short", 1, "has only 9 tokens. Use a text of at least 256"),
    ],
)
def test_a_bad_text_gets_one_sentence_and_writes_nothing(
    content: bytes | None, code: int, sentence: str, checkpoint: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "t.txt"
    if content is not None:
        path.write_bytes(content)
    assert calibrate(checkpoint, str(path), "--out", str(tmp_path / "null.npz")) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err.splitlines()[-1]
    assert "Traceback" not in captured.err
    assert not list(tmp_path.glob("*null*"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--alpha", "1"], "alpha must lie between 0 and 1"),
        (["--null", "softmax", "--score", "logit"], "softmax is made of probabilities"),
        (["--check", "a.npz", "a.txt"], "--check takes neither texts nor --out."),
        (["--check", "a.npz", "--out", "b.npz"], "--check takes neither texts nor --out."),
    ],
)
def test_bad_arguments_get_one_sentence(
    arguments: list[str], sentence: str, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(checkpoint, *arguments) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]


def test_a_recording_that_is_not_there_is_named_before_the_weights_are_read(
    checkpoint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("bh_studio.engine.loading.read_weights")
    assert calibrate(checkpoint, "--check", "/nowhere.npz") == 1
    sentence = "bh-studio: /nowhere.npz cannot be read: No such file or directory."
    assert capsys.readouterr().err.splitlines()[-1] == sentence


def test_a_null_of_another_model_is_refused(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bh_studio.engine.calibration.recorder import make_recording
    from bh_studio.engine.routing.recordings import save_recording

    path = tmp_path / "null.npz"

    def refused(sentence: str, **model: Any) -> None:
        save_recording(
            make_recording(tiny_model(**model), tiny_tokenizer(), calibration_text()[:900]), path
        )
        assert calibrate(checkpoint, "--check", str(path)) == 1
        assert sentence in capsys.readouterr().err.splitlines()[-1]

    refused("of another model", seed=1)
    # The checkpoint is in bfloat16, and a small model is computed in float32.
    refused("or of this one in another dtype", dtype=torch.bfloat16)
    refused("This recording has 2 layers of 16 experts", num_hidden_layers=2)
    np.savez(path, logits=np.zeros((3, 5, 16), np.float32))
    assert calibrate(checkpoint, "--check", str(path)) == 1
    assert "not a recording of BH Studio" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("score", ["probability", "output", "sensitivity"])
def test_ctrl_c_keeps_what_was_read_and_the_same_command_goes_on(
    score: str, checkpoint: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    whole, resumed = tmp_path / "whole.npz", tmp_path / "null.npz"
    assert calibrate(checkpoint, text, "--score", score, "--out", str(whole)) == 0
    add = Journal.add

    def interrupted_after_adding(journal: Journal, key: str, row: Row) -> None:
        add(journal, key, row)
        if len(journal.rows) == (30 if score == "sensitivity" else 5):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Journal, "add", interrupted_after_adding)
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    capsys.readouterr()
    try:
        assert calibrate(checkpoint, text, "--score", score, "--out", str(resumed)) == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, former)
    monkeypatch.undo()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("the same command goes on from there.\n")
    assert not resumed.exists()
    assert calibrate(checkpoint, text, "--score", score, "--out", str(resumed)) == 0
    assert load_recording(resumed).sha256 == load_recording(whole).sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["null.npz", "whole.npz"]
    # A finished recording is written anew.
    assert calibrate(checkpoint, text, "--score", score, "--out", str(resumed)) == 0
    assert f"Saved {resumed}" in capsys.readouterr().err
