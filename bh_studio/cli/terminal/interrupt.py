"""Ctrl+C, and the requests of the system to end, in a command that has something to keep."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from bh_studio.engine.errors import CancelToken
from bh_studio.signals import ending_signals

_Handlers = dict[int, Any]

# What has come within remember_interrupts; None outside.
_came: list[int] | None = None


@contextmanager
def remember_interrupts() -> Iterator[None]:
    """Let no Ctrl+C be lost in here, though a library that is imported may catch what it raises,
    and though one may come when what it would stop is just done.

    `stop_on_interrupt` stops at once, then, what it is asked to run.
    """
    global _came
    takes_over = signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def interrupt(number: int, frame: FrameType | None) -> None:
        _remember(number)
        signal.default_int_handler(number, frame)

    _came = []
    if takes_over:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if takes_over:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _came = None


def was_interrupted() -> bool:
    """Whether the program was asked to end, within `remember_interrupts`."""
    return bool(_came)


def forget_interrupt() -> None:
    """The last Ctrl+C has done what it was for."""
    if _came is not None:
        _came.clear()


def _remember(number: int) -> None:
    if _came is not None:
        _came.append(number)


@contextmanager
def stop_on_interrupt(cancel: CancelToken) -> Iterator[None]:
    """Let the first Ctrl+C stop the run and keep what it has; a second one ends the program.

    So do the other signals that ask the program to end.
    """

    def stop(number: int, former: _Handlers) -> None:
        _remember(number)
        cancel.cancel()
        signal.signal(number, former[number])

    with _handled_by(stop):
        if was_interrupted():
            cancel.cancel()
        yield


@contextmanager
def put_off_interrupts() -> Iterator[None]:
    """Let what is written in here be written to its end; a Ctrl+C takes effect after it.

    So do the other signals that ask the program to end. A second one is not waited for.
    """
    came: list[int] = []

    def note(number: int, former: _Handlers) -> None:
        came.append(number)
        _give_back(former)

    with _handled_by(note):
        yield
    for number in came:
        signal.raise_signal(number)


@contextmanager
def _handled_by(handle: Callable[[int, _Handlers], None]) -> Iterator[None]:
    """Have `handle` called in here for the signals that ask the program to end.

    It is given the number, and who had the signals before and has them again after.
    """
    former: _Handlers = {number: signal.getsignal(number) for number in ending_signals()}

    def take(number: int, _frame: FrameType | None) -> None:
        handle(number, former)

    for number in former:
        signal.signal(number, take)
    try:
        yield
    finally:
        _give_back(former)


def _give_back(former: _Handlers) -> None:
    for number, handler in former.items():
        signal.signal(number, handler)
