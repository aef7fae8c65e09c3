"""What becomes of results that nobody reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bh_studio.cli.terminal.streams import print_result, say
from tests.cli.conftest import buffered_environment

_COMMAND = """
import argparse, sys
from bh_studio.cli import run

def fail(_arguments):
    sys.stdin.read()
    sys.stdout.write("half a result")
    if {fails}:
        raise ValueError("It failed.")
    return 0

sys.exit(run(argparse.Namespace(run=fail)))
"""


@pytest.mark.parametrize(
    ("fails", "code", "said"), [(True, 1, "bh-studio: It failed."), (False, 0, "")]
)
def test_a_reader_that_has_gone_changes_no_exit_code(fails: bool, code: int, said: str) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", _COMMAND.format(fails=fails)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=buffered_environment(),
    )  # fmt: skip
    assert program.stdout is not None
    program.stdout.close()
    program.stdout = None
    assert program.communicate()[1].strip() == said
    assert program.returncode == code


_PRINTS = [sys.executable, "-m", "bh_studio", "models", "--json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_standard_output_that_is_full_is_said_in_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            _PRINTS, stdout=full, stderr=subprocess.PIPE, text=True, env=buffered_environment()
        )
    assert ended.stderr == (
        "bh-studio: Standard output could not be written: No space left on device.\n"
    )
    assert ended.returncode == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_streams_that_are_closed_are_as_those_that_nobody_reads(closed: str) -> None:
    shell = f'exec "$0" "$@" {closed}'
    ended = subprocess.run(
        ["sh", "-c", shell, *_PRINTS], capture_output=True, text=True, env=buffered_environment()
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("" if closed.startswith(">") else '{"')


def test_standard_input_that_is_closed_is_empty() -> None:
    ended = subprocess.run(
        ["sh", "-c", 'exec "$0" -m bh_studio compare - <&-', sys.executable],
        capture_output=True, text=True, env=buffered_environment(),
    )  # fmt: skip
    assert ended.returncode == 2
    assert "The prompt is empty." in ended.stderr


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    text = "a\x1b[2Jb\x9bc\x7fd\re\tf\ng é \U0001f469\u200d\U0001f680"
    safe = "a\\x1b[2Jb\\x9bc\\x7fd\\x0de\tf\ng é \U0001f469\u200d\U0001f680\n"
    print_result(text)
    say(text)
    assert capsys.readouterr() == (safe, safe)
