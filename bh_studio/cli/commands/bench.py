"""`bh-studio bench`: how fast this machine decodes, beside stock `generate` and its memory."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from bh_studio.cli.loading import load
from bh_studio.cli.options import (
    add_calibration_option,
    add_model_option,
    output_file,
    whole_number_from,
    write_output,
)
from bh_studio.cli.tables.bench import table
from bh_studio.cli.terminal.interrupt import stop_on_interrupt
from bh_studio.cli.terminal.progress import StageProgress
from bh_studio.cli.terminal.streams import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    CommandError,
    print_result,
    say,
)
from bh_studio.engine.errors import Cancelled
from bh_studio.engine.files.atomic import write_atomically
from bh_studio.engine.protocol.events import BenchProgress
from bh_studio.engine.protocol.experiments import BenchRequest
from bh_studio.engine.records.benchmark_document import document

if TYPE_CHECKING:
    from bh_studio.engine.loading import LoadedModel
    from bh_studio.engine.records.benchmark_result import BenchResult

_DEFAULT = BenchRequest()


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "bench",
        prog="bh-studio bench",
        help="measure how fast this machine decodes",
        description="Decode with transformers' own generate, with the baseline and with BH, one "
        "after the other in every round, and print how fast each is, how many experts it uses and "
        "how near it comes to the speed at which memory can be read. Close other programs first.",
    )
    add_model_option(parser)
    add_calibration_option(parser)
    for name, least, text in (
        ("tokens", 2, "new tokens of each answer"),
        ("rounds", 1, "how often everything is measured"),
        ("prompt-tokens", 1, "tokens of the prompt"),
        ("prefill-tokens", 0, "also time reading a prompt of N tokens; 0 leaves that out"),
    ):
        parser.add_argument(
            f"--{name}",
            type=whole_number_from(least),
            default=getattr(_DEFAULT, name.replace("-", "_")),
            metavar="N",
            help=f"{text} (%(default)s)",
        )
    parser.add_argument(
        "--out", type=output_file((".json",)), metavar="FILE.json", help="save every figure"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    request = BenchRequest(
        tokens=arguments.tokens,
        rounds=arguments.rounds,
        prompt_tokens=arguments.prompt_tokens,
        prefill_tokens=arguments.prefill_tokens,
    )
    _check_context(arguments, request)
    loaded = load(arguments, arguments.calibration)
    try:
        result = _measure(loaded, request)
    except Cancelled:
        raise CommandError(
            "Stopped before the first round was complete; nothing was written.", EXIT_INTERRUPTED
        ) from None
    text = json.dumps(document(result), indent=1, allow_nan=False)
    if arguments.out is not None:
        write_output(lambda path: write_atomically(path, f"{text}\n".encode()), arguments.out)
        say(f"Saved {arguments.out}")
    print_result(json.dumps(json.loads(text)) if arguments.json else table(result))
    return EXIT_OK if result.rounds == result.rounds_asked else EXIT_INTERRUPTED


def _check_context(arguments: argparse.Namespace, request: BenchRequest) -> None:
    """Refuse what does not fit the model before its weights are read."""
    from bh_studio.engine.models.plan import plan_load

    plan = plan_load(arguments.model, arguments.device, arguments.dtype)
    request.check_context(int(plan.config.max_position_embeddings))


def _measure(loaded: LoadedModel, request: BenchRequest) -> BenchResult:
    from bh_studio.engine.experiments.benchmark.benchmark import run_bench

    stages, is_terminal, rounds = StageProgress(), sys.stderr.isatty(), 0

    def report(progress: BenchProgress) -> None:
        nonlocal rounds
        if is_terminal:
            stages.show(f"{progress.rounds} of {request.rounds} rounds, {progress.stage}", None)
        elif progress.rounds > rounds:
            rounds = progress.rounds
            say(f"{rounds} of {request.rounds} rounds")

    try:
        with stop_on_interrupt(request.cancel):
            return run_bench(loaded, request, report)
    finally:
        stages.clear()
