"""`bh-studio evaluate`: what routing rules cost in quality, teacher-forced on texts."""

from __future__ import annotations

import argparse
from pathlib import Path

from bh_studio.cli.definitions import add_definition_option, run_or_save
from bh_studio.cli.following import read_to_end
from bh_studio.cli.loading import load
from bh_studio.cli.options import (
    add_calibration_option,
    add_model_option,
    output_file,
    whole_number_from,
)
from bh_studio.cli.resuming import (
    ENDINGS,
    add_restart_option,
    open_journal,
    say_interrupted,
    write_and_print,
)
from bh_studio.cli.rule_options import RULE_HELP, explain_rules, rule
from bh_studio.cli.tables.evaluation import csv_text, table
from bh_studio.cli.terminal.streams import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    CommandError,
    say,
)
from bh_studio.engine.errors import Cancelled
from bh_studio.engine.protocol.experiments import Evaluation
from bh_studio.engine.protocol.texts import DEFAULT_WINDOW, read_texts, sources_of
from bh_studio.engine.records.evaluation import EvaluationResult
from bh_studio.engine.rules.parameters import RuleParameters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what this command does, and add its arguments."""
    parser.description = (
        "Read the true texts with the model's own routing and with each rule, and "
        "compare how well the next tokens are predicted. Nothing is generated."
    )
    parser.add_argument(
        "texts", nargs="+", type=Path, metavar="PATH", help="text files, or folders of .txt files"
    )
    parser.add_argument(
        "--rule",
        dest="rules",
        action="append",
        type=rule,
        metavar="RULE",
        help=f"a rule to measure, may be given again: {RULE_HELP} (default: bh:0.05)",
    )
    parser.add_argument(
        "--controls",
        action="store_true",
        help="also measure, for each rule, fixed top-k at its mean (the same in every layer, and "
        "layer by layer) and its own counts shuffled over tokens",
    )
    add_model_option(parser)
    add_calibration_option(parser)
    parser.add_argument(
        "--window",
        type=whole_number_from(1),
        default=DEFAULT_WINDOW,
        metavar="N",
        help="most tokens the model sees at once (%(default)s)",
    )
    parser.add_argument(
        "--stride",
        type=whole_number_from(1),
        metavar="N",
        help="tokens scored in each (half the window)",
    )
    parser.add_argument(
        "--tokens",
        type=whole_number_from(1),
        metavar="N",
        help="score about N tokens, spread evenly",
    )
    parser.add_argument(
        "--batch",
        type=whole_number_from(1),
        metavar="N",
        help="windows read together (as many as make 4,096 tokens); sums are rounded accordingly",
    )
    parser.add_argument(
        "--temperatures",
        action="store_true",
        help="also judge each contender with its vocabulary logits divided by the number that "
        "suits it best on the other windows, so that flatter predictions alone gain nothing",
    )
    parser.add_argument(
        "--out",
        type=output_file(ENDINGS),
        metavar="FILE",
        help="keep the result, each batch as soon as it is read: .json or .csv; after an "
        "interruption the same command goes on",
    )
    add_restart_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    explain_rules(parser)
    add_definition_option(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    return run_or_save(
        arguments, _definition(arguments), carry_out, lambda: sources_of(arguments.texts)
    )


def _definition(arguments: argparse.Namespace) -> Evaluation:
    try:
        return Evaluation(
            texts=read_texts(arguments.texts),
            rules=tuple(dict.fromkeys(arguments.rules or [RuleParameters()])),
            with_controls=arguments.controls,
            window=arguments.window,
            stride=arguments.stride,
            tokens=arguments.tokens,
            batch=arguments.batch,
            with_temperatures=arguments.temperatures,
        )
    except ValueError as error:
        raise CommandError(str(error), EXIT_USAGE) from error


def carry_out(arguments: argparse.Namespace, definition: Evaluation) -> int:
    """Run `definition` with the model and the --out of `arguments`, and print it; the exit code."""
    with open_journal(arguments, definition) as journal:
        loaded = load(arguments, arguments.calibration)
        try:
            result: EvaluationResult = read_to_end(arguments, loaded, definition, journal)
        except Cancelled:
            say("Stopped before anything was known.")
            return EXIT_INTERRUPTED
        write_and_print(
            arguments, journal, result, lambda: table(result), lambda: csv_text(result).encode()
        )
    return EXIT_OK if result.is_complete else say_interrupted(arguments.out)
