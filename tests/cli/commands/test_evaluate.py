"""`bh-studio evaluate` as a person or a script runs it, on a tiny checkpoint."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from bh_studio import cli
from bh_studio.__main__ import build_parser
from bh_studio.engine.calibration.recorder import calibration_text, make_recording
from bh_studio.engine.records.journal import Journal, Row
from bh_studio.engine.routing.recordings import save_recording
from tests.tiny_olmoe import tiny_model, tiny_tokenizer

RULE = "bh:0.3,max_k=6"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    (folder / "a.txt").write_text(calibration_text()[:700], encoding="utf-8")
    (folder / "b.txt").write_text(calibration_text()[3000:3500], encoding="utf-8")
    (folder / "notes.md").write_text("not a text to evaluate on")
    return folder


def evaluate(checkpoint: str, *arguments: str) -> int:
    parsed = build_parser().parse_args(["evaluate", "--model", checkpoint, *arguments])
    return cli.run(parsed)


def test_prints_a_line_a_contender_and_what_the_controls_say(
    checkpoint: str, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(checkpoint, str(texts), "--rule", RULE, "--rule", "top-k:4", "--controls") == 0
    out = capsys.readouterr().out
    rows = {line.split("  ")[0].rstrip(): line for line in out.splitlines()}
    for label in ("baseline", RULE, "top-k:4", f"{RULE} (shuffled)", f"{RULE} (fixed by layer)"):
        assert label in rows
    assert "+0.00%" in rows["top-k:4"]
    assert f"{RULE} against fixed:" in out
    tokens = sum(path.stat().st_size - 1 for path in texts.glob("*.txt"))  # a byte is a token
    assert f"{tokens:,} scored tokens" in out
    assert "So few windows" in out
    assert len(rows["baseline"]) <= 112


def test_one_window_has_no_intervals_and_says_why(
    checkpoint: str, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "short.txt").write_text("Once upon a time there was a king.")
    saved = tmp_path / "one.csv"
    arguments = ("--rule", "bh:0.5", "--rule", "entropy:0.8", "--controls", "--out", str(saved))
    assert evaluate(checkpoint, str(tmp_path / "short.txt"), *arguments) == 0
    out = capsys.readouterr().out
    assert "nan" not in out
    assert "nan" not in saved.read_text()
    assert "in 1 window of" in out
    assert "One window says nothing of others, so there are no intervals: use more text." in out
    assert "too narrow" not in out
    assert "Intervals: paired" not in out
    gaps = [line for line in out.splitlines() if " against " in line]
    assert gaps
    assert all(line.endswith(", from one window alone: no interval") for line in gaps)
    cells = {line.split("  ")[0]: line.split() for line in out.splitlines() if line}
    # Where no limit can decide, none did in 0 % of the cases.
    assert cells["baseline"][-2:] == cells["entropy:0.8"][-2:] == ["-", "-"]
    assert cells["bh:0.5"][-1].endswith("%")


def test_json_and_the_file_say_the_same(
    checkpoint: str, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "e.json"
    assert evaluate(checkpoint, str(texts), "--rule", RULE, "--json", "--out", str(saved)) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(saved.read_text())
    assert printed["kind"] == "evaluation"
    assert [text["name"] for text in printed["texts"]] == ["a.txt", "b.txt"]
    assert printed["contenders"][1]["scores"]["kl"]["value"] > 0


def test_csv_has_a_row_a_contender(checkpoint: str, texts: Path, tmp_path: Path) -> None:
    saved = tmp_path / "e.csv"
    assert evaluate(checkpoint, str(texts), "--rule", "top-k:2", "--out", str(saved)) == 0
    with saved.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["baseline", "top-k:2"]
    assert float(rows[1]["mean_experts"]) == float(rows[1]["expert_rows"]) == 2
    assert float(rows[1]["nats_low"]) <= float(rows[1]["nats"]) <= float(rows[1]["nats_high"])


def test_temperatures_are_asked_for_and_told(
    checkpoint: str, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "e.csv"
    arguments = (str(texts), "--rule", "top-k:2", "--temperatures")
    assert evaluate(checkpoint, *arguments, "--out", str(saved)) == 0
    out = capsys.readouterr().out
    _, told = out.split("flatter predictions alone gain nothing:\n")
    assert [line.split()[0] for line in told.splitlines()[1:3]] == ["baseline", "top-k:2"]
    assert all(len(line) <= 110 for line in out.splitlines())
    with saved.open(newline="") as file:
        own, rule = csv.DictReader(file)
    assert [float(own[f"scaled_increase{end}"]) for end in ("", "_low", "_high")] == [0, 0, 0]
    low, value, high = (float(rule[f"scaled_increase{end}"]) for end in ("_low", "", "_high"))
    assert low <= value <= high
    assert float(rule["temperature"]) > 0

    (tmp_path / "short.txt").write_text("Once upon a time there was a king.")
    assert evaluate(checkpoint, str(tmp_path / "short.txt"), "--temperatures") == 0
    assert "each is fitted on other windows, and there is but one." in capsys.readouterr().out


def test_a_saved_calibration_gives_the_nulls(
    checkpoint: str, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import OlmoeForCausalLM

    model = OlmoeForCausalLM.from_pretrained(checkpoint).float().eval()
    other = make_recording(model, tiny_tokenizer(), calibration_text()[:1500])
    save_recording(other, tmp_path / "own.npz")
    arguments = (str(texts), "--rule", RULE, "--json")
    assert evaluate(checkpoint, *arguments, "--calibration", str(tmp_path / "own.npz")) == 0
    with_own = json.loads(capsys.readouterr().out)
    assert with_own["model"]["null_sha256"] == other.sha256
    foreign = make_recording(tiny_model(seed=4), tiny_tokenizer(), calibration_text()[:1500])
    save_recording(foreign, tmp_path / "b.npz")
    assert evaluate(checkpoint, *arguments, "--calibration", str(tmp_path / "b.npz")) == 1
    assert "another model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("none.txt", None, "cannot be read"),
        ("void.txt", b"", "is empty"),
        ("blank.txt", b" \n ", "is empty"),
        ("latin.txt", b"caf\xe9", "is not UTF-8"),
        ("one.txt", b"a", "fewer than two tokens"),
    ],
)
def test_bad_texts_get_one_sentence_and_write_nothing(
    name: str, content: bytes | None, sentence: str, checkpoint: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if content is not None:
        (tmp_path / name).write_bytes(content)
    saved = tmp_path / "e.json"
    assert evaluate(checkpoint, str(tmp_path / name), "--out", str(saved)) != 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err.splitlines()[-1]
    assert "Traceback" not in captured.err
    assert not saved.exists()


def test_a_folder_without_texts_is_named(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(checkpoint, str(tmp_path)) == 2
    assert "holds no .txt file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--rule", "bh:0"], "alpha must lie between 0 and 1"),
        (["--rule", "bh:1"], "alpha must lie between 0 and 1"),
        (["--rule", "softmax:3"], "rule must be one of"),
        (["--stride", "0"], "not a whole number from 1"),
        (["--out", "result.txt"], ".json, .csv"),
    ],
)
def test_bad_options_are_refused_before_the_work(
    arguments: list[str], sentence: str, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        evaluate("/nowhere", str(texts), *arguments)
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ("bh:0.1,max_k=17", "max_k must not exceed the 16 experts"),
        ("top-k:1/2", "2 values for the 3 layers"),
        ("cut:0.1,score=sensitivity", "calibrate --score sensitivity"),
    ],
)
def test_rules_that_do_not_fit_the_model_get_one_sentence(
    rule: str, sentence: str, checkpoint: str, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(checkpoint, str(texts), "--rule", rule) == 1
    assert sentence in capsys.readouterr().err.splitlines()[-1]


def test_a_stride_over_the_window_is_refused(
    checkpoint: str, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(checkpoint, str(texts), "--window", "64", "--stride", "65") == 1
    assert "stride must lie between 1 and the window of 64" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_an_interrupted_evaluation_keeps_what_it_has_and_goes_on(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    text, saved = tmp_path / "long.txt", tmp_path / "e.json"
    text.write_text(calibration_text()[:3000], encoding="utf-8")
    arguments = (str(text), "--rule", RULE, "--controls", "--batch", "4", "--json")
    assert evaluate(checkpoint, *arguments) == 0
    whole = json.loads(capsys.readouterr().out)
    add = Journal.add

    def interrupted_after_adding(journal: Journal, key: str, row: Row) -> None:
        add(journal, key, row)
        if len(journal.rows) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Journal, "add", interrupted_after_adding)
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert evaluate(checkpoint, *arguments, "--out", str(saved)) == 130
    finally:
        signal.signal(signal.SIGINT, former)
    monkeypatch.undo()
    captured = capsys.readouterr()
    partial = json.loads(captured.out)
    assert partial["is_complete"] is False
    assert partial["scored_tokens"] == sum(partial["window_tokens"]) > 0
    assert "the same command goes on from there" in captured.err.splitlines()[-1]
    assert not saved.exists()

    assert evaluate(checkpoint, *arguments, "--out", str(saved)) == 0
    captured = capsys.readouterr()
    # Said once: what this run has read before the second stage is not taken over there.
    assert captured.err.count(f"window passes taken over from {saved}.") == 1
    document = json.loads(captured.out)
    assert document == json.loads(saved.read_text())
    for name in ("contenders", "rows", "window_tokens", "settings"):
        assert document[name] == whole[name]
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".txt"] == ["e.json"]

    # Finished, it is only printed.
    before = saved.read_bytes()
    assert evaluate(checkpoint, *arguments, "--out", str(saved)) == 0
    assert json.loads(capsys.readouterr().out) == document
    assert saved.read_bytes() == before
    assert evaluate("/nowhere", *arguments, "--batch", "5", "--out", str(saved)) == 2
    assert "batch (4 then, 5 now)" in capsys.readouterr().err
