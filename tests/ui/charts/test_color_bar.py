"""The numbers beside a strip of colours stand apart, and its ends are always among them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bh_studio.ui.charts.scale_legend import ScaleLegend
from bh_studio.ui.charts.table_legend import TableLegend
from bh_studio.ui.state.expert_scale import ExpertScale
from bh_studio.ui.widgets.theme import Theme


@pytest.mark.parametrize("high", [2, 8, 16, 23, 64])
@pytest.mark.parametrize("pixels", [90, 130, 260])
@pytest.mark.parametrize("percent", [100, 150])
def test_marks_stand_apart(theme: Theme, high: int, pixels: int, percent: int) -> None:
    theme.set_text_percent(percent)
    legend = ScaleLegend(theme)
    scale = ExpertScale(1, high)
    legend.set_scale(scale)
    legend.resize(60, pixels)
    marks = legend.marks
    assert (marks[0], marks[-1]) == (1, high)
    height = legend.fontMetrics().height()
    strip = pixels - 2 * height - 1
    gaps = [(scale.position(b) - scale.position(a)) * strip for a, b in itertools.pairwise(marks)]
    assert len(marks) == 2 or min(gaps) >= 0.85 * height


def test_a_table_is_marked_at_its_ends_first(theme: Theme) -> None:
    legend = TableLegend(theme, "Share")
    assert legend.fitting_marks() == []
    table = np.zeros((255, 4), np.uint8)
    table[:, 0] = np.arange(255)
    table[:, 3] = 255
    legend.show_table(table, ((0.0, "0 %"), (1.0, "25 %"), (0.5, "12.5 %")), "share")
    assert legend.color_at(1.0).red() == 254
    legend.resize(80, 300)
    assert [text for _, text in legend.fitting_marks()] == ["0 %", "12.5 %", "25 %"]
    legend.resize(80, 40)
    assert [text for _, text in legend.fitting_marks()] == ["0 %", "25 %"]
    assert legend.sizeHint().width() > legend.fontMetrics().horizontalAdvance("12.5 %")
