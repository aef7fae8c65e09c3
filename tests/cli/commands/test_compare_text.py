"""`bh-studio compare --text` as a person or a script runs it, on a tiny checkpoint."""

from __future__ import annotations

import csv
import io
import json
import signal
import sys
from pathlib import Path

import pytest

import bh_studio
from bh_studio import cli
from bh_studio.__main__ import build_parser
from bh_studio.cli.terminal.columns import display_width
from bh_studio.engine.calibration.recorder import calibration_text
from bh_studio.engine.records.journal import Journal, Row, rows_path
from bh_studio.engine.records.result_document import file_of
from tests.tiny_olmoe import CONTEXT, LAYERS, TOP_K

RULES = ("--rule", "bh:0.3,max_k=6", "--rule", "top-k:1")


def compare(*words: object) -> int:
    return cli.run(build_parser().parse_args(["compare", *map(str, words)]))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "tale.txt"
    path.write_text(calibration_text()[:100], encoding="utf-8")
    return path


def test_prints_a_line_a_side_and_where_they_differ_most(
    checkpoint: str, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare("--text", text, "--model", checkpoint, *RULES) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].startswith("tale.txt: 100 tokens. Each side predicts 99 of them")
    assert [line[:2] for line in lines if line[1:3] == ": "] == ["A:", "B:", "C:"]
    assert lines[3].startswith(f"A: baseline (top {TOP_K}) ")
    assert lines[3].split()[6:] == ["0.0000", f"{TOP_K}.00", "-", "-"]
    assert float(lines[5].split()[4]) > 0
    head = next(number for number, line in enumerate(lines) if line.lstrip().startswith("token"))
    assert lines[head].split("  ")[-1] == "text"
    assert len(lines) == head + 1 + 10
    assert all(display_width(line) <= 100 for line in lines)
    content = text.read_text(encoding="utf-8")
    for line in lines[head + 1 :]:
        token = int(line.split()[0])
        shown = line[line.index("[") + 1 : line.index("]")]
        assert shown == " ".join(content[token].split()) or content[token].isspace()


