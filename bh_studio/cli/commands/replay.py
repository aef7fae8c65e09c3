"""`bh-studio replay`: rules recomputed from recorded router logits, without a model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bh_studio.cli.options import output_file, whole_number_from, write_output
from bh_studio.cli.rule_options import RULE_HELP, explain_rules, rule
from bh_studio.cli.tables.replay import NOTE, csv_text, table
from bh_studio.cli.terminal.progress import Progress
from bh_studio.cli.terminal.streams import EXIT_OK, EXIT_USAGE, CommandError, print_result, say
from bh_studio.engine.files.atomic import write_atomically
from bh_studio.engine.records.replays import SCHEMA_VERSION

if TYPE_CHECKING:
    from torch import Tensor

    from bh_studio.engine.records.replays import ArenaRow
    from bh_studio.engine.routing.recordings import Recording, RouterLogits

_DEFAULT_TOP_K = 8


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "replay",
        prog="bh-studio replay",
        help="compare what rules select from recorded router logits",
        description="Recompute which experts rules select from recorded router logits, without a "
        f"model. {NOTE}",
    )
    parser.add_argument(
        "logits",
        type=Path,
        metavar="LOGITS.npz",
        help="what `bh-studio calibrate --out` saved, or an .npz file with an array "
        '"logits" (layer, token, expert)',
    )
    null = parser.add_mutually_exclusive_group()
    null.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="fit nulls on what `bh-studio calibrate --out FILE` saved (default: on LOGITS.npz, if "
        "it is such a file)",
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
        help=f"experts the model's own router keeps (the null's, else {_DEFAULT_TOP_K})",
    )
    parser.add_argument(
        "--rule",
        dest="rules",
        action="append",
        type=rule,
        metavar="RULE",
        help=f"a rule, may be given again: {RULE_HELP} (default: a choice of all rules)",
    )
    parser.add_argument("--layers", action="store_true", help="also print the mean of each layer")
    parser.add_argument(
        "--out", type=output_file((".json", ".csv")), metavar="FILE", help="save as .json or .csv"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    explain_rules(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    found = _router_logits(arguments.logits)
    tokens = found.logits.shape[1]
    if arguments.skip >= tokens:
        raise CommandError(
            f"{arguments.logits} has {tokens} positions; --skip {arguments.skip} leaves none.",
            EXIT_USAGE,
        )
    recording = _recording(arguments, found)
    top_k = arguments.top_k
    if top_k is None:
        top_k = _DEFAULT_TOP_K if recording is None else recording.origin.top_k
    if not 1 <= top_k < found.logits.shape[2]:
        raise CommandError(
            f"--top-k must lie between 1 and {found.logits.shape[2] - 1}; got {top_k}.",
            EXIT_USAGE,
        )
    rows = _rows(arguments, found.logits[:, arguments.skip :], recording, top_k)
    document = _document(arguments, found.logits, recording, top_k, rows)
    if arguments.out is not None:
        _save(document, rows, arguments.out)
        say(f"Saved {arguments.out}")
    if arguments.json:
        print_result(json.dumps(document, allow_nan=False))
    else:
        print_result(table(document, rows, arguments.layers))
    return EXIT_OK


def _router_logits(path: Path) -> RouterLogits:
    from bh_studio.engine.routing.recordings import load_router_logits

    try:
        return load_router_logits(path)
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.", EXIT_USAGE) from error
    except ValueError as error:
        raise CommandError(str(error), EXIT_USAGE) from error


def _recording(arguments: argparse.Namespace, found: RouterLogits) -> Recording | None:
    """What nulls are fitted on; None for leaving one out, and where there is nothing."""
    if arguments.leave_one_out:
        return None
    own = found.recording
    if arguments.calibration is None:
        return own
    recording = _router_logits(arguments.calibration).recording
    if recording is None:
        raise CommandError(
            f"{arguments.calibration} was not saved by bh-studio calibrate.", EXIT_USAGE
        )
    if own is not None and own.origin.model_fingerprint != recording.origin.model_fingerprint:
        raise CommandError(
            f"{arguments.calibration} and {arguments.logits} were recorded from two models.",
            EXIT_USAGE,
        )
    return recording


def _rows(
    arguments: argparse.Namespace, logits: Tensor, recording: Recording | None, top_k: int
) -> list[ArenaRow]:
    import torch

    from bh_studio.engine.experiments.replays import arena, default_rules
    from bh_studio.engine.routing.replay import replay, replay_leave_one_out

    # Sorting rows of 64 numbers is not worth a second thread; on a busy machine it took ten times
    # as long with one.
    torch.set_num_threads(1)
    rules = list(dict.fromkeys(arguments.rules or default_rules(top_k)))
    if recording is None and not arguments.leave_one_out and any(r.is_test for r in rules):
        raise CommandError(
            f"{arguments.logits} holds no null; give --calibration FILE or --leave-one-out.",
            EXIT_USAGE,
        )
    progress = Progress(len(rules), 0, "rules")
    try:
        return arena(
            rules,
            lambda parameters: (
                replay_leave_one_out(logits, parameters, top_k)
                if arguments.leave_one_out
                else replay(logits, parameters, recording, top_k)
            ),
            lambda done: progress.fraction(round(done * len(rules)), len(rules)),
        )
    except ValueError as error:
        raise CommandError(str(error), EXIT_USAGE) from error
    finally:
        progress.clear()


def _document(
    arguments: argparse.Namespace,
    logits: Tensor,
    recording: Recording | None,
    top_k: int,
    rows: list[ArenaRow],
) -> dict[str, Any]:
    layers, tokens, experts = logits.shape
    null: dict[str, Any] = {"kind": "none"}
    if arguments.leave_one_out:
        null = {"kind": "leave-one-out"}
    elif recording is not None:
        kind = "own recording" if arguments.calibration is None else "calibration"
        null = {"kind": kind, "tokens": recording.origin.tokens, "sha256": recording.sha256}
    return {
        "schema_version": SCHEMA_VERSION,
        "note": NOTE,
        "logits": {
            "file": arguments.logits.name,
            "layers": layers,
            "tokens": tokens - arguments.skip,
            "experts": experts,
            "skipped": arguments.skip,
        },
        "top_k": top_k,
        "null": null,
        "rows": [row.to_dict() for row in rows],
    }


def _save(document: dict[str, Any], rows: list[ArenaRow], out: Path) -> None:
    if out.suffix == ".csv":
        text = csv_text(rows)
    else:
        text = json.dumps(document, indent=1, allow_nan=False)
    write_output(lambda path: write_atomically(path, text.encode()), out)
