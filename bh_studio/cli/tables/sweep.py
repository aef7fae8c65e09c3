"""The rows of `bh-studio sweep`: as JSON, as CSV and on the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from bh_studio.cli.tables.answer_columns import (
    CSV_AGREEMENT,
    CSV_ANSWER,
    TITLES,
    WIDTHS,
    cells,
    csv_agreement,
    csv_answer,
)
from bh_studio.cli.tables.table import line
from bh_studio.cli.terminal.columns import wrap
from bh_studio.cli.terminal.streams import terminal_width
from bh_studio.engine.records.rows import SweepRow

_TITLES = ("alpha", *TITLES)
_WIDTHS = (8, *WIDTHS)


def table_head() -> str:
    """The titles of the table."""
    return line(_TITLES, _WIDTHS)


def table_row(row: SweepRow) -> str:
    """The numbers of `row`, and below them its text."""
    alpha = "baseline" if row.alpha is None else f"{row.alpha:g}"
    numbers = line([alpha, *cells(row.answer, row.agreement)], _WIDTHS)
    text = wrap(row.answer.text.strip(), terminal_width() - 2)
    return "\n".join([numbers, *(f"  {part}".rstrip() for part in text), ""])


def to_csv(rows: Sequence[SweepRow]) -> bytes:
    """One line a row; the baseline has no alpha."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["alpha", *CSV_AGREEMENT, *CSV_ANSWER])
    for row in rows:
        writer.writerow([row.alpha, *csv_agreement(row.agreement), *csv_answer(row.answer)])
    return file.getvalue().encode()
