"""The choice of what the background of tokens says, in the text, the legend and the menus."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from PySide6.QtCore import QPoint
from PySide6.QtGui import QAction, QTextCursor
from PySide6.QtWidgets import QApplication

from bh_studio.settings import Settings
from bh_studio.ui.compare.token_text import TokenText
from bh_studio.ui.remembered import remember
from bh_studio.ui.state.run_model import RunModel
from bh_studio.ui.state.tints.tint import EXPERTS, TINTS
from bh_studio.ui.widgets.theme import DARK
from tests.fake_engine import chosen
from tests.ui.conftest import Desk

SURPRISE, RANK, KL = TINTS[1:]
WORDS = [f" word{number}" for number in range(400)]


def say(desk: Desk, tokens: int = 3) -> None:
    """Token i of side B has rank 10^i and is one of 2 · 10^i."""
    for index in range(tokens):
        desk.engine.token(0, f" a{index}", 8, choice=chosen(0.5, 1))
        rank = 10 ** (index % 4)
        desk.engine.token(1, f" b{index}", 4, choice=chosen(0.5 / rank, rank))
    desk.page.clock.flush()


def entry(desk: Desk, name: str) -> QAction:
    menu = desk.page.differences.tint_menu
    menu.refresh()
    (action,) = (action for action in menu.actions() if action.data() == name)
    return action


def test_no_legend_of_another_tint_stands_beside_the_one_that_is_chosen(desk: Desk) -> None:
    legend = desk.page.differences.legend
    assert legend.isVisible()
    desk.page.tinting.choose("kl")
    assert not legend.isVisible()
    desk.page.tinting.choose("experts")
    assert legend.isVisible()


def test_a_chosen_tint_is_that_of_all_tokens(desk: Desk) -> None:
    desk.start()
    say(desk)
    surface = desk.theme.colors.surface
    first, second = desk.first.text, desk.second.text
    assert [first.tint_of(index) for index in range(3)] == [surface] * 3
    assert second.tint_of(1) == desk.session.sides.all_runs[1].scale.tint(4, surface)
    entry(desk, "rank").trigger()
    scale = RANK.scale(RunModel("B"))
    assert [first.tint_of(index) for index in range(3)] == [surface] * 3
    assert [second.tint_of(i) for i in range(3)] == [scale.tint(10**i, surface) for i in range(3)]
    entry(desk, "surprise").trigger()
    scale = SURPRISE.scale(RunModel("B"))
    assert first.tint_of(0) == scale.tint(-np.log(0.5), surface)
    # What comes later has the same tint.
    desk.engine.token(1, " later", 4, choice=chosen(0.01, 7))
    desk.page.clock.flush()
    assert second.tint_of(3) == scale.tint(float(-np.float32(np.log(0.01))), surface)
    desk.engine.finish()
    desk.page.clock.flush()
    assert second.tint_of(3) == scale.tint(float(-np.float32(np.log(0.01))), surface)


def test_the_theme_s_colours_are_those_of_the_chosen_tint(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.start()
    say(desk)
    desk.page.tinting.choose("rank")
    monkeypatch.setattr(desk.theme, "_system_colors", lambda: DARK)
    desk.theme.follow_system()
    expected = RANK.scale(RunModel("B")).tint(100, DARK.surface)
    assert desk.second.text.tint_of(2) == expected


def test_another_tint_leaves_text_place_and_selection(desk: Desk) -> None:
    desk.start()
    for word in WORDS:
        desk.engine.token(1, word, 4, choice=chosen(0.01, 7))
    desk.page.clock.flush()
    view = desk.second.text
    view.reveal_token(150)
    view.verticalScrollBar().setValue(3)
    cursor = view.textCursor()
    cursor.setPosition(10)
    cursor.setPosition(50, QTextCursor.MoveMode.KeepAnchor)
    view.setTextCursor(cursor)
    view.verticalScrollBar().setValue(3)
    text, chosen_text = view.toPlainText(), cursor.selectedText()
    desk.page.tinting.choose("rank")
    QApplication.processEvents()
    assert view.toPlainText() == text
    assert view.textCursor().selectedText() == chosen_text
    assert view.verticalScrollBar().value() == 3
    assert view.marked_token == 150
    assert not view.is_following


def test_hovering_and_the_legend_follow_the_tint(desk: Desk) -> None:
    desk.window.resize(1920, 1080)
    desk.start()
    say(desk)
    line = desk.page.differences
    assert line.tint_button.text().startswith("Tint: Experts")
    assert line.legend.marks == tuple(map(str, range(1, 9)))
    assert "mean over 16 layers: 4.00" in desk.second.text.describe(1)
    desk.page.tinting.choose("surprise")
    assert line.tint_button.text().startswith("Tint: Surprise, nats")
    assert line.legend.marks == ("0", "2", "4", "6", "8+")
    assert "nats" in line.legend.toolTip()
    assert desk.second.text.describe(1) == (
        "Token 1: “ b1” (id 179)\n"
        "Surprise: 3.00 nats, probability 0.05\n"
        "Experts, mean over 16 layers: 4.00\n"
        "Fewest and most in a layer: 4 and 4"
    )
    surface = desk.theme.colors.surface
    assert line.legend.color_at(1.0) == SURPRISE.scale(RunModel("B")).tint(8, surface)
    line.legend.grab()


def test_what_is_not_kept_is_greyed_and_says_why(desk: Desk) -> None:
    desk.start()
    desk.say(WORDS[:3])
    line, surface = desk.page.differences, desk.theme.colors.surface
    for name in ("surprise", "rank"):
        assert not entry(desk, name).isEnabled()
    assert "was not kept" in entry(desk, "rank").toolTip()
    assert entry(desk, "experts").isEnabled()
    # It may have been chosen before.
    desk.page.tinting.choose("surprise")
    assert line.tint_problem.text() == "No tint: not kept of this run"
    assert line.tint_problem.isVisible()
    assert not line.legend.isVisible()
    assert [desk.second.text.tint_of(index) for index in range(3)] == [surface] * 3
    desk.page.tinting.choose("experts")
    assert not line.tint_problem.isVisible()
    assert desk.second.text.tint_of(0) != surface


def test_before_anything_is_written_every_tint_can_be_chosen(desk: Desk) -> None:
    assert all(entry(desk, tint.name).isEnabled() for tint in TINTS)
    desk.page.tinting.choose("rank")
    desk.start()
    assert not desk.page.differences.tint_problem.isVisible()
    say(desk)
    assert desk.second.text.tint_of(1) == RANK.scale(RunModel("B")).tint(
        10, desk.theme.colors.surface
    )


def test_the_choice_is_in_the_view_menu_and_remembered(
    desk: Desk, make_desk: Callable[..., Desk]
) -> None:
    menus = {action.text(): action.menu() for action in desk.window.actions_.view_menu.actions()}
    assert menus["&Tint of tokens"] is desk.page.differences.tint_menu
    assert desk.page.differences.tint_button.menu() is desk.page.differences.tint_menu
    entry(desk, "rank").trigger()
    assert remember(desk.window).tint == "rank"
    again = make_desk(remember(desk.window))
    assert again.page.tinting.current is RANK
    assert [action.data() for action in again.page.differences.tint_menu.actions()
            if action.isChecked()] == ["rank"]  # fmt: skip
    assert make_desk(Settings(tint="nonsense")).page.tinting.current is EXPERTS


def test_the_choice_widens_no_window(desk: Desk) -> None:
    desk.window.resize(1024, 640)
    desk.start()
    desk.say(WORDS[:3])
    for tint in TINTS:
        desk.page.tinting.choose(tint.name)
        QApplication.processEvents()
        assert desk.window.width() == 1024
        assert desk.page.differences.tint_button.isVisible()
        right = desk.page.differences.mapTo(desk.page, QPoint()).x() + desk.page.differences.width()
        assert right <= desk.page.width()


def test_four_long_answers_are_tinted_at_once(desk: Desk) -> None:
    panel = desk.page.settings_panel
    for _ in range(2):
        panel.side_list.add()
    desk.page.prompt.set_prompt("Once")
    desk.window.actions_.run.trigger()
    desk.engine.begin()
    for index in range(1000):
        for side in range(4):
            desk.engine.token(side, WORDS[index % 400], 4 + side, choice=chosen(0.5**index, index))
    desk.page.clock.flush()
    views: list[TokenText] = [shown.text for shown in desk.page.answers.shown]
    assert [view.token_count for view in views] == [1000] * 4
    taken = []
    for name in ("surprise", "rank", "experts", "surprise"):
        began = time.perf_counter()
        desk.page.tinting.choose(name)
        QApplication.processEvents()
        taken.append(time.perf_counter() - began)
    # 30 to 40 ms where nothing else is done; a test only fails where something hangs.
    assert min(taken) < 1.0, taken
