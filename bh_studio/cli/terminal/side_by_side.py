"""One comparison on the terminal: both answers in two columns as they grow."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from bh_studio.cli.terminal.columns import ColumnPrinter
from bh_studio.cli.terminal.interrupt import stop_on_interrupt
from bh_studio.cli.terminal.notices import Notices
from bh_studio.cli.terminal.streams import accept_any_character, terminal_width
from bh_studio.engine.protocol.events import Notice, RunFinished, SideFinished, TokenGenerated
from bh_studio.engine.protocol.experiments import RunComparison
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import Side
from bh_studio.engine.rules import RuleName, RuleParameters, rule_title

if TYPE_CHECKING:
    from bh_studio.engine.loading import LoadedModel


def run_side_by_side(
    loaded: LoadedModel, request: RunComparison, notices: Notices, quiet: bool = False
) -> Session:
    """Run `request`, which Ctrl+C stops, and print both answers; `quiet` prints nothing.

    Raises EngineError and ValueError as comparison.compare does.
    """
    from bh_studio.engine.experiments.comparison import compare

    printer = None
    if not quiet:
        accept_any_character()
        titles = (f"baseline (top {loaded.info.top_k})", _title(request.rule))
        printer = ColumnPrinter(sys.stdout, terminal_width(), titles)
    columns = {Side.BASELINE: 0, Side.BH: 1}
    with stop_on_interrupt(request.cancel):
        for event in compare(loaded, request):
            if isinstance(event, RunFinished):
                return event.session
            if isinstance(event, Notice):
                notices.say(event)
            try:
                if printer is not None and isinstance(event, TokenGenerated):
                    printer.add(columns[event.side], event.text)
                elif printer is not None and isinstance(event, SideFinished):
                    printer.add(columns[event.side], event.text_tail)
                    printer.end(columns[event.side])
            except BrokenPipeError:
                printer = None  # nobody reads any more; the result may still be wanted in a file
    raise AssertionError("A comparison always ends with RunFinished.")


def _title(rule: RuleParameters) -> str:
    """The text of another rule has its level in it."""
    title = rule_title(rule)
    return f"{title} ({rule.level_text})" if rule.rule is RuleName.BH else title
