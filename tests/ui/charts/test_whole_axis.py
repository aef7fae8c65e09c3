"""The marks of an axis stand apart, whatever the room and the size of the letters."""

from __future__ import annotations

import pytest
from PySide6.QtGui import QFont, QFontMetricsF, QTextDocument

from bh_studio.ui.charts.drawing.decimal_axis import DecimalAxis
from bh_studio.ui.charts.drawing.whole_axis import WholeAxis
from bh_studio.ui.widgets.theme import Theme


@pytest.mark.parametrize("percent", [100, 150, 220])
@pytest.mark.parametrize("pixels", [60, 250, 900])
@pytest.mark.parametrize("last", [15, 63, 599, 4095])
def test_marks_never_run_together(theme: Theme, percent: int, pixels: int, last: int) -> None:
    axis = WholeAxis("bottom")
    font = QFont()
    font.setPointSizeF(0.1 * percent)
    axis.setTickFont(font)
    [(step, marks)] = axis.tickValues(-0.5, last + 0.5, pixels)
    texts = axis.tickStrings(marks, 1.0, step)
    widest = max(QFontMetricsF(font).horizontalAdvance(text) for text in texts)
    assert step * pixels / (last + 1) > widest or len(marks) == 1
    assert all(mark % step == 0 for mark in marks)


def test_few_numbers_are_all_marked(theme: Theme) -> None:
    axis = WholeAxis("bottom")
    assert axis.tickValues(-0.6, 15.4, 500) == [(1, list(range(16)))]


def test_a_minus_is_one(theme: Theme) -> None:
    assert WholeAxis("left").tickStrings([-5, 0], 1.0, 5) == ["−5", "0"]


@pytest.mark.parametrize("pixels", [40, 100, 600])
@pytest.mark.parametrize("high", [0.0, 0.001, 0.4, 1.0, 30.0, 3e38])
def test_marks_between_whole_numbers_stand_apart_too(
    theme: Theme, high: float, pixels: int
) -> None:
    axis = DecimalAxis("left")
    axis.setTickFont(QFont())
    ((spacing, marks),) = axis.tickValues(0.0, high, pixels)
    texts = axis.tickStrings(marks, 1.0, spacing)
    assert [float(text) for text in texts] == pytest.approx(marks)
    assert len(set(texts)) == len(texts) <= pixels / QFontMetricsF(QFont()).height() + 1


def test_they_are_round(theme: Theme) -> None:
    axis = DecimalAxis("left")
    ((spacing, marks),) = axis.tickValues(0.0, 0.4, 100)
    assert axis.tickStrings(marks, 1.0, spacing) == ["0.0", "0.1", "0.2", "0.3", "0.4"]


@pytest.mark.parametrize(("kind", "side"), [(WholeAxis, "bottom"), (DecimalAxis, "left")])
@pytest.mark.parametrize("end", [1e-3, 0.09, 5000])
def test_its_name_speaks_of_no_factor_that_its_marks_lack(
    theme: Theme, kind: type[WholeAxis], side: str, end: float
) -> None:
    axis = kind(side)
    axis.setLabel("Token")
    axis.setRange(0, end)
    words = QTextDocument()
    words.setHtml(axis.labelString())
    assert words.toPlainText().strip() == "Token"
