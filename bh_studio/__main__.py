"""The program's entry: arguments -> command line or window; logging and what to do when it ends.

Imports nothing heavy at its top, so that --help and --version answer at once.
"""

from __future__ import annotations

import argparse
import atexit
import faulthandler
import gc
import logging
import logging.handlers
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from bh_studio import __version__, cli, display, paths
from bh_studio.cli import options, rule_options
from bh_studio.cli.terminal.streams import replace_closed_streams
from bh_studio.engine.protocol.requests import DTYPES
from bh_studio.engine.rules import completed_rule
from bh_studio.engine.rules.sides import check_sides

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130

_DESCRIPTION = """\
Answer a prompt with top-8 and with Benjamini-Hochberg (BH) expert routing of OLMoE, side by side.
Without a command the window opens; the options below set it up.
"""
_EPILOG = f"""\
exit codes:
  {EXIT_OK}    done
  {EXIT_FAILED}    failed; the reason is on standard error
  {EXIT_USAGE}    wrong arguments, or no display to open the window on
  {EXIT_INTERRUPTED}  interrupted with Ctrl+C
"""
_WINDOW = "window_"
# Window options that are fields of GenerationParameters.
_GENERATION = {
    "max_new_tokens": "max_new_tokens",
    "sample": "sampling",
    "sampling_temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
}

