"""The rows of `bh-studio compare --prompts-file`: as CSV and on the terminal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from bh_studio.cli.tables.answer_columns import (
    CSV_AGREEMENT,
    CSV_ANSWER,
    TITLES,
    WIDTHS,
    Cell,
    cells,
    csv_agreement,
    csv_answer,
)
from bh_studio.cli.tables.table import line
from bh_studio.cli.terminal.columns import shorten
from bh_studio.cli.terminal.streams import terminal_width
from bh_studio.engine.records.rows import PromptRow, SkippedRow
from bh_studio.engine.rules import format_rule
from bh_studio.engine.rules.sides import Sides, side_letter

_WIDTHS = (5, 4, *WIDTHS)


def table_head() -> str:
    """The titles of the table."""
    return f"{line(['line', 'side', *TITLES], _WIDTHS)}  prompt"


def table_row(row: PromptRow, sides: Sides) -> str:
    """The numbers of each answer but that of the model's own routing as the first side, and as much
    of the prompt as there is room for."""
    shown = [side for side, rule in enumerate(sides) if side or rule is not None] or [0]
    lines = [
        line(
            [
                str(row.line),
                side_letter(side),
                *cells(sides[side], row.answers[side], row.agreements[side]),
            ],
            _WIDTHS,
        )
        for side in shown
    ]
    room = max(12, terminal_width() - len(lines[0]) - 2)
    lines[0] += f"  {shorten(row.asked.prompt, room)}"
    return "\n".join(lines)


def to_csv(rows: Sequence[PromptRow], skipped: Sequence[SkippedRow], sides: Sides) -> bytes:
    """One line a row of the prompts file, in its order; skipped rows have only their reason."""
    fields = list(dict.fromkeys(name for row in rows for name in row.asked.fields))
    answers = [
        f"{side_letter(side)}_{name}"
        for side in range(len(sides))
        for name in ("rule", *(CSV_AGREEMENT if side else ()), *CSV_ANSWER)
    ]
    columns = ["line", "prompt", "skipped", *answers]
    # A field of the prompts file that is called as one of ours must not be mistaken for it.
    named = [f"input_{name}" if name in columns else name for name in fields]
    lines: list[tuple[int, list[Cell]]] = [(row.line, _csv_row(row, fields, sides)) for row in rows]
    empty = [None] * (len(columns) - 3)
    lines += [
        (row.line, [row.line, *[None] * len(fields), None, row.reason, *empty]) for row in skipped
    ]
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow([columns[0], *named, *columns[1:]])
    writer.writerows(row_cells for _, row_cells in sorted(lines, key=lambda numbered: numbered[0]))
    return file.getvalue().encode()


def _csv_row(row: PromptRow, fields: Sequence[str], sides: Sides) -> list[Cell]:
    found: list[Cell] = []
    for rule, answer, agreement in zip(sides, row.answers, row.agreements, strict=True):
        compared = csv_agreement(agreement) if agreement else []
        named = None if rule is None else format_rule(rule)
        found += [named, *compared, *csv_answer(answer)]
    return [
        row.line,
        *(_csv_cell(row.asked.fields.get(name)) for name in fields),
        row.asked.prompt,
        None,
        *found,
    ]


def _csv_cell(value: Any) -> Cell:
    """What a JSON value is in a table: text and numbers as they are, the rest as JSON."""
    return value if value is None or isinstance(value, (str, int, float)) else json.dumps(value)
