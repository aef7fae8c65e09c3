"""`bh-studio bench`: how fast this machine decodes, beside stock `generate` and its memory."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bh_studio.cli.definitions import add_definition_option, run_or_save
from bh_studio.cli.loading import Loaded, load
from bh_studio.cli.options import (
    add_calibration_option,
    add_model_option,
    check_ending,
    output_file,
    whole_number_from,
    write_and_show,
    write_bytes,
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
from bh_studio.engine.errors import Cancelled, CancelToken
from bh_studio.engine.execution.host import Host
from bh_studio.engine.protocol.events import Activity, Finished, ModelInspected, Progress
from bh_studio.engine.protocol.experiments import Benchmark
from bh_studio.engine.protocol.requests import InspectModel
from bh_studio.engine.records.benchmark.document import document

_DEFAULT = Benchmark()
_ENDINGS = (".json",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what this command does, and add its arguments."""
    parser.description = (
        "Decode with transformers' own generate, with the baseline and with BH, one "
        "after the other in every round, and print how fast each is, how many experts it uses and "
        "how near it comes to the speed at which memory can be read. Close other programs first."
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
        "--out", type=output_file(_ENDINGS), metavar="FILE.json", help="save every figure"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    add_definition_option(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    return run_or_save(arguments, _definition(arguments), carry_out)


def _definition(arguments: argparse.Namespace) -> Benchmark:
    return Benchmark(
        tokens=arguments.tokens,
        rounds=arguments.rounds,
        prompt_tokens=arguments.prompt_tokens,
        prefill_tokens=arguments.prefill_tokens,
    )


def carry_out(arguments: argparse.Namespace, definition: Benchmark) -> int:
    """Measure, print and write what `definition` asks for; the exit code.

    arguments: the options of the model, --calibration, --out and --json.
    """
    check_ending(arguments.out, _ENDINGS)
    _check_context(arguments, definition)
    loaded = load(arguments, arguments.calibration)
    try:
        end = _measured(loaded, definition)
    except Cancelled:
        raise CommandError(
            "Stopped before the first round was complete; nothing was written.", EXIT_INTERRUPTED
        ) from None
    text = json.dumps(document(end.document), indent=1, allow_nan=False)

    def write(out: Path) -> None:
        write_bytes(f"{text}\n".encode(), out)
        say(f"Saved {out}")

    def show() -> None:
        print_result(json.dumps(json.loads(text)) if arguments.json else table(end.document))

    write_and_show(arguments.out, write, show)
    return EXIT_OK if end.is_complete else EXIT_INTERRUPTED


def _check_context(arguments: argparse.Namespace, definition: Benchmark) -> None:
    """Refuse what does not fit the model before its weights are read."""
    request = InspectModel(arguments.model, arguments.device, arguments.dtype)
    for event in Host().answer(request, CancelToken()):
        # What else is wrong with the model, the load says.
        if isinstance(event, ModelInspected) and not event.problem:
            definition.check_context(event.context_length)


def _measured(loaded: Loaded, definition: Benchmark) -> Finished:
    """What comes of it, with its progress. Raises Cancelled after Ctrl+C in the first round."""
    stages, is_terminal, cancel, rounds = StageProgress(), sys.stderr.isatty(), CancelToken(), 0
    try:
        with stop_on_interrupt(cancel):
            for event in loaded.answer(definition, cancel):
                if isinstance(event, Finished):
                    return event
                if isinstance(event, Activity):
                    stages.show(f"{rounds} of {definition.rounds} rounds, {event.text}", None)
                elif isinstance(event, Progress) and event.done > rounds:
                    rounds = event.done
                    if not is_terminal:
                        say(f"{rounds} of {definition.rounds} rounds")
    finally:
        stages.clear()
    raise AssertionError("An experiment always ends with Finished.")
