"""KL by position: a line for each side but A, where all sides have read the same text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.ui.charts.divergence_chart import DivergenceChart
from bh_studio.ui.state.selection import Place
from tests.ui.charts.conftest import BH, Run

Draw = Callable[[Any], Any]


def test_lines_are_the_kl_of_every_side_but_a(run: Run, draw: Draw) -> None:
    run.read_text(None, BH, RuleParameters(level=0.01))
    chart = draw(DivergenceChart)
    assert chart.problem == ""
    assert chart.drawn_values == ((0.0625, 0.125, 0.1875), (0.125, 0.25, 0.375))
    assert chart.hint() == "Mean KL to A, nats: B 0.1250, C 0.2500"
    assert chart.describe(2, 0) == "Token 3: B 0.1875, C 0.3750 nats “ time”"
    numbers = chart.numbers()
    assert numbers.columns == ("B KL to A", "C KL to A")
    assert numbers.values.tolist() == [[0.0625, 0.125], [0.125, 0.25], [0.1875, 0.375]]
    low, high = chart.plot.getPlotItem().vb.viewRange()[1]
    assert (low, high) == pytest.approx((0, 0.4), abs=0.02)


def test_a_click_selects_and_what_is_selected_is_marked(run: Run, draw: Draw) -> None:
    run.read_text(None, BH, RuleParameters(level=0.01))
    chart = draw(DivergenceChart)
    chart.choose(*chart.cell_at(1.1, 0.24))
    assert run.selection.place == (2, 1, None)
    outline = chart.selected_outline(Place(0, 1, None))
    assert (outline.left(), outline.right()) == (0.5, 1.5)
    assert chart.selected_outline(Place(0, 3, None)) is None


def test_where_each_side_wrote_it_is_of_the_shared_beginning(run: Run, draw: Draw) -> None:
    run.begin(None, BH, RuleParameters(level=0.01))
    run.write(20)
    assert draw(DivergenceChart).problem.startswith("When the run has ended,")
    first, *others = run.sides.runs
    first.take_kl(np.zeros(20))
    for other, kl in zip(others, ([0.0625, 0.125, 0.1875, -1e-8], []), strict=True):
        other.take_kl(np.array(kl))
    chart = draw(DivergenceChart)
    assert chart.problem == ""
    # A side that has read another prompt has no line.
    assert chart.drawn_values == ((0.0625, 0.125, 0.1875, 0),)
    assert chart.hint() == "Mean KL to A, nats: B 0.0938 up to token 3"
    assert chart.grid() == (4, 1)
    assert chart.selected_outline(Place(1, 3, None)) is not None
    assert chart.selected_outline(Place(1, 4, None)) is None
    assert chart.plot.getPlotItem().vb.viewRange()[0] == pytest.approx([-0.5, 15.5], abs=0.5)


@pytest.mark.parametrize(("rules", "until"), [((None,), None), ((None, BH), 1)])
def test_one_side_is_not_enough(
    run: Run, draw: Draw, rules: tuple[RuleParameters | None, ...], until: int | None
) -> None:
    run.read_text(*rules, until=until)
    assert draw(DivergenceChart).problem == "No other side has read the text to compare with A."
