"""Lines that a person types, or that come through a pipe. Knows no model and no command."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from bh_studio.cli.terminal.columns import wrap
from bh_studio.cli.terminal.interrupt import forget_interrupt
from bh_studio.cli.terminal.streams import print_result, say, terminal_width
from bh_studio.engine.files.text import lines_in_part

_MARK = "> "


def is_typed() -> bool:
    """Whether a person types, rather than a pipe or a file."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def read_lines() -> Iterator[str]:
    """Each line without its end, until there are no more; bytes that are no text as surrogates.

    Lines from a pipe are printed, so that what is printed reads as a conversation.
    """
    return _typed_lines() if is_typed() else _piped_lines()


def _typed_lines() -> Iterator[str]:
    with contextlib.suppress(ImportError):  # Windows edits lines by itself
        import readline  # noqa: F401 - importing it lets input() edit lines and remember them
    while True:
        try:
            line = input(_MARK)
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            forget_interrupt()
            print()
            say("Ctrl+D or /quit ends the conversation.")
            continue
        yield line


def _piped_lines() -> Iterator[str]:
    for line in lines_in_part(sys.stdin.buffer, "Standard input"):
        if line.strip():
            print_result("\n".join(wrap(_MARK + line, terminal_width())))
        yield line
