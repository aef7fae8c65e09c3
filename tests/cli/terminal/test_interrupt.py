"""What Ctrl+C and the system's requests to end do in a command."""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

import pytest

from bh_studio.cli import run
from bh_studio.cli.options import write_and_show
from bh_studio.cli.terminal.interrupt import (
    put_off_interrupts,
    remember_interrupts,
    stop_on_interrupt,
)
from bh_studio.cli.terminal.streams import EXIT_INTERRUPTED, EXIT_OK
from bh_studio.engine.errors import CancelToken


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_asks_the_program_to_end_stops_the_run(number: signal.Signals) -> None:
    before, cancel = signal.getsignal(number), CancelToken()
    with stop_on_interrupt(cancel):
        os.kill(os.getpid(), number)
        assert cancel.is_cancelled
        # The next one ends the program.
        assert signal.getsignal(number) is before
    assert signal.getsignal(number) is before


def test_what_is_ignored_stays_ignored() -> None:
    before, cancel = signal.signal(signal.SIGHUP, signal.SIG_IGN), CancelToken()
    try:
        with stop_on_interrupt(cancel):
            os.kill(os.getpid(), signal.SIGHUP)
        assert not cancel.is_cancelled
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interrupt_that_a_library_has_caught_is_not_lost() -> None:
    with remember_interrupts():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        cancel = CancelToken()
        with stop_on_interrupt(cancel):
            assert cancel.is_cancelled
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    cancel = CancelToken()
    with stop_on_interrupt(cancel):
        assert not cancel.is_cancelled


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_that_comes_when_all_is_done_is_not_lost(number: signal.Signals) -> None:
    def load_and_run(_arguments: argparse.Namespace) -> int:
        with stop_on_interrupt(CancelToken()):
            os.kill(os.getpid(), number)
        cancel = CancelToken()
        with stop_on_interrupt(cancel):
            assert cancel.is_cancelled
        return EXIT_OK

    assert run(argparse.Namespace(run=load_and_run)) == EXIT_INTERRUPTED
    assert run(argparse.Namespace(run=lambda _: EXIT_OK)) == EXIT_OK


def test_what_is_being_written_is_written_before_an_interrupt_takes_effect(tmp_path: Path) -> None:
    out = tmp_path / "result.json"

    def write(path: Path) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        path.write_text("whole")

    with pytest.raises(KeyboardInterrupt):
        write_and_show(out, write, lambda: None)
    assert out.read_text() == "whole"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_is_put_off_and_the_next_is_not(number: signal.Signals) -> None:
    came: list[int] = []
    before = signal.signal(number, lambda *_: came.append(number))
    try:
        with put_off_interrupts():
            os.kill(os.getpid(), number)
            assert came == []
            os.kill(os.getpid(), number)
            assert came == [number]
        assert came == [number, number]
        with put_off_interrupts():
            pass
        assert len(came) == 2
    finally:
        signal.signal(number, before)
