"""`bh-studio compare --prompts-file`: every prompt of a file answered by all sides."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bh_studio.cli.conversation import check_conversation_options, settled
from bh_studio.cli.definitions import run_or_save
from bh_studio.cli.following import answer_all
from bh_studio.cli.loading import load
from bh_studio.cli.resuming import ENDINGS, open_journal, stopped, write_and_print
from bh_studio.cli.tables.answer_columns import titles_legend
from bh_studio.cli.tables.batch import table_head, table_row, to_csv
from bh_studio.cli.tables.batch_summary import summary_text
from bh_studio.cli.terminal.streams import (
    EXIT_OK,
    EXIT_USAGE,
    CommandError,
    print_result,
    say,
)
from bh_studio.engine.protocol.experiments import Batch
from bh_studio.engine.protocol.prompts_file import PromptsFile
from bh_studio.engine.records.batch import BatchResult
from bh_studio.engine.records.rows import SkippedRow, prompt_row_from_json
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules.sides import Sides

# Whose answers the others are compared with.
_REFERENCE = "A's"


def compare_file(
    arguments: argparse.Namespace,
    file: PromptsFile,
    sides: Sides,
    generation: GenerationParameters,
) -> int:
    """Run `bh-studio compare` for what --prompts-file holds, `file`; the exit code."""
    _check_out(arguments.out)
    definition = Batch(
        prompts=file.prompts,
        prompts_sha256=file.sha256,
        prompts_name=file.name,
        prompts_field=file.field,
        unusable=file.skipped,
        sides=tuple(sides),
        generation=generation,
    )
    return run_or_save(arguments, definition, carry_out)


def _check_out(out: Path | None) -> None:
    if out is not None and out.suffix not in ENDINGS:
        raise CommandError(
            f"{out}: many prompts go to one of {', '.join(ENDINGS)}, not to {out.suffix}.",
            EXIT_USAGE,
        )


def carry_out(arguments: argparse.Namespace, definition: Batch) -> int:
    """Run `definition` with the model and the --out of `arguments`, and print it; the exit code."""
    check_conversation_options(arguments)
    for bad in definition.unusable:
        _say_skipped(bad)
    with open_journal(arguments, definition) as journal:
        loaded = load(arguments, arguments.calibration)
        definition = settled(arguments, definition, loaded.info)
        result, progress, is_wanted = answer_all(
            arguments, loaded, definition, journal, table_head(),
            lambda rows: _show(arguments, definition, rows),
        )  # fmt: skip
        write_and_print(
            arguments, journal, result, lambda: _explained(result, loaded.info.top_k),
            lambda: to_csv(result.answered, result.skipped, result.sides),
        )  # fmt: skip
    if not result.is_complete and is_wanted:
        return stopped(arguments.out, progress)
    if result.is_complete and not result.answered:
        of = f" in {definition.prompts_name}" if definition.prompts_name else ""
        raise CommandError(f"None of the prompts{of} could be answered.")
    return EXIT_OK


def _show(
    arguments: argparse.Namespace, definition: Batch, rows: Mapping[str, dict[str, Any]]
) -> bool:
    """Print `rows` in the order of the file; whether there is a reader."""
    is_read = True
    for row in sorted(map(prompt_row_from_json, rows.values()), key=lambda row: row.line):
        if isinstance(row, SkippedRow):
            _say_skipped(row)
        elif not arguments.json:
            is_read = print_result(table_row(row, definition.sides)) and is_read
    return is_read


def _say_skipped(row: SkippedRow) -> None:
    say(f"Line {row.line} is skipped. {row.reason}")


def _explained(result: BatchResult, top_k: int) -> str:
    """What ends the table: what its titles mean, and the numbers over all prompts."""
    numbers = summary_text(result.summary, result.sides, top_k)
    return f"\n{titles_legend(_REFERENCE)}\n{numbers}"
