"""The rows of `bh-studio sweep`: as JSON, as CSV and on the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bh_studio.cli.answer_columns import (
    CSV_AGREEMENT,
    CSV_ANSWER,
    TITLES,
    WIDTHS,
    cells,
    csv_agreement,
    csv_answer,
)
from bh_studio.cli.table import line
from bh_studio.cli.terminal import terminal_width
from bh_studio.columns import wrap
from bh_studio.engine.experiment_rows import Agreement, Answer

_TITLES = ("alpha", *TITLES)
_WIDTHS = (8, *WIDTHS)


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One answer. alpha: None for the baseline, which is compared with nothing."""

    alpha: float | None
    answer: Answer
    agreement: Agreement | None

    def to_json(self) -> dict[str, Any]:
        """The row by name."""
        compared = self.agreement.to_json() if self.agreement else {}
        return {"alpha": self.alpha, **compared, **self.answer.to_json()}


def rows_from_json(rows: Sequence[dict[str, Any]]) -> list[SweepRow]:
    """The rows that `to_json` wrote, the baseline's first.

    Raises KeyError, TypeError or ValueError for others.
    """
    answers = [(row["alpha"], Answer.from_json(row)) for row in rows]
    if answers and answers[0][0] is not None:
        raise ValueError("The first row is not the baseline's.")
    return [
        SweepRow(alpha, answer, None if alpha is None else Agreement.between(answers[0][1], answer))
        for alpha, answer in answers
    ]


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
