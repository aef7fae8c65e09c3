"""How probable the tokens were: lines of all sides that have kept it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from bh_studio.ui.charts.probability_chart import ProbabilityChart
from tests.ui.charts.conftest import Run

Draw = Callable[[Any], Any]


def test_lines_are_the_log_probabilities_of_the_tokens(run: Run, draw: Draw) -> None:
    run.begin()
    run.say(0, " a", log_probability=-0.5)
    run.say(1, " a", log_probability=-0.25)
    run.say(1, " b", log_probability=-7.0, rank=9)
    chart = draw(ProbabilityChart)
    assert chart.drawn_values == ((-0.5,), (-0.25, -7.0))
    assert chart.describe(1, 0) == f"Token 1: B {math.exp(-7):.3f} (-7.00, rank 9) “ b”"
    assert chart.hint() == "Mean, nats: A -0.50, B -3.62"
    numbers = chart.numbers()
    assert numbers.values[1].tolist()[2:] == [-7.0, 9.0]
    assert numbers.text(1, 0) == ""


def test_the_nearest_line_is_chosen(run: Run, draw: Draw) -> None:
    run.begin()
    for side, value in ((0, -1.0), (1, -5.0)):
        run.say(side, " a", log_probability=value)
    chart = draw(ProbabilityChart)
    assert chart.cell_at(0.2, -1.5) == (0, 0)
    assert chart.cell_at(0.2, -4.5) == (0, 1)
    chart.choose(0, 1)
    assert run.selection.place == (1, 0, None)


def test_a_run_that_kept_no_probabilities_says_so(run: Run, draw: Draw) -> None:
    run.begin()
    run.say(0, " a")
    chart = draw(ProbabilityChart)
    assert chart.problem == "How probable the tokens were was not kept of this run."


def test_the_axis_keeps_still_until_a_token_is_beyond_it(run: Run, draw: Draw) -> None:
    run.begin()
    run.say(0, " a", log_probability=-0.5)
    chart = draw(ProbabilityChart)
    low = chart.plot.getPlotItem().vb.viewRange()[1][0]
    assert low == pytest.approx(-5, abs=0.2)
