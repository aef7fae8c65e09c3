"""One comparison on the terminal: the answers in columns as they grow."""

from __future__ import annotations

import sys

from bh_studio.cli.loading import Loaded
from bh_studio.cli.tables.sides import side_titles
from bh_studio.cli.terminal.columns import ColumnPrinter
from bh_studio.cli.terminal.interrupt import stop_on_interrupt
from bh_studio.cli.terminal.notices import Notices
from bh_studio.cli.terminal.streams import accept_any_character, say, terminal_width
from bh_studio.engine.errors import CancelToken
from bh_studio.engine.protocol.events import (
    Activity,
    Event,
    Finished,
    KeptIn,
    Notice,
    SideFinished,
    TokenGenerated,
)
from bh_studio.engine.protocol.experiments import Comparison
from bh_studio.engine.records.session import Session


def run_side_by_side(
    loaded: Loaded, definition: Comparison, notices: Notices, quiet: bool = False
) -> Session:
    """Run `definition`, which Ctrl+C stops, and print the answers; `quiet` prints nothing.

    Raises EngineError and ValueError as Host.answer does.
    """
    printer = None
    if not quiet:
        accept_any_character()
        titles = side_titles(definition.sides, loaded.info.top_k)
        printer = ColumnPrinter(sys.stdout, terminal_width(), titles)
    cancel, folder = CancelToken(), None
    with stop_on_interrupt(cancel):
        try:
            for event in loaded.answer(definition, cancel):
                if isinstance(event, Finished):
                    session: Session = event.document
                    return session
                if isinstance(event, KeptIn):
                    folder = event.folder
                elif isinstance(event, Activity):
                    say(event.text)
                elif isinstance(event, Notice):
                    notices.say(event)
                elif printer is not None and not _show(printer, event):
                    printer = None  # the result may still be wanted in a file
        except Exception:
            if folder is not None:
                say(f"What was answered by then is kept in {folder}")
            raise
    raise AssertionError("An experiment always ends with Finished.")


def _show(printer: ColumnPrinter, event: Event) -> bool:
    """Print what `event` adds to an answer; whether anybody still reads."""
    try:
        if isinstance(event, TokenGenerated):
            printer.add(event.side, event.text)
        elif isinstance(event, SideFinished):
            printer.add(event.side, event.text_tail)
            printer.end(event.side)
    except OSError:
        # Where nobody reads, or the disk is full; that is said when the result is printed.
        return False
    return True
