"""`bh-studio compare --text`: every side reads the same given text, and nothing is generated."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from bh_studio.cli.definitions import run_or_save
from bh_studio.cli.following import read_to_end
from bh_studio.cli.loading import load
from bh_studio.cli.options import generation_parameters
from bh_studio.cli.resuming import open_journal, say_interrupted, write_and_print
from bh_studio.cli.tables.same_text import table
from bh_studio.cli.terminal.streams import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    CommandError,
    read_standard_input,
    say,
)
from bh_studio.engine.errors import Cancelled, EngineError
from bh_studio.engine.protocol.experiments import SameText
from bh_studio.engine.protocol.texts import Text, TextTooLong, read_named, sources_of
from bh_studio.engine.records.same_text.csv_rows import csv_text
from bh_studio.engine.records.same_text.result import SameTextResult
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules.sides import Sides

_STANDARD_INPUT = "-"
_PIPED = "A part of a text can be piped in with `--text -`."


def compare_text(arguments: argparse.Namespace, sides: Sides) -> int:
    """Run `bh-studio compare` for what --text names; the exit code."""
    if arguments.system is not None or arguments.chat is not None:
        raise CommandError(
            "--text is read as it is; leave out --chat, --no-chat and --system.", EXIT_USAGE
        )
    if generation_parameters(arguments) != GenerationParameters():
        raise CommandError(
            "With --text nothing is generated; leave out the options of generation.", EXIT_USAGE
        )
    definition = SameText(text=_text(arguments), sides=tuple(sides))
    return run_or_save(arguments, definition, carry_out, lambda: _sources(arguments.text))


def carry_out(arguments: argparse.Namespace, definition: SameText) -> int:
    """Run `definition` with the model and the --out of `arguments`, and print it; the exit code."""
    with open_journal(arguments, definition) as journal:
        loaded = load(arguments, arguments.calibration)
        try:
            result: SameTextResult = read_to_end(arguments, loaded, definition, journal)
        except Cancelled:
            say("Stopped before anything was known.")
            return EXIT_INTERRUPTED
        except TextTooLong as error:
            raise EngineError(error.message, f"{error.advice} {_PIPED}") from error
        write_and_print(
            arguments, journal, result, lambda: table(result), lambda: csv_text(result).encode()
        )
    return EXIT_OK if result.is_complete else say_interrupted(arguments.out)


def _text(arguments: argparse.Namespace) -> Text:
    if arguments.text == _STANDARD_INPUT:
        content = read_standard_input()
        if not content.strip():
            raise CommandError("Standard input is empty. Give a text to read.", EXIT_USAGE)
        return Text("Standard input", content)
    return read_named(Path(arguments.text))


def _sources(given: str) -> Mapping[str, Path]:
    if given == _STANDARD_INPUT:
        raise CommandError("A definition names its text by its path; give a file.", EXIT_USAGE)
    return sources_of([Path(given)])
