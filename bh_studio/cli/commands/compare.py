"""`bh-studio compare`: its options, and one prompt answered in columns as they grow."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bh_studio.cli.commands.compare_file import compare_file
from bh_studio.cli.commands.compare_text import compare_text
from bh_studio.cli.conversation import (
    add_conversation_options,
    check_conversation_options,
    settled,
)
from bh_studio.cli.definitions import add_definition_option, run_or_save
from bh_studio.cli.loading import load
from bh_studio.cli.options import (
    add_calibration_option,
    add_generation_options,
    add_history_option,
    add_keep_option,
    add_model_option,
    add_prompts_file_options,
    check_ending,
    generation_parameters,
    history_folder,
    keep_of,
    output_file,
    prompts_of,
    saved_words,
    write_and_show,
    write_session,
)
from bh_studio.cli.proving import add_prove_option, warn_of
from bh_studio.cli.resuming import add_restart_option
from bh_studio.cli.rule_options import add_sides_options, sides_from
from bh_studio.cli.side_by_side import run_side_by_side
from bh_studio.cli.tables.comparison import summary
from bh_studio.cli.terminal.notices import Notices
from bh_studio.cli.terminal.streams import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    CommandError,
    print_result,
    read_prompt,
    say,
)
from bh_studio.engine.protocol.experiments import Comparison
from bh_studio.engine.records.session import SUFFIX
from bh_studio.engine.records.session_file import SESSION_WRITERS
from bh_studio.engine.records.terms import FinishReason


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what this command does, and add its arguments."""
    parser.description = (
        "Answer PROMPT with the model's own routing and with one rule or more, side by side, "
        "and print how many experts each token used. Or do so for every prompt of a file, and "
        "print the numbers of each and of all. Or, with --text, have one to four sides read the "
        "same given text: nothing is generated, so they never part, and each is judged by how "
        "well it predicts every token of it."
    )
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument(
        "prompt",
        nargs="?",
        metavar="PROMPT",
        help='the text to continue, or a message to an instruct model; "-" reads it from standard '
        "input",
    )
    add_prompts_file_options(parser, asked)
    asked.add_argument(
        "--text",
        metavar="FILE",
        help='a text that all sides read as it is, where a prompt is continued; "-" reads it from '
        "standard input; it may be as long as the model's context",
    )
    add_model_option(parser)
    add_calibration_option(parser)
    add_conversation_options(parser)
    add_sides_options(parser)
    add_generation_options(parser)
    parser.add_argument(
        "--out",
        type=output_file(SESSION_WRITERS),
        metavar="FILE",
        help=f"save the result: {SUFFIX} (whole session), .json, .csv or .npz (which experts ran, "
        "as vLLM returns them); of a prompts file .json or .csv, each prompt as soon as it is "
        "answered, and after an interruption the same command goes on; of a text .json or .csv",
    )
    add_keep_option(parser)
    add_restart_option(parser)
    add_history_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    add_prove_option(parser)
    add_definition_option(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    try:
        sides, generation = sides_from(arguments), generation_parameters(arguments)
    except ValueError as error:
        raise CommandError(str(error), EXIT_USAGE) from error
    check_conversation_options(arguments)
    prompts = prompts_of(arguments)
    is_one = prompts is None and arguments.text is None
    for option, is_given in (("--keep", arguments.keep), ("--prove", arguments.prove)):
        if is_given and not is_one:
            raise CommandError(
                f"{option} is for one PROMPT; leave it out with --prompts-file and --text.",
                EXIT_USAGE,
            )
    if arguments.text is not None:
        return compare_text(arguments, sides)
    if prompts is not None:
        return compare_file(arguments, prompts, sides, generation)
    if arguments.restart:
        raise CommandError("--restart needs --prompts-file or --text.", EXIT_USAGE)
    definition = Comparison(
        prompt=read_prompt(arguments.prompt),
        sides=sides,
        generation=generation,
        keep=keep_of(arguments),
        prove=arguments.prove,
    )
    return run_or_save(arguments, definition, carry_out)


def carry_out(arguments: argparse.Namespace, definition: Comparison) -> int:
    """Run `definition` with the model of `arguments`, print it and save it; the exit code.

    An answer that was stopped is kept as far as it came. Raises CommandError for an --out of
    another ending than a session's.
    """
    if arguments.restart:
        raise CommandError("One answer is made anew by every run; leave out --restart.", EXIT_USAGE)
    check_ending(arguments.out, SESSION_WRITERS)
    loaded = load(arguments, arguments.calibration, history_folder(arguments))
    definition = settled(arguments, definition, loaded.info)
    session = run_side_by_side(loaded, definition, Notices(), quiet=arguments.json)

    def write(out: Path) -> None:
        write_session(session, out)
        say(saved_words(session, out))

    def show() -> None:
        if arguments.json:
            # ASCII with escapes is valid whatever the encoding of standard output.
            print_result(json.dumps(session.to_json(), allow_nan=False))
        else:
            print_result(summary(session))

    write_and_show(arguments.out, write, show)
    warn_of(session)
    stopped = any(r.finish_reason is FinishReason.STOPPED for r in session.records)
    return EXIT_INTERRUPTED if stopped else EXIT_OK