def test_sides_that_differ_nowhere_are_said_to_be_the_same(
    checkpoint: str, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = f"top-k:{TOP_K},mode=analyze"
    assert compare("--text", text, "--model", checkpoint, "--rule", rule) == 0
    out = capsys.readouterr().out
    assert out.endswith("All sides give every token the same probability.\n")
    assert "Analyze: B used the model's own routing; its counts are simulated." in out


def test_one_side_alone_is_compared_with_nothing(
    checkpoint: str, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare("--text", text, "--model", checkpoint, "--no-own", "--alpha", "0.3") == 0
    out = capsys.readouterr().out
    assert "A: bh:0.3 " in out
    assert "baseline" not in out
    assert "largest" not in out


def test_json_the_file_and_the_notebook_say_the_same(
    checkpoint: str, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "t.json"
    asked = ("--text", text, "--model", checkpoint, *RULES, "--json", "--out", saved)
    assert compare(*asked) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(saved.read_text())
    assert (printed["kind"], printed["complete"]) == ("same-text", True)
    assert printed["settings"]["sides"] == [None, "bh:0.3,max_k=6", "top-k:1"]
    assert "".join(printed["token_texts"]) == text.read_text(encoding="utf-8")
    assert [total["side"] for total in printed["totals"]] == ["A", "B", "C"]
    found = bh_studio.read(saved)
    assert isinstance(found, bh_studio.engine.reading.Result)
    assert [row.to_json()["rule"] for row in found.rows] == printed["settings"]["sides"]  # type: ignore[union-attr]
    assert compare(*asked) == 0
    captured = capsys.readouterr()
    assert f"{saved} has all 3 window passes already." in captured.err
    assert json.loads(captured.out) == printed


def test_csv_has_a_row_a_token_and_side(checkpoint: str, text: Path, tmp_path: Path) -> None:
    saved = tmp_path / "t.csv"
    assert compare("--text", text, "--model", checkpoint, *RULES, "--out", saved) == 0
    with saved.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 99 * 3
    content = text.read_text(encoding="utf-8")
    assert [row["token"] for row in rows] == [c for c in content[1:] for _ in range(3)]
    assert [row["side"] for row in rows[:3]] == ["A", "B", "C"]
    assert [row["position"] for row in rows[:4]] == ["1", "1", "1", "2"]
    assert {row["kl"] for row in rows[::3]} == {"0.0"}
    assert {row[f"experts_layer_{LAYERS - 1}"] for row in rows[2::3]} == {"1"}
    assert all(float(row["log_probability"]) < 0 and int(row["rank"]) >= 1 for row in rows)


def test_standard_input_is_read_like_a_file(
    checkpoint: str, text: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert compare("--text", text, "--model", checkpoint, "--json") == 0
    of_file = json.loads(capsys.readouterr().out)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.read_bytes())))
    assert compare("--text", "-", "--model", checkpoint, "--json") == 0
    of_input = json.loads(capsys.readouterr().out)
    assert of_input["text"] == {"name": "Standard input", "sha256": of_file["text"]["sha256"]}
    assert of_input["rows"] == of_file["rows"]


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfea", b"caf\xe9"])
def test_standard_input_without_a_text_is_refused(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert compare("--text", "-", "--model", "/nowhere") == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("bh-studio: Standard input is ")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            [word for k in "1234" for word in ("--rule", f"top-k:{k}")],
            "A comparison has 1 to 4 sides, the model's own routing among them; got 5.",
        ),
        ([*RULES, *RULES[:2]], "The rule bh:0.3,max_k=6 is given twice; give each once."),
        (["--rule", "top-k:2", "--alpha", "0.1"], "--alpha is the level of bh"),
        (["--chat"], "--text is read as it is; leave out --chat, --no-chat and --system."),
        (["--no-chat"], "--text is read as it is"),
        (["--system", "Be brief."], "--text is read as it is"),
        (["--seed", "3"], "With --text nothing is generated; leave out the options of generation."),
        (["--no-sample"], "With --text nothing is generated"),
        (["--prompts-field", "x"], "--prompts-field needs --prompts-file."),
        (["--restart"], "--restart needs --out."),
        (["--out", "{folder}/x.bhsession"], "x.bhsession: use .json or .csv as the ending."),
    ],
)
def test_options_that_do_not_go_with_a_text_are_refused_before_a_model_is_loaded(
    options: list[str], sentence: str, text: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = [word.format(folder=tmp_path) for word in options]
    assert compare("--text", text, "--model", "/nowhere", *words) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert "Loading" not in captured.err
    assert [path.name for path in tmp_path.iterdir()] == ["tale.txt"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("none.txt", None, "none.txt cannot be read: No such file"),
        ("void.txt", b"", "void.txt is empty."),
        ("latin.txt", b"caf\xe9", "latin.txt is not UTF-8 text"),
        ("one.txt", b"a", "one.txt has fewer than two tokens, so there is nothing to predict."),
        (
            "long.txt", b"x" * (CONTEXT + 1),
            f"long.txt has {CONTEXT + 1} tokens, 1 too many: this model reads at most {CONTEXT} at "
            f"once. Its first {CONTEXT} characters fit. `bh-studio evaluate` measures rules on a "
            "text of any length. A part of a text can be piped in with `--text -`.",
        ),
    ],
)  # fmt: skip
def test_texts_that_cannot_be_read_get_one_sentence_and_write_nothing(
    name: str, content: bytes | None, sentence: str, checkpoint: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if content is not None:
        (tmp_path / name).write_bytes(content)
    saved = tmp_path / "t.json"
    assert compare("--text", tmp_path / name, "--model", checkpoint, "--out", saved) != 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err.splitlines()[-1]
    assert not saved.exists()


def test_a_folder_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("--text", tmp_path, "--model", "/nowhere") == 2
    assert "cannot be read: Is a directory" in capsys.readouterr().err


@pytest.mark.parametrize("rule", ["bh:0.1,max_k=17", "top-k:1/2", "cut:0.1,score=sensitivity"])
def test_rules_that_do_not_fit_the_model_get_one_sentence(
    rule: str, checkpoint: str, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare("--text", text, "--model", checkpoint, "--rule", rule) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith("bh-studio: ")
    assert "Traceback" not in captured.err


def test_a_definition_needs_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Once upon a time")))
    saved = tmp_path / "d.json"
    assert compare("--text", "-", "--save-definition", saved) == 2
    assert "A definition names its text by its path; give a file." in capsys.readouterr().err
    assert not saved.exists()


@pytest.mark.parametrize("stop_after", [1, 2])
def test_an_interrupted_reading_keeps_its_sides_and_goes_on(
    stop_after: int, checkpoint: str, text: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    saved, add, kept = tmp_path / "t.json", Journal.add, []
    asked = ("--text", text, "--model", checkpoint, *RULES, "--json")
    assert compare(*asked) == 0
    whole = json.loads(capsys.readouterr().out)

    def interrupting(journal: Journal, key: str, row: Row) -> None:
        add(journal, key, row)
        kept.append(key)
        if len(kept) == stop_after:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", interrupting)
        assert compare(*asked, "--out", saved) == 130
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert (document["complete"], len(document["rows"])) == (False, stop_after)
    assert "the same command goes on from there" in captured.err
    assert not saved.exists()
    # The window saves what it has stopped: it is gone on with as well.
    windows = tmp_path / "window.json"
    windows.write_bytes(file_of(document))
    for out in (saved, windows):
        assert compare(*asked, "--out", out) == 0
        captured = capsys.readouterr()
        assert f"{stop_after} of 3 window passes taken over" in captured.err
        written = json.loads(out.read_text())
        assert written == json.loads(captured.out)
        assert (written["complete"], written["rows"]) == (True, whole["rows"])
        assert written["totals"] == whole["totals"]
        assert written["started_at"] == document["started_at"]
        assert written["finished_at"] > document["finished_at"]
        assert not rows_path(out).exists()


def test_help_says_how_it_differs_from_a_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        compare("--help")
    said = " ".join(capsys.readouterr().out.split())
    assert "nothing is generated, so they never part" in said
    assert "a text that all sides read as it is, where a prompt is continued" in said
