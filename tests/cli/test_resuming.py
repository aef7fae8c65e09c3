"""What a command says of a result that it goes on with, and its exit code for one it cannot."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from bh_studio import cli
from bh_studio.cli.resuming import open_journal, write_result
from bh_studio.engine.protocol.experiments import Sweep
from bh_studio.engine.records.journal import Journal
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules.parameters import RuleParameters


def sweep(prompt: str) -> Sweep:
    return Sweep(
        prompts=(prompt,), sides=(None, RuleParameters()), generation=GenerationParameters()
    )


ONCE = sweep("Once")
HEADER: dict[str, Any] = {
    "kind": "sweep",
    "settings": {**ONCE.settings(), "prompt_format": "plain text"},
    "model": {"fingerprint": "f", "expert_path": "e"},
}


def arguments(out: Path | None, **values: Any) -> argparse.Namespace:
    return argparse.Namespace(out=out, **{"restart": False, **values})


def leave_a_row(out: Path) -> None:
    """What a run leaves that an error ends after its first row."""
    given = arguments(out)
    with pytest.raises(MemoryError), open_journal(given, ONCE) as journal:  # noqa: PT012
        journal.begin(HEADER)
        journal.add("x", {"a": 1})
        raise MemoryError


def test_an_error_says_what_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave_a_row(tmp_path / "r.json")
    assert "Kept 1 finished row;" in capsys.readouterr().err


def test_an_error_before_the_first_row_keeps_nothing_and_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(tmp_path / "r.json")
    with pytest.raises(MemoryError), open_journal(given, ONCE):
        raise MemoryError
    assert capsys.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["r.csv", "r.json"])
def test_a_result_is_said_to_be_saved_once(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / name
    for said in (f"Saved {out}\n", ""):
        with open_journal(arguments(out), ONCE) as journal:
            journal.begin(HEADER)
            whole = {**journal.header, "rows": [{"key": "x", "a": 1}]}
            write_result(journal, out, whole, lambda: b"a\n")
        assert capsys.readouterr().err == said


def test_a_result_of_other_settings_is_a_mistake_of_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_a_row(tmp_path / "r.json")

    def command(given: argparse.Namespace) -> int:
        with open_journal(given, sweep("Twice")) as journal:
            assert isinstance(journal, Journal)
            return 0

    assert cli.run(arguments(tmp_path / "r.json", run=command)) == 2
    assert 'prompts (["Once"] then, ["Twice"] now)' in capsys.readouterr().err
    assert cli.run(arguments(tmp_path / "r.json", run=command, restart=True)) == 0
    assert cli.run(arguments(None, run=command, restart=True)) == 2
    assert "--restart needs --out." in capsys.readouterr().err


def test_an_ending_that_a_result_cannot_have_is_a_mistake_of_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(given: argparse.Namespace) -> int:
        with open_journal(given, ONCE, (".json",)):
            return 0

    assert cli.run(arguments(tmp_path / "r.csv", run=command)) == 2
    assert "r.csv: use .json as the ending." in capsys.readouterr().err
    assert cli.run(arguments(tmp_path / "r.json", run=command)) == 0
