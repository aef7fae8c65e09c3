"""What the strip and the figure draw of every rule, and of models of any shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PySide6.QtCore import Qt
from PySide6.QtTest import QAbstractItemModelTester
from pytestqt.qtbot import QtBot

from bh_studio.engine.records.decisions.token_inspection import Counting, InspectedToken
from bh_studio.engine.records.recording import RecordingOrigin
from bh_studio.engine.routing.inspection import inspect_layers
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.selection import RoutingRule, own_routing
from bh_studio.engine.rules import CATALOGUE, RouterShape, RuleEntry, RuleParameters, parse_rule
from bh_studio.ui.inspector.choice_table import Candidate, ChoiceTable
from bh_studio.ui.inspector.criterion_figure import FIRST_RANKS, CriterionFigure
from bh_studio.ui.inspector.expert_table import ExpertTable
from bh_studio.ui.inspector.rank_strip import RankStrip, shades
from bh_studio.ui.widgets.theme import Theme

SHAPE = RouterShape(3, 20, 4, norm_topk_prob=False)
ENTRIES = [pytest.param(entry, id=entry.name) for entry in CATALOGUE.values()]


def inspected(
    parameters: RuleParameters | None, shape: RouterShape = SHAPE, seed: int = 0
) -> InspectedToken:
    """A token of random logits under a null of others."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape.layers, 1, shape.experts, generator=generator)
    rule = own_routing(shape)
    if parameters is not None:
        others = torch.randn(shape.layers, 200, shape.experts, generator=generator)
        origin = RecordingOrigin("", "", 200, 0, 200, shape.top_k)
        rule = RoutingRule(parameters, Recording(others, origin), shape)
    layers = inspect_layers(rule, logits[:, 0].numpy())
    return InspectedToken(parameters, 0, layers, None)


@pytest.fixture
def figure(qtbot: QtBot, theme: Theme) -> CriterionFigure:
    figure = CriterionFigure(theme)
    qtbot.addWidget(figure)
    return figure


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_figure_draws_what_was_compared(entry: RuleEntry, figure: CriterionFigure) -> None:
    token = inspected(parse_rule(entry.example_text))
    figure.all.setChecked(True)
    figure.log.setChecked(False)
    for layer, found in enumerate(token.layers):
        figure.show_layer(token, layer)
        criterion = found.criterion
        ranks, heights = figure.points
        assert ranks.tolist() == list(range(1, len(criterion.points) + 1))
        np.testing.assert_array_equal(heights, criterion.points)
        edges, steps = figure.line
        if criterion.counting is Counting.LIMIT:
            assert len(steps) == 0
        else:
            np.testing.assert_array_equal(steps, criterion.line)
            assert edges.tolist() == [rank + 0.5 for rank in range(len(steps) + 1)]
        assert figure.legend.text().startswith(f"Points: {criterion.points_name}.")
        assert figure.legend.text().endswith(f": {criterion.line_name}.")
        is_one = criterion.counting is Counting.TWO_COUNTS
        assert figure.stop.isVisibleTo(figure.plot.getPlotItem()) is not is_one
        assert figure.stop.value() == found.raw_count + 0.5
        assert token.rule is not None
        limits = token.rule.min_k + 0.5, token.rule.max_k + 0.5
        assert (figure.least.value(), figure.most.value()) == limits
        assert figure.readout.startswith(f"selects {found.raw_count}")


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_log_axis_shows_the_same_heights_or_is_not_offered(
    entry: RuleEntry, figure: CriterionFigure
) -> None:
    token = inspected(parse_rule(entry.example_text))
    figure.show_layer(token, 1)
    points = token.layers[1].criterion.points[:FIRST_RANKS]
    assert figure.log.isEnabled() is (entry.name != "hc")
    if figure.log.isEnabled():
        np.testing.assert_allclose(10 ** figure.points[1], points)
    else:
        np.testing.assert_array_equal(figure.points[1], points)
        assert "no logarithm" in figure.log.toolTip()


def test_the_first_ranks_or_all_of_them(figure: CriterionFigure) -> None:
    token = inspected(parse_rule("bh:0.05"))
    figure.show_layer(token, 0)
    assert len(figure.points[0]) == FIRST_RANKS
    figure.all.click()
    assert len(figure.points[0]) == SHAPE.experts
    assert figure.ranks is None


def test_the_model_s_own_routing_has_no_limits(figure: CriterionFigure) -> None:
    figure.show_layer(inspected(None), 0)
    assert figure.stop.value() == SHAPE.top_k + 0.5
    assert not figure.least.isVisible()
    assert figure.title == "Layer 0"


def test_a_p_value_of_nothing_is_drawn_at_no_height(figure: CriterionFigure) -> None:
    token = inspected(parse_rule("bh:0.05"))
    token.layers[0].criterion.points[0] = 0.0
    figure.show_layer(token, 0)
    assert np.isnan(figure.points[1][0])
    assert np.isfinite(figure.points[1][1:]).all()


def test_what_the_limits_change_is_said(figure: CriterionFigure) -> None:
    token = inspected(parse_rule("bh:0.9,max_k=2"))
    figure.show_layer(token, 0)
    assert figure.readout == f"selects {token.layers[0].raw_count}, 2 after limits"


@pytest.mark.parametrize("shape", [(1, 5, 2), (3, 20, 4), (60, 128, 8)])
def test_the_strip_shows_models_of_any_shape(
    shape: tuple[int, int, int], qtbot: QtBot, theme: Theme
) -> None:
    of = RouterShape(*shape, norm_topk_prob=False)
    strip = RankStrip(theme)
    qtbot.addWidget(strip)
    token = inspected(parse_rule("cut:0.04,max_k=5"), of)
    strip.show_token(token, of.layers - 1)
    assert strip.shades.shape == (of.layers, of.experts)
    x, y = strip.border
    assert x.tolist() == [layer.count + 0.5 for layer in token.layers for _ in range(2)]
    assert (y[0], y[-1]) == (-0.5, of.layers - 0.5)
    strip.show_token(None, 0)
    assert strip.body.isHidden()


def test_shades_rise_with_what_speaks_for_an_expert() -> None:
    tested, own = inspected(parse_rule("bh:0.05")), inspected(None)
    for token in (tested, own):
        found = shades(token)
        assert (np.diff(found) <= 0).all()
        assert (found.min() >= 0, found.max() <= 1) == (True, True)
    assert shades(own).max() == 1


def test_tables_keep_the_rules_of_tables(qtbot: QtBot) -> None:
    table, choices = ExpertTable(), ChoiceTable()
    for model in (table, choices):
        QAbstractItemModelTester(model, QAbstractItemModelTester.FailureReportingMode.Warning)
    token = inspected(parse_rule("bh:0.05"))
    table.show_layer(token.layers[0], None, [("A", None)])
    table.show_layer(token.layers[1], 16, [("A", None), ("B", np.array([3, 255], np.uint8))])
    wide = Qt.Orientation.Horizontal
    heads = [table.headerData(column, wide) for column in range(table.columnCount())]
    assert heads == ["Rank", "Expert", "P", "p", "Weight", "A", "B"]
    used = token.layers[1].count
    weights = [table.data(table.index(row, 4)) for row in range(16)]
    assert [bool(weight) for weight in weights] == [row < used for row in range(16)]
    choices.show_candidates([Candidate("A", 1, 7, "\n", 0.5, True)])
    assert choices.data(choices.index(0, 2)) == "“↵”"
    table.show_layer(None, None, [])
    assert table.rowCount() == 0
