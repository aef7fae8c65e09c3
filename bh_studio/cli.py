"""The terminal's commands. Knows the engine, no Qt; torch is imported only when a command runs."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from bh_studio.columns import ColumnPrinter
from bh_studio.engine.messages import (
    CancelToken,
    FinishReason,
    LoadProgress,
    Mode,
    RunComparison,
    RunFinished,
    Side,
    SideFinished,
    TokenGenerated,
)
from bh_studio.engine.session import Session, SideRecord
from bh_studio.engine.session_file import SUFFIX, export_csv, export_json, save_session
from bh_studio.options import (
    add_generation_options,
    add_model_option,
    add_rule_options,
    generation_parameters,
    rule_parameters,
)

if TYPE_CHECKING:
    from bh_studio.engine.models import LoadedModel

log = logging.getLogger(__name__)

_WRITERS: dict[str, Callable[[Session, Path], None]] = {
    SUFFIX: save_session,
    ".json": export_json,
    ".csv": export_csv,
}
_EXIT_INTERRUPTED = 130
_REASONS = {
    FinishReason.END_OF_TEXT: "end of text",
    FinishReason.MAX_NEW_TOKENS: "token limit",
    FinishReason.CONTEXT_LENGTH: "context full",
    FinishReason.STOPPED: "stopped",
}


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of every command."""
    compare = commands.add_parser(
        "compare",
        prog="bh-studio compare",
        help="answer a prompt with both routings in the terminal",
        description="Answer PROMPT with top-k and with BH routing, side by side, and print how "
        "many experts each token used.",
    )
    compare.add_argument(
        "prompt", metavar="PROMPT", help='the text to continue; "-" reads it from standard input'
    )
    add_model_option(compare)
    add_rule_options(compare)
    add_generation_options(compare)
    compare.add_argument(
        "--out",
        type=_output_file,
        metavar="FILE",
        help=f"save the result: {SUFFIX} (whole session), .json or .csv",
    )
    compare.add_argument(
        "--json", action="store_true", help="print one JSON object instead of text"
    )
    compare.set_defaults(run=_compare)


def run(arguments: argparse.Namespace) -> int:
    """Run the command that was asked for; the exit code."""
    command: Callable[[argparse.Namespace], int] = arguments.run
    return command(arguments)


def _compare(arguments: argparse.Namespace) -> int:
    try:
        rule, generation = rule_parameters(arguments), generation_parameters(arguments)
    except ValueError as error:
        return _fail(str(error), exit_code=2)
    prompt = _read_prompt() if arguments.prompt == "-" else arguments.prompt
    try:
        prompt.encode()
    except UnicodeEncodeError:
        return _fail("The prompt is not valid UTF-8 text.", exit_code=2)
    request = RunComparison(0, prompt, rule, generation)
    from bh_studio.engine.errors import failure

    try:
        loaded = _load(arguments.model)
        session = _run_comparison(loaded, request, quiet=arguments.json)
    except Exception as error:  # noqa: BLE001 - said in one sentence instead
        failed = failure(error)
        log.info("%s", failed.details)
        return _fail(f"{failed.message} {failed.advice}".strip())
    # The file first: standard output may be a pipe whose reader has gone.
    if arguments.out is not None:
        try:
            _WRITERS[arguments.out.suffix](session, arguments.out)
        except OSError as error:
            return _fail(f"{arguments.out} could not be written: {error.strerror}.")
        print(f"Saved {arguments.out}", file=sys.stderr)
    try:
        if arguments.json:
            # ASCII with escapes is valid whatever the encoding of standard output.
            print(json.dumps(session.to_json(), allow_nan=False), flush=True)
        else:
            _print_summary(session)
            sys.stdout.flush()
    except BrokenPipeError:
        # Else Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    stopped = any(r.finish_reason is FinishReason.STOPPED for r in session.sides.values())
    return _EXIT_INTERRUPTED if stopped else 0


