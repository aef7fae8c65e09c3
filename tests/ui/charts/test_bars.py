"""Charts of bars: their heights are the session's numbers, on axes that all sides share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PySide6.QtGui import QFontMetricsF
from PySide6.QtWidgets import QApplication

from bh_studio.engine.rules.parameters import Mode, RuleParameters
from bh_studio.ui.charts.count_histogram import CountHistogram
from bh_studio.ui.charts.layer_chart import LayerChart
from bh_studio.ui.charts.limit_chart import LimitChart
from bh_studio.ui.widgets.theme import Theme
from tests.fake_engine import MODEL
from tests.ui.charts.conftest import BH, Run

Draw = Callable[[Any], Any]


def test_bars_of_all_sides_are_the_means_of_their_layers(run: Run, draw: Draw) -> None:
    run.begin(None, BH, RuleParameters(level=0.01, min_k=2, max_k=16))
    run.write()
    chart = draw(LayerChart)
    assert chart.drawn_heights == tuple(
        pytest.approx(side.statistics.per_layer_mean) for side in run.sides.runs
    )
    assert chart.reference == 8
    assert chart.top() > 16


def test_whiskers_end_where_no_count_can_be(run: Run, draw: Draw) -> None:
    run.begin()
    for count in (1, 1, 8):
        run.say(0, " a")
        run.say(1, " a", count)
    chart = draw(LayerChart)
    own, bh = chart.shown.written
    low, high = chart.whiskers(bh)
    assert low == pytest.approx(1.0)
    assert high == pytest.approx(10 / 3 + np.std([1, 1, 8]))
    low, high = chart.whiskers(own)
    assert low.tolist() == high.tolist() == [8.0] * MODEL.layers
    run.say(1, " a", 8)
    run.say(1, " a", 8)
    chart = draw(LayerChart)
    _, high = chart.whiskers(chart.shown.written[1])
    assert high == pytest.approx(8.0)


def test_a_layer_tells_the_numbers_of_all_sides(run: Run, draw: Draw) -> None:
    run.begin(None, dataclasses.replace(BH, mode=Mode.ANALYZE))
    run.say(0, " a")
    run.say(1, " a", 8)
    run.say(1, " b", 1)
    chart = draw(LayerChart)
    assert chart.describe(3, 0) == ("Layer 3: A 8.00 ± 0.00, B (counted only) 4.50 ± 3.50 experts")
    assert "B (counted only)" in chart.hint()


@pytest.mark.parametrize("percent", [100, 150])
@pytest.mark.parametrize("width", [160, 240, 340, 900])
def test_the_name_of_the_line_is_as_long_as_there_is_room(
    run: Run, draw: Draw, theme: Theme, percent: int, width: int
) -> None:
    theme.set_text_percent(percent)
    run.begin()
    run.write()
    chart = draw(LayerChart)
    chart.resize(width, 400)
    QApplication.processEvents()
    name = chart.reference_name
    room = chart.plot.getPlotItem().vb.width()
    assert QFontMetricsF(chart.small_font).horizontalAdvance(name) < room
    assert name == "Model's own: 8 in every layer" or width < 900
    assert not name or "8" in name


def test_a_bar_is_found_where_it_is_drawn(run: Run, draw: Draw) -> None:
    run.begin(None, BH, RuleParameters(level=0.01))
    run.write()
    chart = draw(LayerChart)
    for layer in (0, 15):
        for row in range(3):
            middle = chart.outline(layer, row).center()
            assert chart.cell_at(middle.x(), middle.y()) == (layer, row)


def test_the_layer_that_all_views_look_at_is_framed_and_chosen(run: Run, draw: Draw) -> None:
    run.begin()
    run.write()
    chart = draw(LayerChart)
    chart.choose(4, 1)
    # A bar is of no one token: the newest of its side.
    assert run.selection.place == (1, 5, 4)
    assert chart.selected_outline(run.selection.place).center().x() == 4
    run.selection.select(0, 2)
    chart.choose(7, 0)
    assert run.selection.place == (0, 2, 7)


def test_the_histogram_has_every_count_and_is_in_shares(run: Run, draw: Draw) -> None:
    run.begin()
    run.say(0, " a")
    counts = [1] * 4 + [3] * 12
    run.say(1, " a", counts)
    chart = draw(CountHistogram)
    own, bh = chart.drawn_heights
    assert bh == (0, 25, 0, 75, 0, 0, 0, 0, 0)
    assert own == (0,) * 8 + (100,)
    assert chart.describe(3, 1) == "3 experts: A 0.0 % (0 of 16), B 75.0 % (12 of 16)"
    assert chart.numbers().values[3].tolist() == [0, 0, 12, 75]


def test_limits_are_stacked_and_loud_beyond_half(run: Run, draw: Draw) -> None:
    run.begin()
    raw = [0] * 8 + [9] * 4 + [5] * 4
    for _ in range(3):
        run.say(1, " a", np.clip(raw, 1, 8), raw)
    run.say(1, " a", 5)
    chart = draw(LimitChart)
    least, most = chart.shares
    assert least.tolist() == [0.75] * 8 + [0] * 8
    assert most.tolist() == [0] * 8 + [0.75] * 4 + [0] * 4
    assert chart.loud == (
        tuple([True] * 8 + [False] * 8), tuple([False] * 8 + [True] * 4 + [False] * 4)
    )  # fmt: skip
    assert "more than half in 12 of 16 layers" in chart.hint()
    assert chart.describe(0, 0) == ("Layer 0: min_k 1 decided 75.0 %, max_k 8 0.0 % of 4 tokens")
    assert chart.cell_at(8, 50) == (8, 1)
    assert chart.cell_at(0, 50) == (0, 0)


def test_what_has_no_limits_is_said_to_have_none(run: Run, draw: Draw) -> None:
    run.begin()
    run.write()
    chart = draw(LimitChart)
    assert not chart.problem
    chart.choose_side(0)
    assert chart.problem == (
        "Side A has no limits: the model's own routing always uses what it says."
    )
