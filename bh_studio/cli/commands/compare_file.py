"""`bh-studio compare --prompts-file`: every prompt of a file answered with both routings."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bh_studio.cli.conversation import conversation
from bh_studio.cli.loading import load
from bh_studio.cli.resuming import (
    ENDINGS,
    before_loading,
    begin,
    carried_out,
    document,
    json_text,
    open_journal,
    say_taken_over,
    stopped,
    write_result,
)
from bh_studio.cli.tables.answer_columns import legend, rule_column
from bh_studio.cli.tables.batch import table_head, table_row, to_csv
from bh_studio.cli.tables.batch_summary import PromptSummary
from bh_studio.cli.terminal.interrupt import stop_on_interrupt
from bh_studio.cli.terminal.progress import Progress
from bh_studio.cli.terminal.streams import (
    EXIT_OK,
    EXIT_USAGE,
    CommandError,
    print_result,
    say,
)
from bh_studio.engine.errors import CancelToken
from bh_studio.engine.protocol.events import Finished, RowReady, TokenGenerated
from bh_studio.engine.protocol.experiments import Batch, kind_of
from bh_studio.engine.protocol.prompts_file import PromptsFile, read_prompts
from bh_studio.engine.records.journal import Journal
from bh_studio.engine.records.rows import (
    BatchResult,
    PromptRow,
    SkippedRow,
    prompt_row_from_json,
)
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules.parameters import RuleParameters

if TYPE_CHECKING:
    from bh_studio.engine.loading import LoadedModel

_WHAT = "prompts"


def compare_file(
    arguments: argparse.Namespace, rule: RuleParameters, generation: GenerationParameters
) -> int:
    """Run `bh-studio compare` for --prompts-file; the exit code."""
    _check_out(arguments.out, arguments.prompts_file)
    file = read_prompts(arguments.prompts_file)
    for bad in file.skipped:
        _say_skipped(bad)
    plain = Batch(
        prompts=file.prompts, prompts_sha256=file.sha256, sides=(None, rule), generation=generation
    )
    settings = before_loading(plain.settings())
    total = len(file.prompts)
    with open_journal(arguments, kind_of(plain), settings) as journal:
        loaded = load(arguments, arguments.calibration)
        precedes = conversation(arguments, loaded.info)
        definition = msgspec.structs.replace(plain, conversation=precedes)
        rows = begin(journal, definition, loaded)
        result, is_wanted = _answered(arguments, loaded, definition, journal, rows)
        answered = _finish(arguments, journal, file, rule, result)
    if not result.is_complete and is_wanted:
        return stopped(arguments.out, len(result.rows), total, _WHAT)
    if result.is_complete and not answered:
        raise CommandError(f"None of the prompts in {file.name} could be answered.")
    return EXIT_OK


def _check_out(out: Path | None, prompts: Path) -> None:
    if out is None:
        return
    if out.suffix not in ENDINGS:
        raise CommandError(
            f"{out}: many prompts go to one of {', '.join(ENDINGS)}, not to {out.suffix}.",
            EXIT_USAGE,
        )
    if out.exists() and out.samefile(prompts):
        raise CommandError(f"{out} holds the prompts; choose another --out.", EXIT_USAGE)


def _row_printer(arguments: argparse.Namespace) -> Callable[[PromptRow | SkippedRow], bool]:
    """Prints rows, the titles first; whether it is worth going on after a row."""
    if not arguments.json:
        print_result(table_head())

    def show(row: PromptRow | SkippedRow) -> bool:
        if isinstance(row, SkippedRow):
            _say_skipped(row)
            return True
        is_read = arguments.json or print_result(table_row(row))
        return is_read or arguments.out is not None

    return show


def _say_skipped(row: SkippedRow) -> None:
    say(f"Line {row.line} is skipped. {row.reason}")


def _answered(
    arguments: argparse.Namespace,
    loaded: LoadedModel,
    definition: Batch,
    journal: Journal,
    rows: Mapping[str, dict[str, Any]],
) -> tuple[BatchResult, bool]:
    """The rows, each printed as soon as it is there; and whether anybody still wants them."""
    lines = [str(asked.line) for asked in definition.prompts]
    taken_over = [prompt_row_from_json(rows[line]) for line in lines if line in rows]
    progress, cancel = Progress(len(lines), len(taken_over), _WHAT), CancelToken()
    say_taken_over(arguments.out, len(taken_over), len(lines), _WHAT)
    show = _row_printer(arguments)
    for row in taken_over:
        show(row)
    is_wanted = True
    try:
        with stop_on_interrupt(cancel):
            for event in carried_out(loaded, definition, journal, cancel):
                if isinstance(event, TokenGenerated):
                    progress.tokens(event.index + 1)
                elif isinstance(event, RowReady):
                    progress.row_finished()
                    is_wanted = show(prompt_row_from_json(event.row))
                    if not is_wanted:
                        cancel.cancel()
                elif isinstance(event, Finished):
                    result: BatchResult = event.document
    finally:
        progress.clear()
    return result, is_wanted


def _finish(
    arguments: argparse.Namespace,
    journal: Journal,
    file: PromptsFile,
    rule: RuleParameters,
    result: BatchResult,
) -> int:
    """Write the result if it is complete, print what ends it; the number of prompts answered."""
    skipped = sorted([*file.skipped, *result.refused], key=lambda row: row.line)
    summary = PromptSummary.of(result.answered, len(skipped))
    content = {
        "prompts_file": {"name": file.name, "sha256": file.sha256},
        "overall": summary.to_json(),
        "rows": [{"key": str(row.line), **row.to_json()} for row in result.answered],
        "skipped": [_skipped_json(row, result) for row in skipped],
    }
    whole = document(journal, result.is_complete, content)
    if result.is_complete:
        write_result(journal, arguments.out, whole, lambda: to_csv(result.answered, skipped))
    title = rule_column(rule)
    whose = f"{title}'s counts"
    explained = f"\n{legend(rule.mode, whose)}\n{summary.text(title)}"
    print_result(json_text(whole) if arguments.json else explained)
    return len(result.answered)


def _skipped_json(row: SkippedRow, result: BatchResult) -> dict[str, Any]:
    """The row by name; with its key if it was refused by the model, for then it is known."""
    key = {"key": str(row.line)} if row in result.refused else {}
    return {**key, **row.to_json()}
