"""`bh-studio bench` as a person or a script runs it, and its table."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

import pytest

from bh_studio import cli
from bh_studio.__main__ import build_parser
from bh_studio.cli.commands.bench import carry_out
from bh_studio.cli.tables.bench import table
from bh_studio.engine.protocol.experiments import Benchmark
from bh_studio.engine.records.benchmark.result import BASELINE, BH, BH_MEAN, STOCK, STOCK_STATIC
from tests.bench_results import CONTENDERS, contender, result
from tests.cli.conftest import Start

FEW = ("--tokens", "24", "--rounds", "1", "--prompt-tokens", "8")


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of this size take long with more, where another test holds the other core."""
    monkeypatch.setattr("bh_studio.engine.loading.DEFAULT_THREADS", 1)


def bench(model: str, *arguments: str) -> int:
    return cli.run(build_parser().parse_args(["bench", "--model", model, *arguments]))


def rows(out: str) -> dict[str, list[str]]:
    """The cells of the table's lines, by contender."""
    lines = out.split("\n\n")[1].splitlines()[1:]
    names = [contender.name for contender in CONTENDERS]
    return {
        name: line[len(name) :].split() for line in lines for name in names if line.startswith(name)
    }


def test_the_table_answers_at_one_look() -> None:
    text = table(result())
    assert text.startswith("full in bfloat16 on A Processor: 65 greedy tokens after a prompt of 32")
    found = rows(text)
    # Speed and its quartiles, times stock, times baseline, experts, answer, first, reads, limit.
    assert " ".join(found[STOCK]) == "5.0 4.7 to 5.0 1.00 0.50 8.00 5.0 250 ms 2.36 GB 33%"
    assert " ".join(found[BASELINE]) == "10.0 9.0 to 10.0 2.00 1.00 8.00 9.8 250 ms 2.36 GB 66%"
    assert found[BH][:6] == ["10.7", "9.8", "to", "11.0", "2.13", "1.11"]
    assert found[BH_MEAN][:7] == ["16.0", "14.7", "to", "16.0", "3.20", "1.60", "4.02"]
    assert max(map(len, text.splitlines())) <= 110


def test_the_lines_below_say_the_rest() -> None:
    text = " ".join(table(result()).split())
    assert "alpha 0.0007, found in 2 runs; decodes 1.60 (1.60 to 1.63) times as fast" in text
    assert "160 ms for a token of each: 1.60 (1.60 to 1.60) times as long as a token of" in text
    assert "0.98 (0.98 to 0.99) times as long as both alone" in text
    assert "memory limit 35.0 GB/s are read at most (largest of int32)" in text
    assert "router call 30 us for one row; 1.20 (1.20 to 1.20) times as long with BH" in text
    assert "prompt of 512 read in 15.0 s; stock takes 30.0 s, 2.00 (1.94 to 2.07) times" in text
    assert "stock generate: grouped_mm; baseline, BH at alpha 0.05, BH at 4 experts: bh_" in text
    assert "decoding own step: one device, OLMoE's layers" in text
    assert "threads 2 note A note." in text
    assert "left out stock static cache: No compiler." in text


def test_what_differs_between_ways_is_named() -> None:
    static = contender(STOCK_STATIC, decode=(3.2, 3.2, 3.2), path="batched_mm", threads=1)
    text = " ".join(table(result(contenders=(*CONTENDERS, static))).split())
    assert "threads stock generate, baseline, BH at alpha 0.05, BH at 4 experts: 2;" in text
    assert "stock static cache: 1" in text
    # The fastest stock is the one that counts for a user: BH takes 4.0, 4.0 and 4.8 s.
    assert "fastest stock stock static cache; BH at 4 experts decodes 0.80 (0.73 to 0.80)" in text


def test_without_a_memory_limit_the_column_is_empty_and_says_why() -> None:
    text = table(result(memory_limit=None, no_limit="The weights fit into caches."))
    assert all(cells[-1] == "-" for cells in rows(text).values())
    assert "memory limit        The weights fit into caches." in text
    assert "of limit:" not in text


