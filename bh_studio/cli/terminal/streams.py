"""How commands talk to the shell: standard input, output and error, and exit codes.

Knows no command and no model.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import sys

from bh_studio.cli.terminal.columns import visible
from bh_studio.engine.files.text import MOST_BYTES, decoded, is_text

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130
# All but tabs and ends of lines.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class CommandError(Exception):
    """A command cannot go on. The message is one sentence for the person who ran it."""

    def __init__(self, message: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def replace_closed_streams() -> None:
    """Have what the shell has closed read as empty, or lead nowhere: Python has None there."""
    # In the order of their numbers, so that no other file gets one of these.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def say(message: str) -> None:
    """Print `message` on standard error, where it disturbs no result."""
    print(_safe(message), file=sys.stderr, flush=True)


def print_result(text: str) -> bool:
    """Print `text` on standard output; False if its reader has just gone, which is no error.

    Raises CommandError if the disk refuses it.
    """
    try:
        # This too gives out what was printed before.
        accept_any_character()
        print(_safe(text), flush=True)
    except BrokenPipeError:
        _leave_unread()
        return False
    except OSError as error:
        _leave_unread()
        raise CommandError(f"Standard output could not be written: {error.strerror}.") from error
    return True


def flush_results() -> None:
    """Give out what is left to be printed, if anybody still reads it.

    Python does so at its end too, and turns any exit code into 120 if nobody does.
    """
    try:
        sys.stdout.flush()
    except OSError:
        _leave_unread()


def _safe(text: str) -> str:
    """`text` without what would command the terminal: names and texts come from anyone's files."""
    return _CONTROL.sub(lambda found: visible(found.group()), text)


def _leave_unread() -> None:
    """From here on nobody reads standard output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def accept_any_character() -> None:
    """A terminal's encoding may lack a character; the rest of the text is worth seeing."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def read_prompt(argument: str) -> str:
    """The text of a PROMPT argument; "-" reads standard input, whatever the locale.

    Raises CommandError if it is blank or no valid text, InputError if standard input is no text.
    """
    if argument != "-":
        prompt = argument
    else:
        prompt = read_standard_input()
    if not is_text(prompt):
        raise CommandError("The prompt is not valid UTF-8 text.", EXIT_USAGE)
    if not prompt.strip():
        raise CommandError("The prompt is empty. Give the beginning of a text.", EXIT_USAGE)
    return prompt


def read_standard_input() -> str:
    """The text on standard input, whatever the locale.

    Raises CommandError if it is too long, InputError if it is no text.
    """
    data = sys.stdin.buffer.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise CommandError("Standard input is longer than a text may be.", EXIT_USAGE)
    return decoded(data, "Standard input")


def terminal_width() -> int:
    """Columns of the terminal; 100 where there is none."""
    return shutil.get_terminal_size((100, 24)).columns
