"""Charts of cells: each cell is its number, in a window that keeps still."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QPointF, Qt
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from bh_studio.engine.records.decisions.utilisation import Utilisation
from bh_studio.engine.records.terms import Conversation, Turn
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.ui.charts.cell_map import CellMap
from bh_studio.ui.charts.difference_map import DifferenceMap, difference_table
from bh_studio.ui.charts.heat_map import HeatMap
from bh_studio.ui.charts.shown import Shown
from bh_studio.ui.charts.utilisation_map import UtilisationMap
from bh_studio.ui.widgets.theme import DARK, LIGHT, Colors, Theme
from tests.ui.charts.conftest import BH, Run

Draw = Callable[[Any], Any]


def test_the_heat_map_is_of_the_last_side_until_another_is_chosen(run: Run, draw: Draw) -> None:
    run.begin(None, BH, RuleParameters(level=0.01))
    run.write()
    chart = draw(HeatMap)
    assert (chart.shown_cells == run.sides.runs[2].counts).all()
    chart.choose_side(1)
    assert (chart.shown_cells == run.sides.runs[1].counts).all()
    # A side that the next run does not have is no longer chosen.
    run.begin(BH)
    run.write(2)
    chart.show_run(Shown.of(run.sides))
    assert chart.side.name == "A"


def test_a_cell_tells_its_numbers(run: Run, draw: Draw) -> None:
    run.begin()
    run.say(1, " <b>\n", 8, 11)
    run.say(1, " b", 1, 0)
    chart = draw(HeatMap)
    assert chart.describe(0, 5) == "Layer 5, token 0: 8 experts, 11 before limits “ <b>↵”"
    assert chart.describe(1, 0) == "Layer 0, token 1: 1 expert, 0 before limits “ b”"


def test_cells_are_walked_and_chosen_by_keys(run: Run, draw: Draw, qtbot: QtBot) -> None:
    run.begin()
    run.write()
    chart = draw(HeatMap)
    for key in (Qt.Key.Key_Right, Qt.Key.Key_Right, Qt.Key.Key_Up):
        qtbot.keyClick(chart.plot, key)
    assert chart.pointed == (1, 1)
    assert chart.readout == chart.describe(1, 1)
    assert chart.plot.accessibleDescription() == chart.readout
    qtbot.keyClick(chart.plot, Qt.Key.Key_Return)
    assert run.selection.place == (1, 1, 1)
    for _ in range(9):
        qtbot.keyClick(chart.plot, Qt.Key.Key_Down)
        qtbot.keyClick(chart.plot, Qt.Key.Key_Left)
    assert chart.pointed == (0, 0)


def test_a_click_has_all_views_look_at_the_cell(run: Run, draw: Draw, qtbot: QtBot) -> None:
    run.begin()
    run.write()
    chart = draw(HeatMap)
    box = chart.plot.getPlotItem().vb
    point = chart.plot.mapFromScene(box.mapViewToScene(QPointF(4, 9)))
    qtbot.mouseClick(chart.plot.viewport(), Qt.MouseButton.LeftButton, pos=point)
    assert run.selection.place == (1, 4, 9)


def test_nothing_is_chosen_in_the_picture_of_a_former_run(
    run: Run, draw: Draw, qtbot: QtBot
) -> None:
    run.begin()
    run.write()
    chart = draw(HeatMap)
    chart.is_live = False
    qtbot.keyClick(chart.plot, Qt.Key.Key_Right)
    qtbot.keyClick(chart.plot, Qt.Key.Key_Return)
    assert chart.pointed == (0, 0)
    assert run.selection.place is None


def test_a_long_run_is_followed_and_can_be_seen_whole(run: Run, draw: Draw) -> None:
    run.begin(tokens=600)
    chart = draw(HeatMap)
    assert chart.problem == HeatMap.meaning
    for _ in range(600):
        run.say(1, " word")
    chart.show_run(Shown.of(run.sides))
    first, after = chart.shown_tokens
    assert after == 600
    assert 0 < first < 500
    chart.whole_button.setChecked(True)
    assert chart.shown_tokens == (0, 600)
    chart.whole_button.setChecked(False)
    assert chart.shown_tokens == (first, after)
    chart.reveal(3)
    assert chart.shown_tokens[0] == 3
    # What is looked at elsewhere stays where it is in the text.
    run.say(1, " word")
    chart.show_run(Shown.of(run.sides))
    assert chart.shown_tokens[0] == 3


def test_a_token_that_is_selected_elsewhere_comes_into_view(run: Run, draw: Draw) -> None:
    run.begin(tokens=600)
    for _ in range(600):
        run.say(1, " word")
    chart = draw(HeatMap)
    first, _ = chart.shown_tokens
    assert first > 3
    run.selection.select(1, 3)
    assert chart.shown_tokens[0] == 3
    run.selection.select(0, 599, 2)
    assert chart.shown_tokens == (first, 600)
    # What is in view already moves nothing; nor does a selection a picture of a former run.
    run.selection.select(0, 580)
    assert chart.shown_tokens == (first, 600)
    chart.is_live = False
    run.selection.select(0, 3)
    assert chart.shown_tokens == (first, 600)


@pytest.mark.parametrize("token", [0, 50, 99])
def test_a_selected_token_stays_in_view_where_the_chart_gets_less_room(
    token: int, run: Run, draw: Draw
) -> None:
    run.begin(tokens=100)
    for _ in range(100):
        run.say(1, " word")
    chart = draw(HeatMap)
    chart.resize(800, 300)
    QApplication.processEvents()
    assert chart.shown_tokens == (0, 100)
    run.selection.select(1, token)
    chart.resize(250, 300)
    QApplication.processEvents()
    first, after = chart.shown_tokens
    assert after - first < 100
    assert first <= token < after


def test_a_run_that_is_taken_away_leaves_nothing_to_scroll(run: Run, draw: Draw) -> None:
    run.begin(tokens=600)
    for _ in range(600):
        run.say(1, " word")
    chart = draw(HeatMap)
    assert chart.shown_tokens[0] > 0
    run.sides.reset()
    chart.show_run(Shown.of(run.sides))
    assert chart.problem == HeatMap.meaning


def test_the_selected_place_is_framed_in_every_side(run: Run, draw: Draw) -> None:
    run.begin()
    run.write()
    chart = draw(HeatMap)
    run.selection.select(0, 2)
    assert chart.selected_outline(run.selection.place).height() == 16
    run.selection.select(0, 2, 5)
    assert chart.selected_outline(run.selection.place).center() == QPointF(2, 5)
    run.selection.select(0, -1, 5)
    assert chart.selected_outline(run.selection.place) is None


def test_a_token_that_is_pointed_at_elsewhere_is_framed(run: Run, draw: Draw) -> None:
    run.begin()
    run.write()
    chart = draw(HeatMap)
    chart.point_at_token(4)
    assert chart.framed_token == 4
    chart.point_at_token(-1)
    assert chart.framed_token is None


@pytest.mark.parametrize("kind", [HeatMap, DifferenceMap, UtilisationMap])
def test_a_legend_leaves_its_picture_more_room_than_it_takes(
    run: Run, draw: Draw, theme: Theme, kind: type[CellMap]
) -> None:
    theme.set_text_percent(150)
    run.begin()
    run.write()
    chart = draw(kind)
    assert chart.legend.isVisible()
    for width in (220, 600, 260):
        chart.resize(width, 300)
        QApplication.processEvents()
        assert chart.plot.width() > width / 2
        assert chart.legend.isVisible() is (width == 600)


# --- difference ---


def test_differences_are_signed_and_around_the_middle_colour(run: Run, draw: Draw) -> None:
    run.begin()
    run.say(0, " a", 5)
    run.say(1, " a", [5, 6, 4] + [8] * 12 + [1])
    run.say(1, " b", 1)
    chart = draw(DifferenceMap)
    assert chart.differences().tolist() == [[0, 1, -1] + [3] * 12 + [-4]]
    cells = chart.shown_cells.astype(int)[0]
    assert cells[0] == 128
    assert cells[1] - 128 == 128 - cells[2] > 0
    assert chart.describe(0, 15) == "Layer 15, token 0: −4 (B 1, A 5) “ a”"


def test_only_what_was_read_alike_is_the_same_text(run: Run, draw: Draw) -> None:
    run.begin()
    for number, side in enumerate((0, 1) * 4):
        run.say(side, f" w{number // 2}" if number < 4 else f" w{number}", 4)
    chart = draw(DifferenceMap)
    # Token 2 is another, but what came before it is not.
    assert run.sides.partings[1].token == 2
    assert chart.same_until() == 3
    assert chart.hint() == "B less A: from token 3 on not the same text any more: shaded"
    assert "not the same text" in chart.describe(3, 0)
    assert "not the same text" not in chart.describe(2, 0)


def test_sides_with_other_earlier_answers_never_have_the_same_text(run: Run, draw: Draw) -> None:
    turn = Turn("Hello", ("Good day.", "Go away."))
    run.begin(conversation=Conversation("", (turn,)))
    run.say(0, " a", 4)
    run.say(1, " a", 4)
    chart = draw(DifferenceMap)
    assert chart.same_until() == 0
    assert "other earlier answers" in chart.hint()


def test_a_difference_takes_two_sides(run: Run, draw: Draw) -> None:
    run.begin(BH)
    run.write()
    chart = draw(DifferenceMap)
    assert chart.problem == DifferenceMap.meaning
    run.begin(None, BH, RuleParameters(level=0.01))
    run.write()
    chart.show_run(Shown.of(run.sides))
    assert [side.name for side in chart.offered] == ["B", "C"]
    assert chart.side.name == "C"


@pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])
def test_no_difference_has_the_colour_of_the_ground(colors: Colors) -> None:
    table = difference_table(colors.surface, colors.is_dark).astype(int)
    ground = np.array([colors.surface.red(), colors.surface.green(), colors.surface.blue()])
    assert (table[128, :3] == ground).all()
    away = np.abs(table[1:, :3] - ground).sum(axis=1)
    assert (np.diff(away[:128]) <= 0).all()
    assert (np.diff(away[127:]) >= 0).all()
    assert away[126] >= 30 <= away[128]


# --- utilisation ---


def test_utilisation_counts_all_positions_and_names_who_never_ran(run: Run, draw: Draw) -> None:
    run.begin()
    run.read(1, [[0, 1], [0, 2]])
    run.say(1, " a", 2, experts=[0, 3])
    chart = draw(UtilisationMap)
    assert chart.utilisation.positions == 3
    assert chart.describe(0, 4).startswith("Layer 4, expert 0: ran in 100.0 % (3 of 3 positions)")
    assert f"{16 * 60} of 1024 never ran" in chart.hint()
    cells = chart.shown_cells
    assert cells.shape == (64, 16)
    assert (cells[4:] == 0).all()
    assert (cells[:4] > 0).all()
    assert chart.numbers().values[0, 0] == 60


def test_utilisation_counts_only_what_is_new(
    run: Run, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.begin()
    run.write(20)
    chart = draw(UtilisationMap)
    counted: list[int] = []
    extend = Utilisation.extend

    def note(counts: Utilisation, routed: np.ndarray) -> None:
        counted.append(len(routed))
        extend(counts, routed)

    monkeypatch.setattr(Utilisation, "extend", note)
    run.say(1, " a", 4, experts=[1, 2, 3, 4])
    chart.show_run(Shown.of(run.sides))
    assert counted == [1]
    experts = run.sides.runs[1].routed_experts
    assert experts is not None
    whole = Utilisation.of(experts, 64)
    assert (chart.utilisation.ran == whole.ran).all()
    run.begin()
    run.read(1, [[9]])
    run.say(1, " a", 1, experts=[9])
    chart.show_run(Shown.of(run.sides))
    assert chart.utilisation.ran.sum() == 2 * 16


def test_a_run_that_kept_no_experts_says_so(run: Run, draw: Draw) -> None:
    run.begin()
    chart = draw(UtilisationMap)
    assert chart.problem == UtilisationMap.meaning
    run.say(1, " a", 4)
    chart.show_run(Shown.of(run.sides))
    assert chart.problem == "Which experts ran was not kept of side B."
