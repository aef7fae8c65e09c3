"""`bh-studio compare --prompts-file`: every prompt of a file answered with both routings."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bh_studio.cli.conversation import conversation, conversation_settings
from bh_studio.cli.loading import load
from bh_studio.cli.resuming import (
    ENDINGS,
    collect,
    document,
    header,
    json_file,
    open_result,
    say_taken_over,
    stopped,
    write_result,
)
from bh_studio.cli.tables.answer_columns import legend
from bh_studio.cli.tables.batch import table_head, table_row, to_csv
from bh_studio.cli.tables.batch_summary import PromptSummary
from bh_studio.cli.terminal.interrupt import stop_on_interrupt
from bh_studio.cli.terminal.progress import Progress
from bh_studio.cli.terminal.streams import EXIT_OK, EXIT_USAGE, CommandError, print_result, say
from bh_studio.engine.errors import CancelToken
from bh_studio.engine.protocol.events import TokenGenerated
from bh_studio.engine.protocol.prompts_file import PromptsFile, read_prompts
from bh_studio.engine.records.journal import ResultFile
from bh_studio.engine.records.rows import PromptRow, SkippedRow, prompt_rows_from_json
from bh_studio.engine.records.terms import Conversation, GenerationParameters
from bh_studio.engine.rules.parameters import Mode, RuleParameters

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
    description = {
        "command": "compare",
        "prompts_file": {"name": file.name, "sha256": file.sha256},
        "parameters": {"rule": asdict(rule), "generation": asdict(generation)},
    }
    cancel = CancelToken()
    with open_result(arguments, description) as result:
        loaded = load(arguments, arguments.calibration)
        precedes = conversation(arguments, loaded.info)
        description |= conversation_settings(precedes)
        rows = result.begin(header(description, loaded), lambda json_rows: _read(json_rows, file))
        say_taken_over(arguments.out, len(rows), len(file.prompts), _WHAT)
        show = _row_printer(arguments)
        for row in rows:
            show(row)
        with stop_on_interrupt(cancel):
            events = _events(loaded, file, rule, generation, precedes, cancel, rows)
            collect(events, rows, result, Progress(len(file.prompts), len(rows), _WHAT), show)
        answered = _finish(arguments, result, file, rows)
    if cancel.is_cancelled and len(rows) < len(file.prompts):
        return stopped(arguments.out, len(rows), len(file.prompts), _WHAT)
    if not answered:
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


def _read(rows: list[dict[str, Any]], file: PromptsFile) -> list[PromptRow | SkippedRow]:
    """The rows of an earlier run, without those of lines that hold no prompt anyway."""
    lines = {asked.line for asked in file.prompts}
    return [row for row in prompt_rows_from_json(rows) if row.line in lines]


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


def _events(
    loaded: LoadedModel,
    file: PromptsFile,
    rule: RuleParameters,
    generation: GenerationParameters,
    precedes: Conversation | None,
    cancel: CancelToken,
    done: Sequence[PromptRow | SkippedRow],
) -> Iterator[TokenGenerated | PromptRow | SkippedRow]:
    """The rows that are not done yet, and the tokens on the way."""
    from bh_studio.engine.experiments.batch import PromptAnswered, PromptRefused, compare_prompts

    done_lines = {row.line for row in done}
    waiting = [asked for asked in file.prompts if asked.line not in done_lines]
    prompts = [asked.prompt for asked in waiting]
    for event in compare_prompts(loaded, prompts, rule, generation, cancel, precedes):
        if isinstance(event, PromptAnswered):
            yield PromptRow(waiting[event.index], event.baseline, event.bh, event.agreement)
        elif isinstance(event, PromptRefused):
            yield SkippedRow(waiting[event.index].line, event.reason)
        else:
            yield event


def _finish(
    arguments: argparse.Namespace,
    result: ResultFile,
    file: PromptsFile,
    rows: Sequence[PromptRow | SkippedRow],
) -> int:
    """Write the result if it is complete, print what ends it; the number of prompts answered."""
    answered = [row for row in rows if isinstance(row, PromptRow)]
    refused = [row for row in rows if isinstance(row, SkippedRow)]
    skipped = sorted([*file.skipped, *refused], key=lambda row: row.line)
    summary = PromptSummary.of(answered, len(skipped))
    is_complete = len(rows) == len(file.prompts)
    whole = document(
        result,
        is_complete,
        overall=summary.to_json(),
        rows=[row.to_json() for row in answered],
        skipped=[row.to_json() for row in skipped],
    )
    if is_complete:
        formats = {".json": lambda: json_file(whole), ".csv": lambda: to_csv(answered, skipped)}
        write_result(result, arguments.out, formats)
    explained = f"\n{legend(Mode(arguments.mode))}\n{summary.text()}"
    print_result(json.dumps(whole, allow_nan=False) if arguments.json else explained)
    return len(answered)