_log = logging.getLogger("bh_studio")
_crash_log: TextIO | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with `argv`, by default the process's arguments; the exit code."""
    replace_closed_streams()
    try:
        return _run(argv)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _run(argv: Sequence[str] | None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    window = _window_options(arguments)
    if arguments.command is not None and window:
        option = "--" + next(iter(window)).replace("_", "-")
        parser.error(f"{option} before {arguments.command} is an option of the window")
    if window.get("chat") is False and window.get("system"):
        parser.error("--system is part of a chat; leave out --no-chat")
    try:
        rules = _take_rules(window)
    except ValueError as error:
        parser.error(str(error))
    _start_logging()
    if arguments.command is None:
        with _ended_by_interrupts():
            return _open_window(window, rules)
    # Python's own end would look through all modules for garbage, in vain and for half a second.
    atexit.register(gc.freeze)
    return cli.run(arguments)


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program: the window's options, and one parser a command."""
    parser = argparse.ArgumentParser(
        prog="bh-studio",
        usage="bh-studio [options of the window]\n       bh-studio COMMAND ...",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"bh-studio {__version__}")
    cli.add_commands(parser)
    _add_window_options(parser.add_argument_group("window"))
    return parser


def _add_window_options(group: argparse._ArgumentGroup) -> None:
    """Add the window's options; one that is not given leaves what the window remembers."""

    def add(option: str, help_text: str, **keywords: Any) -> None:
        # Prefixed, for the commands have options of the same names with defaults of their own.
        destination = _WINDOW + option.removeprefix("--").replace("-", "_")
        group.add_argument(option, dest=destination, default=None, help=help_text, **keywords)

    add("--model", options.MODEL_HELP, metavar="SOURCE")
    add("--device", options.DEVICE_HELP, metavar="DEVICE")
    add("--dtype", options.DTYPE_HELP, choices=DTYPES)
    add("--calibration", options.CALIBRATION_HELP, type=Path, metavar="FILE")
    add("--load-anyway", options.LOAD_ANYWAY_HELP, action="store_true")
    add("--open", "show a saved session, or what sides made of a text", type=Path, metavar="FILE")
    add("--prompt", "the text to continue, or a message to an instruct model", metavar="TEXT")
    add(
        "--chat",
        "take the prompt as a message to an instruct model, or as plain text",
        action=argparse.BooleanOptionalAction,
    )
    add("--system", "system prompt of a chat", metavar="TEXT")
    rule_options.add_window_sides(group, _WINDOW)
    add("--max-new-tokens", "the most tokens of an answer", type=int, metavar="N")
    add("--sample", "draw tokens, or take the most probable", action=argparse.BooleanOptionalAction)
    add("--sampling-temperature", "divides the vocabulary logits", type=float, metavar="T")
    add("--top-p", "draw from the tokens that together hold P", type=float, metavar="P")
    add("--seed", "start of the random draws", type=int, metavar="N")
    add("--history", options.HISTORY_HELP, action=argparse.BooleanOptionalAction)
    add("--run", "run as soon as the model is ready", action="store_true")
    add("--save", "save the session after the run", type=Path, metavar="FILE")
    add("--screenshot", "write a picture of the window (PNG)", type=Path, metavar="FILE")
    add("--size", "size of the window, as in 1280x800", type=_size, metavar="WxH")
    add("--theme", "colours; the system's unless given", choices=("light", "dark"))
    add("--quit", "end when all this is done, with exit code 0 if it was", action="store_true")


def _window_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The window options that were given, by name."""
    return {
        name.removeprefix(_WINDOW): value
        for name, value in vars(arguments).items()
        if name.startswith(_WINDOW) and value is not None
    }


def _take_rules(given: dict[str, Any]) -> list[dict[str, Any]]:
    """Take what says something of rules out of `given`: of each, by the fields of RuleParameters.

    Raises ValueError for options that contradict each other, and for sides that cannot be, as far
    as that is known without what the window remembers.
    """
    rules = rule_options.rules_values(given)
    is_own = given.get("own", True)
    if len(rules) > 1:
        check_sides([*([None] if is_own else []), *map(completed_rule, rules)])
    elif not rules and not is_own:
        raise ValueError("--no-own leaves no side; say which rules to compare with --rule")
    for name in rule_options.RULE_OPTIONS:
        if name != "own":
            given.pop(name, None)
    return rules


def _open_window(given: dict[str, Any], rules: list[dict[str, Any]]) -> int:
    """Open the window set up as `given` and `rules` say, and stay in it; the exit code."""
    problem = display.window_problem()
    if problem is not None:
        print(f"bh-studio: {problem}", file=sys.stderr)
        return EXIT_USAGE
    # What modules make stays; to look through it for garbage while they load, and each time after,
    # costs the start a tenth and the window frames.
    gc.disable()
    from bh_studio.app import WindowOptions, run_window

    gc.freeze()
    gc.enable()
    window = WindowOptions(
        session=given.pop("open", None),
        color_scheme=given.pop("theme", None),
        rules=rules,
        generation={field: given.pop(name) for name, field in _GENERATION.items() if name in given},
        **given,
    )
    return run_window(window)


@contextmanager
def _ended_by_interrupts() -> Iterator[None]:
    """Let Ctrl+C end the process at once while there is nothing to lose.

    What Python raises for it in the middle of Qt's imports makes Qt abort with a dump. The window
    takes interrupts over as soon as it is there.
    """
    former = signal.getsignal(signal.SIGINT)
    if former is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{2,5})x(\d{2,5})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text} is not a size such as 1280x800")
    return int(match[1]), int(match[2])


def _start_logging() -> None:
    """Log to a file that is kept small and warnings to standard error; crashes to a file too."""
    global _crash_log
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    # Under pythonw there is no standard error.
    if sys.stderr is not None:
        console = logging.StreamHandler()
        console.setLevel(logging.WARNING)
        console.setFormatter(_OneLine())
        root.addHandler(console)
    sys.excepthook = _log_exception
    threading.excepthook = _log_thread_exception
    folder = paths.log_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = logging.handlers.RotatingFileHandler(
            folder / "bh-studio.log", maxBytes=1_000_000, backupCount=2, encoding="utf-8"
        )
        _crash_log = (folder / "crash.log").open("a", encoding="utf-8")
    except OSError as error:
        _log.warning("No log is kept: %s", error)
        return
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(file)
    faulthandler.enable(_crash_log)


class _OneLine(logging.Formatter):
    """For standard error: what went wrong, without the traceback that the log file keeps."""

    def format(self, record: logging.LogRecord) -> str:
        lines = [record.getMessage().partition("\n")[0]]
        if record.exc_info and record.exc_info[1] is not None:
            lines.append(str(record.exc_info[1]) or record.exc_info[1].__class__.__name__)
        return f"bh-studio: {': '.join(lines)}"


def _log_exception(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Log what nobody caught, with its traceback."""
    if issubclass(kind, KeyboardInterrupt):
        return
    _log.critical("An error that nobody expected", exc_info=(kind, error, traceback))


def _log_thread_exception(arguments: threading.ExceptHookArgs) -> None:
    """The same for a Python thread."""
    if arguments.exc_value is not None:
        _log_exception(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)


if __name__ == "__main__":
    sys.exit(main())
