"""Options that commands share, and the parameters that follow from them. Imports nothing heavy."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from bh_studio import paths
from bh_studio.cli.terminal.interrupt import put_off_interrupts
from bh_studio.cli.terminal.streams import EXIT_USAGE, CommandError
from bh_studio.engine.errors import EngineError
from bh_studio.engine.files.atomic import check_writable, write_atomically
from bh_studio.engine.files.lock import LockedError, locked
from bh_studio.engine.protocol.prompts_file import ENDINGS as PROMPTS_ENDINGS
from bh_studio.engine.protocol.prompts_file import PromptsFile, read_prompts
from bh_studio.engine.protocol.requests import DTYPES
from bh_studio.engine.records.decisions.router_rows import rows_bytes
from bh_studio.engine.records.rows import PROMPTS_FIELD
from bh_studio.engine.records.session import SUFFIX, Session
from bh_studio.engine.records.session_file import SESSION_WRITERS
from bh_studio.engine.records.terms import GenerationParameters, Keep
from bh_studio.engine.units import format_bytes

# What the window's options and those of commands say alike.
MODEL_HELP = (
    '"embedded", a folder with an OLMoE checkpoint, or OWNER/NAME[@REVISION] that was downloaded'
)
DEVICE_HELP = '"auto", "cpu", "cuda:N", "cuda:all" (layers spread over all GPUs) or "mps"'
DTYPE_HELP = "number format of the weights"
LOAD_ANYWAY_HELP = "load even if the memory seems too small"
HISTORY_HELP = "keep every run, whatever becomes of it, in the user's data folder (the default)"
CALIBRATION_HELP = (
    "take nulls from what `bh-studio calibrate --out FILE` saved, not from the text that ships "
    "with the program"
)

# What commands read and what they write, by the names among their arguments. A chat may be saved
# where the conversation lies with which it goes on.
_READ = ("calibration", "check", "definition", "fit", "logits", "prompts_file", "text", "texts")
_WRITTEN = ("out", "save_definition")


def add_model_option(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add --model and how it is loaded."""
    parser.add_argument(
        "--model",
        default="embedded",
        metavar="SOURCE",
        help=f"{MODEL_HELP} (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        default="auto",
        metavar="DEVICE",
        help=f"{DEVICE_HELP} (default: %(default)s)",
    )
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=DTYPES,
        help=f"{DTYPE_HELP} (default: %(default)s)",
    )
    parser.add_argument("--load-anyway", action="store_true", help=LOAD_ANYWAY_HELP)


def add_history_option(parser: argparse.ArgumentParser) -> None:
    """Add --history and --no-history."""
    parser.add_argument(
        "--history", action=argparse.BooleanOptionalAction, default=True, help=HISTORY_HELP
    )


def history_folder(arguments: argparse.Namespace) -> Path | None:
    """Where each answer is kept while it goes on; None with --no-history."""
    return paths.history_dir() if arguments.history else None


def add_calibration_option(parser: argparse.ArgumentParser) -> None:
    """Add --calibration."""
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help=CALIBRATION_HELP,
    )


