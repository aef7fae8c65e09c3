"""Moments that can be had again: the n-th time a program touches a file, and some calls later."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = (
    "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.link",
    "os.symlink",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Moment:
    """Just before the operation of this number, from 1, or that many calls of Python later."""

    operation: int
    calls: int = 0


def watch(folders: tuple[Path, ...], told: Path, moment: Moment | None, number: int) -> None:
    """Write a line to `told` for each change below `folders`, from now on, in this process.

    What counts is a file that is opened for writing, made safe on the disk, renamed or removed.
    number: the signal that the process sends to itself at `moment`.
    """
    report = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    starts = tuple(f"{folder}{os.sep}" for folder in folders)
    done = 0

    def happens(what: str) -> None:
        nonlocal done
        done += 1
        os.write(report, f"{what}\n".encode())
        if moment is None or done != moment.operation:
            return
        if moment.calls:
            sys.setprofile(_after(moment.calls, number))
        else:
            os.kill(os.getpid(), number)

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not (isinstance(flags, int) and flags & _WRITING):
                return
        elif event in _CHANGES:
            path = arguments[0]
        else:
            return
        if isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(starts):
            happens(f"{event} {os.path.basename(path)}")

    make_safe = os.fsync

    def fsync(file: int) -> None:
        if os.readlink(f"/proc/self/fd/{file}").startswith(starts):
            happens("os.fsync")
        make_safe(file)

    os.fsync = fsync  # type: ignore[assignment]
    sys.addaudithook(hear)


def changes(told: Path) -> list[str]:
    """What `watch` has written."""
    return told.read_text().splitlines() if told.exists() else []


def added_rows(happened: Sequence[str]) -> int:
    """Rows that were made safe on the disk: whole files are so under a name that ends in .tmp."""
    whole = sum(1 for what in happened if what.startswith("open ") and what.endswith(".tmp"))
    return sum(1 for what in happened if what == "os.fsync") - whole


def _after(calls: int, number: int) -> Any:
    left = calls

    def count(_frame: FrameType, _event: str, _argument: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            sys.setprofile(None)
            signal.raise_signal(number)

    return count
