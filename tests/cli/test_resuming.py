"""What a command says of a result that it goes on with, and its exit code for one it cannot."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from bh_studio import cli
from bh_studio.cli.resuming import open_result, write_result

DESCRIPTION: dict[str, Any] = {"command": "sweep", "prompt": "Once"}


def arguments(out: Path | None, **values: Any) -> argparse.Namespace:
    return argparse.Namespace(out=out, **{"restart": False, **values})


def leave_a_row(out: Path) -> None:
    """What a run leaves that an error ends after its first row."""
    with pytest.raises(MemoryError), open_result(arguments(out), DESCRIPTION) as result:  # noqa: PT012
        result.begin(DESCRIPTION, lambda rows: rows)
        result.add({"a": 1})
        raise MemoryError


def test_an_error_says_what_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave_a_row(tmp_path / "r.json")
    assert "Kept 1 finished row;" in capsys.readouterr().err


def test_an_error_before_the_first_row_keeps_nothing_and_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MemoryError), open_result(arguments(tmp_path / "r.json"), DESCRIPTION):
        raise MemoryError
    assert capsys.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []


def test_a_result_is_said_to_be_saved_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.csv"
    for said in (f"Saved {out}\n", ""):
        with open_result(arguments(out), DESCRIPTION) as result:
            result.begin(DESCRIPTION, lambda rows: rows)
            write_result(result, out, {".csv": lambda: b"a\n"})
        assert capsys.readouterr().err == said


def test_a_result_of_other_settings_is_a_mistake_of_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_a_row(tmp_path / "r.json")

    def command(given: argparse.Namespace) -> int:
        with open_result(given, {**DESCRIPTION, "prompt": "Twice"}):
            return 0

    assert cli.run(arguments(tmp_path / "r.json", run=command)) == 2
    assert "prompt (Once then, Twice now)" in capsys.readouterr().err
    assert cli.run(arguments(tmp_path / "r.json", run=command, restart=True)) == 0
    assert cli.run(arguments(None, run=command, restart=True)) == 2
    assert "--restart needs --out." in capsys.readouterr().err
