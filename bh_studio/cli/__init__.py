"""The terminal: its commands, and how what goes wrong is said. Knows the engine, no Qt.

A command's module is imported when the command is asked for: the window's start and the help of the
program would otherwise wait for all of them. torch is imported only when a command runs.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bh_studio.cli.options import check_not_read, output_locked
from bh_studio.cli.terminal.interrupt import remember_interrupts, was_interrupted
from bh_studio.cli.terminal.streams import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    CommandError,
    flush_results,
    say,
)
from bh_studio.engine.errors import InputError

log = logging.getLogger(__name__)

# The modules of cli.commands, and what the program's help says of each.
_COMMANDS = {
    "compare": "answer prompts, or read a text, with several routings side by side",
    "chat": "talk to an instruct model with several routings side by side",
    "sweep": "answer a prompt with several rules",
    "evaluate": "measure what rules cost in quality on text files",
    "budget": "find the level at which a rule uses a given mean number of experts",
    "calibrate": "record what nulls are fitted on, and judge the nulls",
    "replay": "compare what rules select from recorded router logits, or those of a session",
    "inspect": "show how the experts of one token of a session were chosen",
    "run": "run an experiment that was saved with --save-definition",
    "bench": "measure how fast this machine decodes",
    "download": "fetch a model from a Hugging Face hub",
    "models": "list the models and what is here of each",
}


class _CommandParser(argparse.ArgumentParser):
    """The parser of one command; the command's module fills it before it parses anything."""

    def __init__(self, *, module: str, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._module = module
        self._is_filled = False

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        if not self._is_filled:
            importlib.import_module(self._module).add_arguments(self)
            self._is_filled = True
        return super().parse_known_args(args, namespace)


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the parser of every command."""
    commands = parser.add_subparsers(
        dest="command", title="commands", metavar="COMMAND", parser_class=_CommandParser
    )
    for name, sentence in _COMMANDS.items():
        module = f"bh_studio.cli.commands.{name}"
        commands.add_parser(name, prog=f"{parser.prog} {name}", help=sentence, module=module)


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
        check_not_read(arguments)
        out = getattr(arguments, "out", None)
        with remember_interrupts(), _warnings_said_once(), output_locked(out):
            code = command(arguments)
            # It may have come when all was done, and who waits for the code is to know of it.
            return EXIT_INTERRUPTED if code == EXIT_OK and was_interrupted() else code
    except CommandError as error:
        say(f"bh-studio: {error}")
        return error.exit_code
    except InputError as error:
        say(f"bh-studio: {error}")
        return EXIT_USAGE
    except Exception as error:  # noqa: BLE001 - said in one sentence instead
        # Imported late, for --help needs nothing of it.
        from bh_studio.engine.protocol.events import failure

        failed = failure(error)
        log.info("%s", failed.details)
        say(f"bh-studio: {f'{failed.message} {failed.advice}'.strip()}")
        return EXIT_FAILED
    finally:
        flush_results()
