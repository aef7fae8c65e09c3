"""The numbers of a chart, for people and for programs."""

from __future__ import annotations

import csv
import io

import numpy as np

from bh_studio.ui.charts.numbers import Numbers


def test_csv_keeps_every_digit_and_every_character() -> None:
    texts = [' "a", b', "\n", ""]
    numbers = Numbers(
        ("Token", "Text"),
        ("A", "B"),
        np.array([[1, 1 / 3], [2, np.nan], [-0.5, 8]]),
        lambda row: (row, texts[row]),
    )
    rows = list(csv.reader(io.StringIO(numbers.to_csv(), newline="")))
    assert rows[0] == ["Token", "Text", "A", "B"]
    assert rows[1] == ["0", ' "a", b', "1", repr(1 / 3)]
    assert rows[2] == ["1", "\n", "2", ""]
    assert rows[3] == ["2", "", "-0.5", "8"]


def test_a_value_is_as_long_as_a_person_reads_it() -> None:
    numbers = Numbers(("Row",), ("A",), np.array([[1 / 3], [8.0], [np.nan], [-2 / 3e6]]))
    assert [numbers.text(row, 0) for row in range(4)] == ["0.3333", "8", "", "-6.67e-07"]
