"""`bh-studio compare`: its options, and one prompt answered in two columns as they grow."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bh_studio.cli.compare_file import compare_file
from bh_studio.cli.comparison_summary import summary
from bh_studio.cli.experiment import add_restart_option
from bh_studio.cli.interrupt import stop_on_interrupt
from bh_studio.cli.loading import load
from bh_studio.cli.output_file import output_file, write_output
from bh_studio.cli.prompts_file import prompts_path
from bh_studio.cli.terminal import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    CommandError,
    accept_any_character,
    print_result,
    read_prompt,
    say,
    terminal_width,
)
from bh_studio.columns import ColumnPrinter
from bh_studio.engine.messages import (
    FinishReason,
    RunComparison,
    RunFinished,
    Side,
    SideFinished,
    TokenGenerated,
)
from bh_studio.engine.session import Session
from bh_studio.engine.session_file import SUFFIX, export_csv, export_json, save_session
from bh_studio.options import (
    add_calibration_option,
    add_generation_options,
    add_model_option,
    add_rule_options,
    generation_parameters,
    rule_parameters,
)

if TYPE_CHECKING:
    from bh_studio.engine.models import LoadedModel

_WRITERS: dict[str, Callable[[Session, Path], None]] = {
    SUFFIX: save_session,
    ".json": export_json,
    ".csv": export_csv,
}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "compare",
        prog="bh-studio compare",
        help="answer prompts with both routings in the terminal",
        description="Answer PROMPT with top-k and with BH routing, side by side, and print how "
        "many experts each token used. Or do so for every prompt of a file, and print the numbers "
        "of each and of all.",
    )
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument(
        "prompt",
        nargs="?",
        metavar="PROMPT",
        help='the text to continue; "-" reads it from standard input',
    )
    asked.add_argument(
        "--prompts-file",
        type=prompts_path,
        metavar="FILE",
        help='many prompts: .txt (one a line), .csv (a column "prompt") or .jsonl (strings, or '
        'objects with "prompt")',
    )
    add_model_option(parser)
    add_calibration_option(parser)
    add_rule_options(parser)
    add_generation_options(parser)
    parser.add_argument(
        "--out",
        type=output_file(_WRITERS),
        metavar="FILE",
        help=f"save the result: {SUFFIX} (whole session), .json or .csv; of a prompts file .json "
        "or .csv, each prompt as soon as it is answered, and after an interruption the same "
        "command goes on",
    )
    add_restart_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    try:
        rule, generation = rule_parameters(arguments), generation_parameters(arguments)
    except ValueError as error:
        raise CommandError(str(error), EXIT_USAGE) from error
    if arguments.prompts_file is not None:
        return compare_file(arguments, rule, generation)
    if arguments.restart:
        raise CommandError("--restart needs --prompts-file.", EXIT_USAGE)
    request = RunComparison(0, read_prompt(arguments.prompt), rule, generation)
    session = _run_comparison(
        load(arguments.model, arguments.calibration), request, quiet=arguments.json
    )
    # The file first: standard output may be a pipe whose reader has gone.
    if arguments.out is not None:
        write_output(lambda path: _WRITERS[path.suffix](session, path), arguments.out)
        say(f"Saved {arguments.out}")
    if arguments.json:
        # ASCII with escapes is valid whatever the encoding of standard output.
        print_result(json.dumps(session.to_json(), allow_nan=False))
    else:
        print_result(summary(session))
    stopped = any(r.finish_reason is FinishReason.STOPPED for r in session.sides.values())
    return EXIT_INTERRUPTED if stopped else EXIT_OK


def _run_comparison(loaded: LoadedModel, request: RunComparison, quiet: bool) -> Session:
    from bh_studio.engine.comparison import compare

    printer = None
    if not quiet:
        accept_any_character()
        titles = (f"baseline (top {loaded.info.top_k})", f"BH (alpha {request.rule.level:g})")
        printer = ColumnPrinter(sys.stdout, terminal_width(), titles)
    columns = {Side.BASELINE: 0, Side.BH: 1}
    with stop_on_interrupt(request.cancel):
        for event in compare(loaded, request):
            if isinstance(event, RunFinished):
                return event.session
            try:
                if printer is not None and isinstance(event, TokenGenerated):
                    printer.add(columns[event.side], event.text)
                elif printer is not None and isinstance(event, SideFinished):
                    printer.add(columns[event.side], event.text_tail)
                    printer.end(columns[event.side])
            except BrokenPipeError:
                printer = None  # nobody reads any more; the result may still be wanted in a file
    raise AssertionError("A comparison always ends with RunFinished.")
