"""--save-definition: what a command would run, written for `bh-studio run` instead of being run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from bh_studio.cli.conversation import as_options_say, check_conversation_options
from bh_studio.cli.options import output_file, write_output
from bh_studio.cli.terminal.streams import EXIT_OK, say
from bh_studio.engine.protocol.definition_file import save_definition
from bh_studio.engine.protocol.experiments import Batch, Comparison, Experiment, Sweep

D = TypeVar("D", bound=Experiment)


def add_definition_option(parser: argparse.ArgumentParser) -> None:
    """Add --save-definition."""
    parser.add_argument(
        "--save-definition",
        type=output_file((".json",)),
        metavar="FILE.json",
        help="run nothing: write what would be run for `bh-studio run`, texts by path and hash; "
        "the model, its nulls and --out are said there",
    )


def run_or_save(
    arguments: argparse.Namespace,
    definition: D,
    carry_out: Callable[[argparse.Namespace, D], int],
    sources: Callable[[], Mapping[str, Path]] = dict,
) -> int:
    """Carry `definition` out, or only save it; the exit code.

    sources: where its texts and recordings lie, by their hash.
    """
    if arguments.save_definition is None:
        return carry_out(arguments, definition)
    whole: Experiment = definition
    if isinstance(definition, Comparison | Sweep | Batch):
        check_conversation_options(arguments)
        whole = as_options_say(arguments, definition)
    found = sources()
    write_output(lambda path: save_definition(whole, path, found), arguments.save_definition)
    say(f"Saved {arguments.save_definition}")
    return EXIT_OK
