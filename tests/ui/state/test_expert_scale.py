"""Colours: readable behind text, ordered, and named by the legend."""

from __future__ import annotations

import pytest
from PySide6.QtGui import QColor
from pytestqt.qtbot import QtBot

from bh_studio.ui.charts.scale_legend import ScaleLegend
from bh_studio.ui.state.expert_scale import ExpertScale
from bh_studio.ui.widgets.theme import DARK, LIGHT, Colors, Theme


def luminance(color: QColor) -> float:
    """Relative luminance as the contrast guidelines define it."""
    parts = [color.redF(), color.greenF(), color.blueF()]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: QColor, other: QColor) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])
def test_text_is_readable_on_every_tint(colors: Colors) -> None:
    scale = ExpertScale(1, 8)
    for tenth in range(10, 81):
        assert contrast(scale.tint(tenth / 10, colors.surface), colors.text) >= 4.5


@pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])
def test_inks_are_readable_on_both_grounds(colors: Colors) -> None:
    for ground in (colors.window, colors.surface):
        for ink in (colors.text, colors.muted, colors.accent, colors.alarm):
            assert contrast(ground, ink) >= 4.5
    assert contrast(colors.accent, colors.on_accent) >= 4.5
    assert contrast(colors.alarm_soft, colors.alarm) >= 4.5


def test_full_colours_rise_in_lightness() -> None:
    scale = ExpertScale(1, 64)
    lightness = [luminance(scale.color(count)) for count in range(1, 65)]
    assert lightness == sorted(lightness)


def test_the_scale_spans_both_sides_of_a_run() -> None:
    assert ExpertScale.spanning(1, 8, 8) == ExpertScale(1, 8)
    assert ExpertScale.spanning(2, 4, 8) == ExpertScale(2, 8)
    assert ExpertScale.spanning(1, 64, 8) == ExpertScale(1, 64)
    assert ExpertScale.spanning(8, 8, 8) == ExpertScale(7, 8)


def test_the_lookup_table_is_the_scale() -> None:
    scale = ExpertScale(1, 8)
    table = scale.lookup_table()
    assert table.shape == (256, 4)
    for count in range(1, 9):
        color = scale.color(count)
        assert tuple(table[count]) == (color.red(), color.green(), color.blue(), 255)
    assert table[0, 3] == 0


@pytest.mark.parametrize(
    ("low", "high", "most", "marks"),
    [
        (1, 8, 9, (1, 2, 3, 4, 5, 6, 7, 8)),
        (1, 64, 9, (1, 8, 16, 24, 32, 40, 48, 56, 64)),
        (7, 8, 9, (7, 8)),
        (1, 8, 2, (1, 8)),
        (1, 255, 5, (1, 64, 128, 192, 255)),
    ],
)
def test_marks_hold_both_ends(low: int, high: int, most: int, marks: tuple[int, ...]) -> None:
    assert ExpertScale(low, high).marks(most) == marks


def test_a_small_upright_legend_writes_fewer_numbers(qtbot: QtBot, theme: Theme) -> None:
    legend = ScaleLegend(theme)
    qtbot.addWidget(legend)
    legend.set_scale(ExpertScale(1, 64))
    legend.resize(60, 110)
    few = len(legend.marks)
    legend.resize(60, 600)
    assert 2 <= few < len(legend.marks)
    legend.grab()
