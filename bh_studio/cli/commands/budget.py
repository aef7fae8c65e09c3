"""`bh-studio budget`: the level of a rule at which it uses a given mean number of experts."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from bh_studio.cli.loading import load
from bh_studio.cli.options import (
    RULE_HELP,
    add_calibration_option,
    add_model_option,
    output_file,
    rule,
    whole_number_from,
    write_output,
)
from bh_studio.cli.tables.budget import report
from bh_studio.cli.terminal.interrupt import stop_on_interrupt
from bh_studio.cli.terminal.progress import Progress
from bh_studio.cli.terminal.streams import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    CommandError,
    print_result,
    say,
)
from bh_studio.engine.errors import Cancelled
from bh_studio.engine.experiments.budget.level_search import check_searchable
from bh_studio.engine.files.atomic import write_atomically
from bh_studio.engine.protocol.texts import read_texts
from bh_studio.engine.rules.parameters import RuleParameters

if TYPE_CHECKING:
    from bh_studio.engine.loading import LoadedModel
    from bh_studio.engine.protocol.events import FitProgress
    from bh_studio.engine.protocol.experiments import BudgetRequest
    from bh_studio.engine.records.budget import Budget


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "budget",
        prog="bh-studio budget",
        help="find the level at which a rule uses a given mean number of experts",
        description="Find the level of a rule at which a token uses MEAN experts in a layer on "
        "average, by reading texts with it; print the rule as other commands take it.",
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
        "--out", type=output_file((".json",)), metavar="FILE.json", help="save the result"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    try:
        check_searchable(arguments.rule)
    except ValueError as error:
        raise CommandError(str(error), EXIT_USAGE) from error
    fit, check = read_texts(arguments.fit), read_texts(arguments.check)
    loaded = load(arguments, arguments.calibration)
    from bh_studio.engine.protocol.experiments import BudgetRequest

    request = BudgetRequest(
        target=arguments.mean,
        parameters=arguments.rule,
        fit=fit,
        check=check,
        by_layer=arguments.per_layer,
        tokens=arguments.tokens,
    )
    try:
        budget = _find(loaded, request)
    except Cancelled:
        say("Stopped; nothing was kept.")
        return EXIT_INTERRUPTED
    if arguments.out is not None:
        text = json.dumps(budget.to_json(), indent=1, allow_nan=False)
        write_output(lambda path: write_atomically(path, text.encode()), arguments.out)
        say(f"Saved {arguments.out}")
    as_json = arguments.json
    print_result(json.dumps(budget.to_json(), allow_nan=False) if as_json else report(budget))
    return EXIT_OK


def _find(loaded: LoadedModel, request: BudgetRequest) -> Budget:
    """The budget. Raises Cancelled after Ctrl+C."""
    from bh_studio.engine.experiments.budget.budget import find_budget, planned_passes

    stages: dict[str, Progress] = {}

    def show(progress: FitProgress) -> None:
        stage = stages.setdefault(
            progress.stage, Progress(1, 0, f"window passes ({progress.stage})")
        )
        stage.fraction(progress.done, progress.total)

    with stop_on_interrupt(request.cancel):
        passes = planned_passes(loaded.shape.layers, request.by_layer)
        say(f"The fit reads its text about {passes} times.")
        try:
            return find_budget(loaded, request, show)
        finally:
            for stage in stages.values():
                stage.clear()


def _mean(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 1 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of experts from 1")
    return value
