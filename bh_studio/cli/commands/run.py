"""`bh-studio run`: an experiment that a file defines."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bh_studio.cli.commands import (
    bench,
    budget,
    calibrate,
    compare,
    compare_file,
    compare_text,
    evaluate,
    replay,
    sweep,
)
from bh_studio.cli.options import (
    add_calibration_option,
    add_history_option,
    add_model_option,
    output_file,
)
from bh_studio.cli.resuming import add_restart_option
from bh_studio.engine.protocol.definition_file import load_definition
from bh_studio.engine.protocol.experiments import (
    Batch,
    Benchmark,
    Budget,
    Calibration,
    Comparison,
    Evaluation,
    Replay,
    SameText,
    Sweep,
)
from bh_studio.engine.records.session import SUFFIX

_ENDINGS = (".json", ".csv", ".npz", SUFFIX)
_CARRY_OUT: dict[type, Callable[[argparse.Namespace, Any], int]] = {
    Batch: compare_file.carry_out,
    Benchmark: bench.carry_out,
    Budget: budget.carry_out,
    Calibration: calibrate.carry_out,
    Comparison: compare.carry_out,
    Evaluation: evaluate.carry_out,
    Replay: replay.carry_out,
    SameText: compare_text.carry_out,
    Sweep: sweep.carry_out,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what this command does, and add its arguments."""
    parser.description = (
        "Run what FILE.json defines: what --save-definition of another command wrote, "
        "or a file of that form made by hand. The texts that it names must still be the same."
    )
    parser.add_argument("definition", type=Path, metavar="FILE.json", help="the definition")
    add_model_option(parser)
    add_calibration_option(parser)
    parser.add_argument(
        "--out",
        type=output_file(_ENDINGS),
        metavar="FILE",
        help="keep the result, with the endings that the command of this experiment takes; after "
        "an interruption the same command goes on",
    )
    add_restart_option(parser)
    add_history_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    # A definition that leaves open whether its prompts are messages leaves it to the model.
    parser.set_defaults(run=_run, chat=None, system=None, layers=False)


def _run(arguments: argparse.Namespace) -> int:
    definition = load_definition(arguments.definition)
    return _CARRY_OUT[type(definition)](arguments, definition)
