"""The terminal: its commands, and how what goes wrong is said. Knows the engine, no Qt.

A command's module adds its parser, which names the function to run; torch is imported only when one
runs.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bh_studio.cli.commands import (
    bench,
    budget,
    calibrate,
    chat,
    compare,
    download,
    evaluate,
    models,
    replay,
    sweep,
)
from bh_studio.cli.commands import run as run_command
from bh_studio.cli.terminal.streams import EXIT_FAILED, EXIT_USAGE, CommandError, say
from bh_studio.engine.errors import InputError
from bh_studio.engine.protocol.events import failure

log = logging.getLogger(__name__)

_COMMANDS = (
    compare, chat, sweep, evaluate, budget, calibrate, replay, run_command, bench, download, models,
)  # fmt: skip


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of every command."""
    for command in _COMMANDS:
        command.add_parser(commands)


@contextmanager
def _warnings_said_once() -> Iterator[None]:
    """What libraries warn of, each as a sentence of its own."""
    said: set[str] = set()

    def show(message: Warning | str, *_details: object) -> None:
        text = str(message)
        if text not in said:
            said.add(text)
            say(f"bh-studio: {text}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        # Only the message matters, not where in the engine it came from.
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def run(arguments: argparse.Namespace) -> int:
    """Run the command that was asked for; the exit code. What fails is said in one sentence."""
    command: Callable[[argparse.Namespace], int] = arguments.run
    try:
        with _warnings_said_once():
            return command(arguments)
    except CommandError as error:
        say(f"bh-studio: {error}")
        return error.exit_code
    except InputError as error:
        say(f"bh-studio: {error}")
        return EXIT_USAGE
    except Exception as error:  # noqa: BLE001 - said in one sentence instead
        failed = failure(error)
        log.info("%s", failed.details)
        say(f"bh-studio: {f'{failed.message} {failed.advice}'.strip()}")
        return EXIT_FAILED
