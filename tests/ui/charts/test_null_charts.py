"""Whether a null fits, as a map and as lines: a cell is its number, what is wrong is loud."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from scipy import stats

from bh_studio.engine.records.diagnostics import BINS, FIT_QUANTILES
from bh_studio.engine.rules import parse_rule
from bh_studio.ui.charts.chart import Chart
from bh_studio.ui.charts.heat_map import HeatMap
from bh_studio.ui.charts.layer_chart import LayerChart
from bh_studio.ui.charts.null.null_chart import NullChart
from bh_studio.ui.charts.null.null_map import NullMap
from bh_studio.ui.charts.null.null_quantiles import NullQuantiles
from bh_studio.ui.charts.slot.chart_slot import ChartSlot
from bh_studio.ui.widgets.theme import DARK, Theme
from tests.fake_engine import MODEL
from tests.ui.charts.conftest import BH, Run
from tests.ui.charts.null_fits import CHANGED_LAYER, fit_of

NewSlot = Callable[[type[Chart]], ChartSlot]
BOTH = pytest.mark.parametrize("kind", [NullMap, NullQuantiles])
# With 120 tokens and 56 discarded experts no p-value is below 1 / 13441.
TOO_STRICT = parse_rule("bh:0.0045")
CUT = parse_rule("cut:0.04")


def chart_of(slot: ChartSlot) -> NullMap:
    assert isinstance(slot.chart, NullMap)
    return slot.chart


def lines_of(slot: ChartSlot) -> NullQuantiles:
    assert isinstance(slot.chart, NullQuantiles)
    return slot.chart


def test_a_bin_is_coloured_by_how_far_its_share_is_from_even(run: Run, new_slot: NewSlot) -> None:
    run.begin(None, BH)
    chart = chart_of(new_slot(NullMap))
    shares = chart.shares
    assert shares.shape == (MODEL.layers, BINS)
    assert shares.sum(axis=1) == pytest.approx(np.ones(MODEL.layers))
    cells = chart.shown_cells.T.astype(int)
    assert cells.shape == shares.shape
    # The middle is even, and four times as many, or a quarter, is an end.
    expected = 128 + np.rint(127 * np.log2(shares * 20).clip(-2, 2) / 2)
    np.testing.assert_array_equal(cells, expected)
    far = np.abs(cells - 128).max(axis=1)
    assert far[CHANGED_LAYER] > 80
    assert np.delete(far, CHANGED_LAYER).max() < 80


def test_a_bin_tells_its_numbers_and_those_of_its_layer(run: Run, new_slot: NewSlot) -> None:
    run.begin(None, BH)
    chart = chart_of(new_slot(NullMap))
    layer = fit_of(BH).layers[2]
    assert chart.describe(1, 2) == (
        f"Layer 2, p 0.05 to 0.10: {100 * layer.null_histogram[1]:.2f} % of 6,720 (5 if it fits)  "
        f"·  smallest p 7.4e-05, one expert needs 7.8e-04  ·  KS distance {layer.ks_distance:.3f}  "
        f"·  p ≤ alpha 0.05: {100 * layer.null_share_at_alpha:.2f} %"
    )
    assert chart.hint().startswith(f"B: worst layer {CHANGED_LAYER}, KS distance ")
    assert chart.hint().endswith("  ·  discarded experts of 120 held-out tokens")
    numbers = chart.numbers()
    assert numbers.columns[:4] == (
        "KS distance", "Share p ≤ alpha", "Smallest p", "One expert needs p ≤"
    )  # fmt: skip
    np.testing.assert_array_equal(numbers.values[:, 4:], chart.shares)
    assert numbers.values[2, :2].tolist() == [layer.ks_distance, layer.null_share_at_alpha]
    assert numbers.text(2, 2) == "7.44e-05"


def test_the_lines_are_the_quantiles(run: Run, new_slot: NewSlot) -> None:
    run.begin(None, BH)
    chart = lines_of(new_slot(NullQuantiles))
    fit = fit_of(BH)
    # 6720 scores have no quantile below 1 / 6720.
    levels = np.array([level for level in FIT_QUANTILES if level * 6720 >= 1])
    assert chart.grid() == (len(levels), MODEL.layers)
    np.testing.assert_allclose(10**chart.drawn_values, fit.quantiles[:, -len(levels) :])
    uniform = stats.uniform.ppf(levels)
    fitting = np.delete(10**chart.drawn_values, CHANGED_LAYER, axis=0)[:, uniform > 0.01]
    np.testing.assert_allclose(fitting, np.tile(uniform[uniform > 0.01], (15, 1)), rtol=0.5)
    numbers = chart.numbers()
    assert numbers.values.shape == chart.grid()
    assert numbers.label(0) == (0.000158,)
    assert numbers.label(len(levels) - 1) == (0.99,)
    assert chart.describe(len(levels) - 50, 2).startswith(
        f"Layer 2: 50 % of 6,720 have p ≤ {fit.quantiles[2, -50]:.2g} (0.5 if it fits)  ·  small"
    )


def test_what_is_nearest_is_pointed_at(run: Run, new_slot: NewSlot) -> None:
    run.begin(None, BH)
    chart = lines_of(new_slot(NullQuantiles))
    column = chart.grid()[0] - 50
    for layer in (CHANGED_LAYER, 7):
        outline = chart.outline(column, layer)
        assert chart.cell_at(outline.x(), outline.y()) == (column, layer)


def test_the_selected_layer_is_bold(run: Run, new_slot: NewSlot) -> None:
    run.begin(None, BH)
    run.write()
    chart = lines_of(new_slot(NullQuantiles))

    def bold() -> list[int]:
        widths = [line.opts["pen"].widthF() for line in chart.lines]
        return [layer for layer, width in enumerate(widths) if width > 2]

    assert bold() == []
    run.selection.select(1, 2, 5)
    assert bold() == [5]
    chart.choose(3, 6)
    assert run.selection.place == (1, 2, 6)
    assert bold() == [6]


@BOTH
def test_a_layer_that_selects_no_single_expert_is_loud(
    run: Run, new_slot: NewSlot, kind: type[NullChart], theme: Theme
) -> None:
    run.begin(None, TOO_STRICT)
    chart = new_slot(kind).chart
    assert isinstance(chart, NullChart)
    assert chart.hint().startswith(
        "No layer can ever select an expert by itself: the null is too small  ·  B: "
    )
    assert (
        "  ·  smallest p 7.4e-05, one expert needs 7.0e-05: never one by itself  ·  KS"
    ) in chart.describe(0, 4)
    levels = (0.0045, 0.0045, *(0.05,) * 14)
    run.begin(None, dataclasses.replace(BH, level=levels))
    slot = new_slot(kind)
    assert isinstance(slot.chart, NullChart)
    assert slot.chart.hint().startswith("Layers 0, 1 can never select an expert by itself")
    if isinstance(slot.chart, NullMap):
        assert slot.chart.cut_off == (0, 1)
    else:
        inks = [line.opts["pen"].color() for line in lines_of(slot).lines]
        assert [n for n, ink in enumerate(inks) if ink == theme.colors.alarm] == [0, 1]


@BOTH
def test_a_fitting_level_is_not_loud(run: Run, new_slot: NewSlot, kind: type[NullChart]) -> None:
    run.begin(None, parse_rule("hc:0.5"))
    chart = new_slot(kind).chart
    assert isinstance(chart, NullChart)
    assert chart.hint().startswith("B: worst layer")
    assert "  ·  smallest p 7.4e-05  ·  KS" in chart.describe(0, 0)
    run.begin(None, parse_rule("bh:0.0045,null=gaussian"))
    chart = new_slot(kind).chart
    assert chart.hint().endswith("  ·  all experts, kept ones too, of 120 held-out tokens")
    assert "  ·  p by a formula, one expert needs 7.0e-05  ·  KS" in chart.describe(0, 0)


@BOTH
def test_sides_with_a_null_are_offered(run: Run, new_slot: NewSlot, kind: type[Chart]) -> None:
    run.begin(None, BH, TOO_STRICT, CUT)
    slot = new_slot(kind)
    assert [side.name for side in slot.chart.offered] == ["B", "C"]
    assert slot.chart.side.name == "C"
    slot.chart.choose_side(1)
    assert run.nulls.wanted[-1] == BH
    run.begin(None, CUT)
    slot.refresh()
    assert slot.words == "Side B has no null: its rule tests nothing."
    slot.chart.choose_side(0)
    slot.refresh()
    assert slot.words == "Side A has no null: the model's own routing tests nothing."


@BOTH
def test_it_says_why_there_is_nothing_yet(run: Run, new_slot: NewSlot, kind: type[Chart]) -> None:
    run.begin(None, BH)
    run.nulls.words = "Of that null nothing is known."
    slot = new_slot(kind)
    assert slot.words == run.nulls.words
    assert not slot.save_csv.isEnabled()
    run.nulls.words = ""
    run.nulls.changed.emit()
    assert not slot.is_empty
    assert slot.save_csv.isEnabled()


@BOTH
def test_what_is_frozen_takes_its_null_all_the_same(
    run: Run, new_slot: NewSlot, kind: type[Chart]
) -> None:
    run.begin(None, BH)
    run.write()
    slot = new_slot(HeatMap)
    slot.freeze.trigger()
    run.nulls.words = "Of that null nothing is known."
    slot.pick(kind)
    run.begin(CUT)
    run.nulls.words = ""
    run.nulls.changed.emit()
    assert not slot.is_empty
    assert slot.readout.startswith("Frozen  ·  B: ")


def test_nothing_is_asked_for_other_charts_or_out_of_sight(run: Run, new_slot: NewSlot) -> None:
    run.begin(None, BH)
    run.write()
    slot = new_slot(LayerChart)
    run.nulls.changed.emit()
    assert run.nulls.wanted == []
    slot.hide()
    slot.pick(NullMap)
    run.nulls.changed.emit()
    assert run.nulls.wanted == []
    slot.show()
    assert set(run.nulls.wanted) == {BH}


def test_a_layer_is_walked_to_and_chosen_by_keys(run: Run, new_slot: NewSlot, qtbot: QtBot) -> None:
    run.begin(None, BH)
    run.write()
    for kind in (NullMap, NullQuantiles):
        chart = new_slot(kind).chart
        for key in (Qt.Key.Key_Right, Qt.Key.Key_Up, Qt.Key.Key_Up):
            qtbot.keyClick(chart.plot, key)
        assert chart.pointed == (0, 2)
        assert chart.pointer.isVisible()
        qtbot.keyClick(chart.plot, Qt.Key.Key_Return)
        assert run.selection.place == (1, 5, 2)


def test_the_lines_take_the_theme(
    run: Run, new_slot: NewSlot, theme: Theme, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.begin(None, BH)
    run.selection.select(1, 0, 5)
    chart = lines_of(new_slot(NullQuantiles))
    monkeypatch.setattr(theme, "_system_colors", lambda: DARK)
    theme.follow_system()
    QApplication.processEvents()
    assert chart.lines[5].opts["pen"].color() == DARK.accent
    assert chart.lines[4].opts["pen"].color() == DARK.faint
