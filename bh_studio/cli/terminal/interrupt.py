"""Ctrl+C in a command that has something to keep."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from bh_studio.engine.errors import CancelToken


@contextmanager
def stop_on_interrupt(cancel: CancelToken) -> Iterator[None]:
    """Let the first Ctrl+C stop the run and keep what it has; a second one ends the program."""
    former = signal.getsignal(signal.SIGINT)
    if former is signal.SIG_IGN:  # started in the background
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        cancel.cancel()
        signal.signal(signal.SIGINT, former)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)
