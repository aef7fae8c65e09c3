"""`bh-studio budget` as a person or a script runs it, on a tiny checkpoint."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import pytest

from bh_studio import cli
from bh_studio.__main__ import build_parser
from bh_studio.engine.calibration.recorder import calibration_text
from bh_studio.engine.rules.text import parse_rule
from tests.cli.conftest import Start
from tests.tiny_olmoe import CONTEXT, LAYERS, save_tiny_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:The null holds")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_checkpoint(tmp_path_factory.mktemp("tiny-olmoe")))


@pytest.fixture
def texts(tmp_path: Path) -> tuple[str, str]:
    """Paths of a text to fit on and of another one."""
    paths = (tmp_path / "fit.txt", tmp_path / "other.txt")
    for path, start in zip(paths, (0, 5000), strict=True):
        path.write_text(calibration_text()[start : start + 3 * CONTEXT])
    return str(paths[0]), str(paths[1])


def budget(checkpoint: str, *arguments: str) -> int:
    parser = build_parser()
    return cli.run(parser.parse_args(["budget", *arguments, "--model", checkpoint]))


def test_prints_a_rule_that_other_commands_take(
    checkpoint: str, texts: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert budget(checkpoint, "3", "--fit", texts[0]) == 0
    captured = capsys.readouterr()
    assert "The fit reads its text about 4 times." in captured.err
    assert "Target: 3 experts of a token in a layer on average." in captured.out
    assert "Not checked on other texts" in captured.out
    (rule,) = [line.strip() for line in captured.out.splitlines() if line.startswith("  bh:")]
    assert 0 < parse_rule(rule).levels(1)[0] < 1


def test_levels_by_layer_and_the_check_are_told(
    checkpoint: str, texts: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "budget.json"
    common = ("--fit", texts[0], "--check", texts[1], "--per-layer", "--out", str(saved))
    assert budget(checkpoint, "3", *common) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:2] == ["layer", "alpha"])
    rows = [line.split() for line in lines[start + 1 : start + 1 + LAYERS]]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    document = json.loads(saved.read_text())
    assert [float(row[2]) for row in rows] == pytest.approx(
        document["by_layer"]["per_layer_experts"], abs=0.006
    )
    # Short names, for a rule with a level a layer would not fit into a table.
    assert max(map(len, lines[lines.index("On the texts of the check:") :])) <= 110
    for name in ("one level", "by layer", "by layer (fixed)", "one level (shuffled)"):
        assert any(line.startswith(f"{name} ") for line in lines)
    assert "by layer against one level, nats a token x 100:" in out
    misses = [document["check"][name]["miss"] for name in ("one_level", "by_layer")]
    is_told = [f"{miss:+.2%} off the target" in out for miss in misses]
    assert is_told == [True, True]
    assert ("That is more than 2% off" in out) is any(abs(miss) > 0.02 for miss in misses)


def test_json_is_one_object_on_standard_output(
    checkpoint: str, texts: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("3", "--fit", texts[0], "--rule", "cut:0.1", "--tokens", "128", "--json")
    assert budget(checkpoint, *arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 2
    assert document["fit"]["tokens"] == 128
    assert document["one_level"]["parameters"]["rule"] == "cut"
    assert document["one_level"]["mean_experts"] == pytest.approx(3, rel=0.02)


@pytest.mark.parametrize("mean", ["three", "0.5", "0", "-1", "nan", "inf"])
def test_a_mean_that_is_no_number_from_1_is_refused(
    mean: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        budget("/nowhere", "--fit", "a.txt", "--", mean)
    assert stop.value.code == 2
    assert "is not a number of experts from 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["17", "--fit", "FIT"], 1, "must lie between 1 and the 16 experts"),
        (["9", "--fit", "FIT"], 1, "min_k and max_k allow 1 to 8"),
        (["3", "--fit", "FIT", "--rule", "top-k:5"], 2, "No level between 0 and 1"),
        (["3", "--fit", "FIT", "--rule", "hc:0.5"], 2, "No level between 0 and 1"),
        (["3", "--fit", "FIT", "--rule", "entropy:0.5"], 2, "No level between 0 and 1"),
        (["3", "--fit", "EMPTY"], 2, "is empty"),
        (["3", "--fit", "SHORT"], 1, "fewer than two tokens"),
        (["3", "--fit", "FIT", "--check", "SHORT"], 1, "fewer than two tokens"),
        (["3", "--fit", "FIT", "--check", "FIT"], 1, "one of those that the level is fitted on"),
        (["3", "--fit", "/nowhere.txt"], 2, "cannot be read"),
        (["2", "--fit", "FIT", "--per-layer", "--rule", "bh,max_k=3"], 1, "around the 4 experts"),
    ],
)
def test_bad_input_gets_one_sentence(
    arguments: list[str], code: int, sentence: str, checkpoint: str, texts: tuple[str, str],
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "short.txt").write_text("a")
    places = {"FIT": texts[0], "EMPTY": tmp_path / "empty.txt", "SHORT": tmp_path / "short.txt"}
    assert budget(checkpoint, *(str(places.get(a, a)) for a in arguments)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err.splitlines()[-1]
    assert "Traceback" not in captured.err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_an_interrupted_run_keeps_what_it_read_and_goes_on(
    checkpoint: str, texts: tuple[str, str], tmp_path: Path, start: Start,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    saved = tmp_path / "budget.json"
    journal = tmp_path / "budget.json.rows.jsonl"
    common = ["3", "--fit", texts[0], "--check", texts[1], "--per-layer", "--json"]
    assert budget(checkpoint, *common) == 0
    whole = json.loads(capsys.readouterr().out)
    program = start("budget", *common, "--model", checkpoint, "--out", str(saved))
    while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
        time.sleep(0.01)
    program.send_signal(signal.SIGINT)
    out, messages = program.communicate(timeout=60)
    assert program.returncode == 130
    assert out == ""
    assert "the same command goes on from there." in messages.splitlines()[-1]
    assert not saved.exists()
    assert budget(checkpoint, *common, "--out", str(saved)) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(saved.read_text())
    for name in ("one_level", "by_layer", "fit", "rows"):
        assert document[name] == whole[name]
    contenders = [d["check"]["evaluation"]["contenders"] for d in (document, whole)]
    assert contenders[0] == contenders[1]
    assert not journal.exists()