def _read_prompt() -> str:
    """Standard input as UTF-8, whatever the locale; other bytes become lone surrogates."""
    return sys.stdin.buffer.read().decode("utf-8", errors="surrogateescape")


def _load(source: str) -> LoadedModel:
    print("Loading the model ...", file=sys.stderr, flush=True)
    from bh_studio.engine.models import load_model

    def report(progress: LoadProgress) -> None:
        share = "" if progress.fraction is None else f" {progress.fraction:.0%}"
        log.info("%s%s", progress.stage, share)

    return load_model(source, report)


def _run_comparison(loaded: LoadedModel, request: RunComparison, quiet: bool) -> Session:
    from bh_studio.engine.comparison import compare

    printer = None
    if not quiet:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A terminal's encoding may lack a character; the rest of the text is worth seeing.
            sys.stdout.reconfigure(errors="replace")
        width = shutil.get_terminal_size((100, 24)).columns
        titles = (f"baseline (top {loaded.info.top_k})", f"BH (alpha {request.rule.alpha:g})")
        printer = ColumnPrinter(sys.stdout, width, titles)
    columns = {Side.BASELINE: 0, Side.BH: 1}
    restore = _stop_on_interrupt(request.cancel)
    try:
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
    finally:
        restore()
    raise AssertionError("A comparison always ends with RunFinished.")


def _stop_on_interrupt(cancel: CancelToken) -> Callable[[], None]:
    """Let the first Ctrl+C stop the run and keep what it has; a second one ends the program."""
    former = signal.getsignal(signal.SIGINT)
    if former is signal.SIG_IGN:  # started in the background
        return lambda: None

    def stop(_number: int, _frame: FrameType | None) -> None:
        cancel.cancel()
        signal.signal(signal.SIGINT, former)

    signal.signal(signal.SIGINT, stop)

    def restore() -> None:
        signal.signal(signal.SIGINT, former)

    return restore


def _print_summary(session: Session) -> None:
    baseline, bh = (session.sides[side] for side in Side)
    print(f"\n{'':24}{'baseline':>12}{'BH':>12}")
    for label, values in (
        ("tokens", [str(len(r.token_ids)) for r in (baseline, bh)]),
        ("tokens per second", [_number(r.tokens_per_second, 1) for r in (baseline, bh)]),
        ("seconds to first token", [_number(r.time_to_first_token_s, 3) for r in (baseline, bh)]),
        ("mean experts", [_number(_answer(r)["mean"], 2) for r in (baseline, bh)]),
        ("std of experts", [_number(_answer(r)["std"], 2) for r in (baseline, bh)]),
        ("decided by min_k", [_share(_answer(r)["share_clamped_min"]) for r in (baseline, bh)]),
        ("decided by max_k", [_share(_answer(r)["share_clamped_max"]) for r in (baseline, bh)]),
        ("ended by", [_REASONS[r.finish_reason] for r in (baseline, bh)]),
    ):
        print(f"{label:24}{values[0]:>12}{values[1]:>12}")
    layers = _answer(bh)["per_layer_mean"]
    print("\nBH, mean experts of each layer (from 0):")
    print("  " + "  ".join(f"{mean:.1f}" for mean in layers))
    if session.rule.mode is Mode.ANALYZE:
        print("Analyze: both answers used the model's own routing; BH's counts are simulated.")
    difference = session.first_difference
    print(
        "The answers are the same, token for token, as far as both go."
        if difference is None
        else f"The answers first differ at token {difference}, counted from 0."
    )


def _answer(record: SideRecord) -> dict[str, Any]:
    return record.statistics()["answer"]  # type: ignore[no-any-return]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _output_file(text: str) -> Path:
    path = Path(text)
    if path.suffix not in _WRITERS:
        raise argparse.ArgumentTypeError(f"{text}: use one of {', '.join(_WRITERS)} as the ending")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: the folder {path.parent} does not exist")
    return path


def _fail(message: str, exit_code: int = 1) -> int:
    print(f"bh-studio: {message}", file=sys.stderr)
    return exit_code
