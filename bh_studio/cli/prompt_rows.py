"""The rows of `bh-studio compare --prompts-file`: as JSON, as CSV and on the terminal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bh_studio.cli.answer_columns import (
    CSV_AGREEMENT,
    CSV_ANSWER,
    TITLES,
    WIDTHS,
    Cell,
    cells,
    csv_agreement,
    csv_answer,
)
from bh_studio.cli.prompts_file import FilePrompt, SkippedRow
from bh_studio.cli.table import line
from bh_studio.cli.terminal import terminal_width
from bh_studio.columns import shorten
from bh_studio.engine.experiment_rows import Agreement, Answer
from bh_studio.engine.messages import Side

_WIDTHS = (5, *WIDTHS)


@dataclass(frozen=True, slots=True)
class PromptRow:
    """Both answers to one prompt of a file."""

    asked: FilePrompt
    baseline: Answer
    bh: Answer
    agreement: Agreement

    @property
    def line(self) -> int:
        return self.asked.line

    def to_json(self) -> dict[str, Any]:
        """The row by name."""
        return {
            **asdict(self.asked),
            **self.agreement.to_json(),
            "sides": {Side.BASELINE: self.baseline.to_json(), Side.BH: self.bh.to_json()},
        }


def rows_from_json(rows: Sequence[dict[str, Any]]) -> list[PromptRow | SkippedRow]:
    """The rows that `to_json` wrote. Raises KeyError, TypeError or ValueError for others."""
    return [_from_json(row) for row in rows]


def _from_json(row: dict[str, Any]) -> PromptRow | SkippedRow:
    if "reason" in row:
        return SkippedRow(int(row["line"]), str(row["reason"]))
    baseline, bh = (Answer.from_json(row["sides"][side]) for side in Side)
    asked = FilePrompt(int(row["line"]), str(row["prompt"]), dict(row["fields"]))
    return PromptRow(asked, baseline, bh, Agreement.between(baseline, bh))


def table_head() -> str:
    """The titles of the table."""
    return f"{line(['line', *TITLES], _WIDTHS)}  prompt"


def table_row(row: PromptRow) -> str:
    """The numbers of BH's answer, and as much of the prompt as there is room for."""
    numbers = line([str(row.line), *cells(row.bh, row.agreement)], _WIDTHS)
    room = max(12, terminal_width() - len(numbers) - 2)
    return f"{numbers}  {shorten(row.asked.prompt, room)}"


def to_csv(rows: Sequence[PromptRow], skipped: Sequence[SkippedRow]) -> bytes:
    """One line a row of the prompts file, in its order; skipped rows have only their reason."""
    fields = list(dict.fromkeys(name for row in rows for name in row.asked.fields))
    answers = [f"{side.value}_{name}" for side in Side for name in CSV_ANSWER]
    columns = ["line", "prompt", "skipped", *CSV_AGREEMENT, *answers]
    # A field of the prompts file that is called as one of ours must not be mistaken for it.
    named = [f"input_{name}" if name in columns else name for name in fields]
    lines: list[tuple[int, list[Cell]]] = [(row.line, _csv_row(row, fields)) for row in rows]
    empty = [None] * (len(columns) - 3)
    lines += [
        (row.line, [row.line, *[None] * len(fields), None, row.reason, *empty]) for row in skipped
    ]
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow([columns[0], *named, *columns[1:]])
    writer.writerows(row_cells for _, row_cells in sorted(lines, key=lambda numbered: numbered[0]))
    return file.getvalue().encode()


def _csv_row(row: PromptRow, fields: Sequence[str]) -> list[Cell]:
    return [
        row.line,
        *(_csv_cell(row.asked.fields.get(name)) for name in fields),
        row.asked.prompt,
        None,
        *csv_agreement(row.agreement),
        *csv_answer(row.baseline),
        *csv_answer(row.bh),
    ]


def _csv_cell(value: Any) -> Cell:
    """What a JSON value is in a table: text and numbers as they are, the rest as JSON."""
    return value if value is None or isinstance(value, (str, int, float)) else json.dumps(value)