def add_generation_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that generation_parameters reads."""
    group = parser.add_argument_group("generation")
    default = GenerationParameters()
    group.add_argument(
        "--max-new-tokens",
        type=int,
        default=default.max_new_tokens,
        metavar="N",
        help="most tokens of an answer (%(default)s)",
    )
    group.add_argument(
        "--sample",
        action=argparse.BooleanOptionalAction,
        default=default.sampling,
        help="draw tokens (the default), or take the most probable",
    )
    group.add_argument(
        "--sampling-temperature",
        type=float,
        default=default.temperature,
        metavar="T",
        help="divides the vocabulary logits before drawing (%(default)s)",
    )
    group.add_argument(
        "--top-p",
        type=float,
        default=default.top_p,
        metavar="P",
        help="draw from the most probable tokens that together hold P (%(default)s)",
    )
    group.add_argument(
        "--seed", type=int, default=default.seed, metavar="N", help="of the draws (%(default)s)"
    )


def generation_parameters(arguments: argparse.Namespace) -> GenerationParameters:
    """The generation that the options ask for. Raises ValueError for values out of range."""
    return GenerationParameters(
        max_new_tokens=arguments.max_new_tokens,
        sampling=arguments.sample,
        temperature=arguments.sampling_temperature,
        top_p=arguments.top_p,
        seed=arguments.seed,
    )


def output_file(endings: Iterable[str]) -> Callable[[str], Path]:
    """An argparse type: the path of a file with one of `endings` that can be written."""
    endings = tuple(endings)

    def parse(text: str) -> Path:
        path = Path(text)
        if path.suffix not in endings:
            raise argparse.ArgumentTypeError(
                f"{text}: use one of {', '.join(endings)} as the ending"
            )
        if not path.parent.is_dir():
            raise argparse.ArgumentTypeError(f"{text}: the folder {path.parent} does not exist")
        try:
            check_writable(path)
        except OSError as error:
            raise argparse.ArgumentTypeError(
                f"{text} cannot be written: {error.strerror}"
            ) from error
        return path

    return parse


def check_ending(out: Path | None, endings: Iterable[str]) -> None:
    """Raise CommandError for an --out that ends otherwise, where the parser could not know them."""
    endings = tuple(endings)
    if out is not None and out.suffix not in endings:
        raise CommandError(f"{out}: use {' or '.join(endings)} as the ending.", EXIT_USAGE)


def check_not_read(arguments: argparse.Namespace) -> None:
    """Raise CommandError for a file that a command would write and is to read."""
    read = [path for name in _READ for path in _paths(getattr(arguments, name, None))]
    for out in (getattr(arguments, name, None) for name in _WRITTEN):
        if out is not None and any(_are_same(out, path) for path in read):
            raise CommandError(
                f"{out} is read by this command; choose another file to write.", EXIT_USAGE
            )


def _paths(given: Path | str | list[Path] | None) -> list[Path]:
    if given is None:
        return []
    return given if isinstance(given, list) else [Path(given)]


def _are_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        # What is not there, or cannot be, is no other file.
        return False


@contextlib.contextmanager
def output_locked(out: Path | None) -> Iterator[None]:
    """Keep other processes from writing `out` while the block runs; None is nobody's.

    Raises CommandError at once if one does.
    """
    try:
        with contextlib.nullcontext() if out is None else locked(out):
            yield
    except LockedError as error:
        raise CommandError(
            f"{out} is being written by {error.holder}; wait for it, or choose another --out.",
            EXIT_USAGE,
        ) from error


def write_and_show(
    out: Path | None, write: Callable[[Path], None], show: Callable[[], object]
) -> None:
    """Call `write` with `out`, if there is one, and `show`; what `write` was refused is raised once
    the result is shown.

    In this order, for standard output may be a pipe whose reader has gone. A Ctrl+C takes effect
    after `write`.
    """
    try:
        if out is not None:
            with put_off_interrupts():
                write(out)
    except (CommandError, EngineError):
        show()
        raise
    show()


def add_keep_option(parser: argparse.ArgumentParser) -> None:
    """Add --keep, which keep_of reads."""
    parser.add_argument(
        "--keep",
        choices=[keep.value for keep in Keep],
        help="what a saved session and a kept run hold of each position: the router logits too "
        "(the default; 4 bytes an expert and layer, 4 kB a token and side of OLMoE), or only which "
        "experts ran, how many, and how probable its token was",
    )


def keep_of(arguments: argparse.Namespace) -> Keep:
    """What --keep says."""
    return Keep.LOGITS if arguments.keep is None else Keep(arguments.keep)


def saved_words(session: Session, path: Path) -> str:
    """That `session` is saved in `path`, and how much it takes."""
    rows = [r.router_logits for r in session.records if r.router_logits is not None]
    size = format_bytes(path.stat().st_size)
    if path.suffix == SUFFIX and rows:
        size += f", {format_bytes(sum(rows_bytes(one.shape) for one in rows))} router logits"
    return f"Saved {path} ({size})"


def write_output(write: Callable[[Path], None], path: Path) -> None:
    """Call `write` with `path`. Raises CommandError with a sentence if the disk refuses."""
    try:
        write(path)
    except OSError as error:
        raise CommandError(f"{path} could not be written: {error.strerror}.") from error


def write_bytes(content: bytes, path: Path) -> None:
    """Write `content` at once or not at all. Raises CommandError if the disk refuses."""
    write_output(lambda target: write_atomically(target, content), path)


def write_session(session: Session, path: Path) -> None:
    """Write `session` to `path`, whose ending is one of SESSION_WRITERS.

    Raises CommandError with a sentence if the disk refuses.
    """
    write_output(lambda target: SESSION_WRITERS[target.suffix](session, target), path)


def whole_number_from(least: int) -> Callable[[str], int]:
    """An argparse type: whole numbers from `least`, which is not below 0."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number from {least}")
        return int(text)

    return parse


def add_prompts_file_options(
    parser: argparse.ArgumentParser, group: argparse._MutuallyExclusiveGroup
) -> None:
    """Add --prompts-file beside PROMPT, which `group` has, and what says how it is read."""
    group.add_argument(
        "--prompts-file",
        type=_prompts_path,
        metavar="FILE",
        help='many prompts: .txt (one a line), .csv (a column "prompt") or .jsonl (strings, or '
        'objects with "prompt")',
    )
    parser.add_argument(
        "--prompts-field",
        metavar="NAME",
        help="column or field of FILE that holds the prompts; where it is a list of strings, as "
        f"the turns of a conversation may be, the first is the prompt ({PROMPTS_FIELD})",
    )


def prompts_of(arguments: argparse.Namespace) -> PromptsFile | None:
    """What --prompts-file holds; None without it.

    Raises CommandError for --prompts-field alone, EngineError for a file without prompts.
    """
    if arguments.prompts_file is not None:
        return read_prompts(arguments.prompts_file, arguments.prompts_field)
    if arguments.prompts_field is not None:
        raise CommandError("--prompts-field needs --prompts-file.", EXIT_USAGE)
    return None


def _prompts_path(text: str) -> Path:
    """An argparse type: the path of a prompts file that exists."""
    path = Path(text)
    if path.suffix.lower() not in PROMPTS_ENDINGS:
        raise argparse.ArgumentTypeError(
            f"{text}: use one of {', '.join(PROMPTS_ENDINGS)} as the ending"
        )
    if not path.is_file():
        fault = "it is no file" if path.exists() else "there is no such file"
        raise argparse.ArgumentTypeError(f"{text}: {fault}")
    return path
