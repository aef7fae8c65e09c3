"""What becomes of results that nobody reads."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
