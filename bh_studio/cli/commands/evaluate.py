"""`bh-studio evaluate`: what routing rules cost in quality, teacher-forced on texts."""

from __future__ import annotations

import argparse
import json
import time
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
from bh_studio.cli.tables.evaluation import csv_text, table
from bh_studio.cli.terminal.interrupt import stop_on_interrupt
from bh_studio.cli.terminal.progress import Progress
from bh_studio.cli.terminal.streams import EXIT_INTERRUPTED, EXIT_OK, print_result, say
from bh_studio.engine.files.atomic import write_atomically
from bh_studio.engine.protocol.texts import read_texts
from bh_studio.engine.records.evaluation import Evaluation
from bh_studio.engine.rules.parameters import RuleParameters

if TYPE_CHECKING:
    from bh_studio.engine.loading import LoadedModel
    from bh_studio.engine.protocol.experiments import EvaluationRequest

# Partial results reach the disk about as often as this, in seconds.
_SAVE_EVERY = 30.0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "evaluate",
        prog="bh-studio evaluate",
        help="measure what rules cost in quality on text files",
        description="Read the true texts with the model's own routing and with each rule, and "
        "compare how well the next tokens are predicted. Nothing is generated.",
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
        metavar="N",
        help="tokens the model sees at once (up to 2048)",
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
        "--out", type=output_file((".json", ".csv")), metavar="FILE", help="save as .json or .csv"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    texts = read_texts(arguments.texts)
    loaded = load(arguments, arguments.calibration)
    from bh_studio.engine.protocol.experiments import EvaluationRequest

    request = EvaluationRequest(
        texts=texts,
        rules=tuple(dict.fromkeys(arguments.rules or [RuleParameters()])),
        with_controls=arguments.controls,
        window=arguments.window,
        stride=arguments.stride,
        tokens=arguments.tokens,
    )
    evaluation = _evaluate(loaded, request, arguments.out)
    if arguments.out is not None:
        say(f"Saved {arguments.out}")
    if arguments.json:
        print_result(json.dumps(evaluation.to_json(), allow_nan=False))
    else:
        print_result(table(evaluation))
    return EXIT_OK if evaluation.is_complete else EXIT_INTERRUPTED


def _evaluate(loaded: LoadedModel, request: EvaluationRequest, out: Path | None) -> Evaluation:
    """The whole evaluation, or what there was when Ctrl+C was pressed; saved to `out` meanwhile."""
    from bh_studio.engine.experiments.evaluation.evaluation import evaluate

    progress, saved = Progress(1, 0, "window passes"), time.monotonic()
    with stop_on_interrupt(request.cancel):
        for event in evaluate(loaded, request):
            progress.fraction(event.done, event.total)
            evaluation = event.evaluation
            if out is not None and time.monotonic() - saved > _SAVE_EVERY:
                _save(evaluation, out)
                saved = time.monotonic()
    progress.clear()
    if out is not None:
        _save(evaluation, out)
    return evaluation


def _save(evaluation: Evaluation, out: Path) -> None:
    if out.suffix == ".csv":
        text = csv_text(evaluation)
    else:
        text = json.dumps(evaluation.to_json(), indent=1, allow_nan=False)
    write_output(lambda path: write_atomically(path, text.encode()), out)
