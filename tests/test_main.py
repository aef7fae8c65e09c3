"""The program's arguments and exit codes, as a shell sees them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import bh_studio
from bh_studio import __main__ as program
from bh_studio import paths

ROOT = Path(__file__).resolve().parent.parent


def bh_studio_program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program with no display but what `environment` adds."""
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    inherited = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(
        [sys.executable, "-m", "bh_studio", *arguments],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_version() -> None:
    answer = bh_studio_program("--version")
    assert (answer.returncode, answer.stdout) == (0, f"bh-studio {bh_studio.__version__}\n")


def test_a_checkout_runs_without_being_installed(tmp_path: Path) -> None:
    """With the libraries of this Python, but without BH Studio among them."""
    shutil.copytree(ROOT / "bh_studio", tmp_path / "bh_studio")
    (tmp_path / "resources").symlink_to(ROOT / "resources")

    answer = run_checkout(tmp_path, "compare", "Once", "--max-new-tokens", "2")
    assert answer.returncode == 0, answer.stderr
    assert "mean experts" in answer.stdout

    # Fetched by a child process, which has to find the program too.
    answer = run_checkout(tmp_path, "download", "nobody/nothing")
    assert answer.returncode == 1
    assert "nobody/nothing cannot be fetched, because HF_HUB_OFFLINE" in answer.stderr


def run_checkout(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m bh_studio` in `folder`, where no installed one is found."""
    # An editable installation is found through an entry of its own.
    code = (
        "import runpy, sys\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in f'{f}'.lower()]\n"
        "sys.path.insert(0, '')\n"
        "runpy.run_module('bh_studio', run_name='__main__', alter_sys=True)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_help_names_commands_options_and_exit_codes() -> None:
    answer = bh_studio_program("--help")
    assert answer.returncode == 0
    for word in ("compare", "--screenshot", "exit codes", "no display"):
        assert word in answer.stdout


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X and Wayland are Linux's")
@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"DISPLAY": ":999"},
        {"DISPLAY": ":999", "QT_QPA_PLATFORM": "xcb"},
        {"QT_QPA_PLATFORM": "wayland"},
        {"WAYLAND_DISPLAY": "wayland-999", "XDG_RUNTIME_DIR": "/nonexistent"},
    ],
    ids=str,
)
def test_no_display_is_one_line_that_names_compare(environment: dict[str, str]) -> None:
    answer = bh_studio_program("--prompt", "Hello", **environment)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.count("\n") == 1
    assert "No display" in answer.stderr
    assert "bh-studio compare" in answer.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--size", "huge"],
        ["--alpha", "much"],
        ["--nonsense"],
        ["--alpha", "0.1", "compare", "x"],
        ["--rule", "top-k:0"],
        ["--rule", "bh:0.1", "--alpha", "0.2"],
    ],
    ids=" ".join,
)
def test_wrong_arguments_end_with_two(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main(arguments)
    assert ended.value.code == 2
    assert "usage: bh-studio" in capsys.readouterr().err


def test_a_log_is_kept() -> None:
    # In a process of its own, for logging and fault handling are the process's.
    bh_studio_program(QT_QPA_PLATFORM="wayland")
    assert (paths.log_dir() / "bh-studio.log").exists()


def test_an_interrupt_while_the_window_is_imported_ends_the_program() -> None:
    code = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, *_):
        # In the middle of Qt, where what Python raises for Ctrl+C can make Qt abort.
        if name == "PySide6.QtWidgets":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from bh_studio.__main__ import main
sys.exit(main([]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.returncode == -signal.SIGINT
    assert done.stderr == ""