def test_a_stopped_benchmark_says_so() -> None:
    assert "stopped after 3 of 5 rounds." in table(result(rounds_asked=5))


def test_prints_the_table_and_writes_the_file(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "bench.json"
    assert bench(checkpoint, *FEW, "--prefill-tokens", "50", "--out", str(saved)) == 0
    captured = capsys.readouterr()
    found = rows(captured.out)
    assert list(found) == [contender.name for contender in CONTENDERS]
    assert "prompt of 50" in captured.out
    assert "1 of 1 rounds" in captured.err
    assert "Warning" not in captured.err
    written = json.loads(saved.read_text())
    assert (written["kind"], written["schema_version"], written["is_complete"]) == (
        "bench",
        1,
        True,
    )
    assert (written["tokens"], written["rounds"], written["prompt_tokens"]) == (24, 1, 8)
    assert written["model"]["expert_path"] == written["paths"]["experts"]
    assert written["environment"]["packages"]["torch"]
    assert written["mean_level"]["mean"] == pytest.approx(4, abs=0.1)
    baseline = next(c for c in written["contenders"] if c["name"] == BASELINE)
    assert found[BASELINE][0] == f"{baseline['tokens_per_second']['median']:,.0f}" or (
        found[BASELINE][0] == f"{baseline['tokens_per_second']['median']:.1f}"
    )
    assert f"{BH} / {BASELINE}" in written["decoding_ratios"]


def test_the_embedded_model_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("embedded", "--tokens", "16", "--rounds", "1", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["model"]["id"] == "embedded"
    assert [c["threads"] for c in printed["contenders"] if c["name"] == BASELINE] == [1]
    assert printed["memory_limit"] is None
    assert "fit into caches" in printed["no_memory_limit"]


def test_a_definition_from_elsewhere_is_carried_out(
    checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = argparse.Namespace(
        model=checkpoint, device="cpu", dtype="auto", load_anyway=False, calibration=None, out=None,
        json=True,
    )  # fmt: skip
    assert carry_out(options, Benchmark(tokens=24, rounds=1, prompt_tokens=8)) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["tokens"], printed["rounds"], printed["prompt_tokens"]) == (24, 1, 8)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--tokens", "1"], "argument --tokens: 1 is not a whole number from 2"),
        (["--rounds", "0"], "argument --rounds: 0 is not a whole number from 1"),
        (["--prefill-tokens", "-1"], "argument --prefill-tokens: -1 is not a whole number from 0"),
        (["--out", "bench.csv"], "argument --out: bench.csv: use one of .json as the ending"),
    ],
)
def test_bad_options_are_refused(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench("embedded", *arguments)
    assert sentence in capsys.readouterr().err


def test_what_is_too_long_is_refused_before_the_weights_are_read(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delattr("bh_studio.engine.loading.read_weights")
    saved = tmp_path / "bench.json"
    assert bench(checkpoint, "--tokens", "200", "--out", str(saved)) == 1
    assert capsys.readouterr().err == (
        "bh-studio: A prompt of 32 tokens and 200 new ones are too long: this model has room for "
        "128 tokens in all. Choose fewer --tokens or --prompt-tokens.\n"
    )
    assert not saved.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to another process")
def test_ctrl_c_keeps_the_rounds_there_are(
    checkpoint: str, tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    saved = tmp_path / "bench.json"
    arguments = (*FEW[:2], "--rounds", "100000", "--out", str(saved))
    program = start("bench", "--model", checkpoint, *arguments)
    assert program.stderr is not None
    for line in program.stderr:
        if line.startswith("1 of"):
            program.send_signal(signal.SIGINT)
            break
    out, _ = program.communicate(timeout=60)
    assert program.returncode == 130
    assert "100000 rounds." in " ".join(out.split())
    written = json.loads(saved.read_text())
    assert not written["is_complete"]
    assert written["rounds"] >= 1
