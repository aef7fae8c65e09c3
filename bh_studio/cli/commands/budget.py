"""`bh-studio budget`: the level of a rule at which it uses a given mean number of experts."""

from __future__ import annotations

import argparse
import math
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
    add_restart_option,
    open_journal,
    say_interrupted,
    write_and_print,
)
from bh_studio.cli.rule_options import RULE_HELP, explain_rules, rule
from bh_studio.cli.tables.budget import report
from bh_studio.cli.terminal.streams import (
    EXIT_OK,
    EXIT_USAGE,
    CommandError,
)
from bh_studio.engine.errors import Cancelled
from bh_studio.engine.protocol.experiments import Budget
from bh_studio.engine.protocol.texts import read_texts, sources_of
from bh_studio.engine.records.budget import BudgetResult
from bh_studio.engine.rules.parameters import RuleParameters

ENDINGS = (".json",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what this command does, and add its arguments."""
    parser.description = (
        "Find the level of a rule at which a token uses MEAN experts in a layer on "
        "average, by reading texts with it; print the rule as other commands take it."
    )
    parser.add_argument("mean", type=_mean, metavar="MEAN", help="mean experts, from 1")
    parser.add_argument(
        "--fit",
        nargs="+",
        type=Path,
        required=True,
        metavar="PATH",
        help="text files, or folders of .txt files, to find the level on",
    )
    parser.add_argument(
        "--check",
        nargs="+",
        type=Path,
        default=[],
        metavar="PATH",
        help="other texts: whether the mean holds there, and what the rule and its controls lose",
    )
    parser.add_argument(
        "--rule",
        type=rule,
        default=RuleParameters(),
        metavar="RULE",
        help=f"the rule; the level in it plays no part: {RULE_HELP} (default: bh)",
    )
    parser.add_argument(
        "--per-layer",
        action="store_true",
        help="also find a level for each layer, so that together they lose the least",
    )
    parser.add_argument(
        "--tokens",
        type=whole_number_from(1),
        metavar="N",
        help="read about N tokens of each, spread evenly",
    )
    add_model_option(parser)
    add_calibration_option(parser)
    parser.add_argument(
        "--out",
        type=output_file(ENDINGS),
        metavar="FILE.json",
        help="keep the result, and what was read for it as soon as it is read; after an "
        "interruption the same command goes on",
    )
    add_restart_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    explain_rules(parser)
    add_definition_option(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    texts = [*arguments.fit, *arguments.check]
    return run_or_save(arguments, _definition(arguments), carry_out, lambda: sources_of(texts))


def _definition(arguments: argparse.Namespace) -> Budget:
    try:
        return Budget(
            target=arguments.mean,
            rule=arguments.rule,
            fit=read_texts(arguments.fit),
            check=read_texts(arguments.check),
            by_layer=arguments.per_layer,
            tokens=arguments.tokens,
        )
    except ValueError as error:
        raise CommandError(str(error), EXIT_USAGE) from error


def carry_out(arguments: argparse.Namespace, definition: Budget) -> int:
    """Run `definition` with the model and the --out of `arguments`, and print it; the exit code."""
    with open_journal(arguments, definition, ENDINGS) as journal:
        loaded = load(arguments, arguments.calibration)
        try:
            budget: BudgetResult = read_to_end(arguments, loaded, definition, journal)
        except Cancelled:
            return say_interrupted(arguments.out)
        write_and_print(arguments, journal, budget, lambda: report(budget))
    return EXIT_OK


def _mean(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 1 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of experts from 1")
    return value
