"""`bh-studio replay`: rules recomputed from recorded router logits, without a model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bh_studio.cli.commands.replay_session import replay_session
from bh_studio.cli.definitions import add_definition_option, run_or_save
from bh_studio.cli.options import (
    check_ending,
    output_file,
    whole_number_from,
    write_and_show,
    write_bytes,
)
from bh_studio.cli.rule_options import RULE_HELP, explain_rules, rule
from bh_studio.cli.tables.replay import csv_text, table
from bh_studio.cli.terminal.progress import Progress as ProgressLine
from bh_studio.cli.terminal.streams import EXIT_OK, print_result, say
from bh_studio.engine.errors import CancelToken
from bh_studio.engine.execution.clerk import Clerk
from bh_studio.engine.protocol.events import Finished, Progress
from bh_studio.engine.protocol.experiments import DEFAULT_TOP_K, NullSource, Replay
from bh_studio.engine.protocol.logits_files import LogitsFile, read_logits_file
from bh_studio.engine.records.replays import NOTE, ReplayResult
from bh_studio.engine.records.session import SUFFIX

_ENDINGS = (".json", ".csv")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what this command does, and add its arguments."""
    parser.description = (
        "Recompute which experts rules select from recorded router logits, or from those that a "
        f"session has of each side, without a model. {NOTE} With a session go --calibration, "
        "--rule, --layers and --json alone."
    )
    parser.add_argument(
        "logits",
        type=Path,
        metavar="FILE",
        help="LOGITS.npz: what `bh-studio calibrate --out` saved, or an .npz file with an array "
        '"logits" (layer, token, expert); or a session: a .bhsession file or the folder of a run',
    )
    null = parser.add_mutually_exclusive_group()
    null.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="fit nulls on what `bh-studio calibrate --out FILE` saved (default: on LOGITS.npz, if "
        "it is such a file; on what a session had, if that is kept on this machine)",
    )
    null.add_argument(
        "--leave-one-out",
        action="store_true",
        help="fit the null of each token on all others; for small recordings",
    )
    parser.add_argument(
        "--skip",
        type=whole_number_from(0),
        default=0,
        metavar="N",
        help="leave out the first N positions",
    )
    parser.add_argument(
        "--top-k",
        type=whole_number_from(0),
        metavar="K",
        help=f"experts the model's own router keeps (the null's, else {DEFAULT_TOP_K})",
    )
    parser.add_argument(
        "--rule",
        dest="rules",
        action="append",
        type=rule,
        metavar="RULE",
        help=f"a rule, may be given again: {RULE_HELP} (default: a choice of all rules; of a "
        "session each side's own)",
    )
    parser.add_argument("--layers", action="store_true", help="also print the mean of each layer")
    parser.add_argument(
        "--out", type=output_file(_ENDINGS), metavar="FILE", help="save as .json or .csv"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    explain_rules(parser)
    add_definition_option(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.logits.is_dir() or arguments.logits.suffix.lower() == SUFFIX:
        return replay_session(arguments)
    definition = _definition(arguments)
    paths = {definition.logits.sha256: arguments.logits}
    if isinstance(definition.null, LogitsFile):
        paths[definition.null.sha256] = arguments.calibration
    return run_or_save(arguments, definition, carry_out, lambda: paths)


def _definition(arguments: argparse.Namespace) -> Replay:
    """What is asked for. Raises InputError for a file that cannot be read."""
    logits = read_logits_file(arguments.logits)
    null: LogitsFile | NullSource = NullSource.OWN
    if arguments.leave_one_out:
        null = NullSource.LEAVE_ONE_OUT
    elif arguments.calibration is not None:
        null = read_logits_file(arguments.calibration)
    return Replay(
        logits=logits,
        null=null,
        skip=arguments.skip,
        top_k=arguments.top_k,
        rules=tuple(dict.fromkeys(arguments.rules or ())),
    )


def carry_out(arguments: argparse.Namespace, definition: Replay) -> int:
    """Replay, print and write what `definition` asks for; the exit code.

    arguments: the options --layers, --out and --json.
    """
    check_ending(arguments.out, _ENDINGS)
    result = _replayed(definition)
    if arguments.json:
        text = json.dumps(result.to_json(), allow_nan=False)
    else:
        text = table(result, arguments.layers)
    write_and_show(arguments.out, lambda out: _save(result, out), lambda: print_result(text))
    return EXIT_OK


def _replayed(definition: Replay) -> ReplayResult:
    """What comes of it, with its progress."""
    line = ProgressLine(1, 0, "rules")
    try:
        for event in Clerk().answer(definition, CancelToken()):
            if isinstance(event, Finished):
                result: ReplayResult = event.document
                return result
            if isinstance(event, Progress):
                line.fraction(event.done, event.total)
    finally:
        line.clear()
    raise AssertionError("An experiment always ends with Finished.")


def _save(result: ReplayResult, out: Path) -> None:
    if out.suffix == ".csv":
        text = csv_text(result.rows)
    else:
        text = json.dumps(result.to_json(), indent=1, allow_nan=False)
    write_bytes(text.encode(), out)
    say(f"Saved {out}")
