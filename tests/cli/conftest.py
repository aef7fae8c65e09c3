"""A tiny checkpoint on disk, and the program run as a shell runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.tiny_olmoe import save_tiny_chat_checkpoint, save_tiny_checkpoint

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_checkpoint(tmp_path_factory.mktemp("tiny-olmoe")))


@pytest.fixture(scope="session")
def chat_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_chat_checkpoint(tmp_path_factory.mktemp("tiny-chat")))


def buffered_environment() -> dict[str, str]:
    """The environment, in which Python keeps back what is printed for a while, as is usual."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts the program in a process of its own, where Ctrl+C does what it does in a terminal."""
    programs: list[subprocess.Popen[str]] = []

    def start_program(
        *arguments: str, stdin: int | IO[str] | None = None, stdout: int = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        program = subprocess.Popen(
            [sys.executable, "-m", "bh_studio", *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            env=buffered_environment(),
            preexec_fn=_accept_interrupts if sys.platform != "win32" else None,
        )
        programs.append(program)
        return program

    yield start_program
    for program in programs:
        program.kill()
        program.communicate()


def version(path: Path) -> tuple[int, int]:
    """Differs whenever `path` has been written or replaced."""
    status = path.stat()
    return status.st_mtime_ns, status.st_ino


def _accept_interrupts() -> None:
    # A background job of a shell that is not interactive starts with SIGINT ignored, and so do
    # its children.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
