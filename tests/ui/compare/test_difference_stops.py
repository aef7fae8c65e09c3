"""F3 and Shift+F3: from one token in which a side parts from side A to the next."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QMenu
from pytestqt.qtbot import QtBot

from bh_studio.engine.rules.parameters import RuleParameters
from tests.ui.conftest import Desk

SHIFT = Qt.KeyboardModifier.ShiftModifier
WORDS = [f" word{number}" for number in range(40)]


def run_of(desk: Desk, *partings: int | None) -> None:
    """A run of side A and one more side for each of `partings`, which differs from there on."""
    desk.page.prompt.set_prompt("Once")
    rules = (RuleParameters(level=0.1 / (1 + side)) for side in range(len(partings)))
    desk.page.settings_panel.show_sides((None, *rules))
    desk.window.actions_.run.trigger()
    desk.engine.begin()
    for number, word in enumerate(WORDS):
        desk.engine.token(0, word)
        for side, parting in enumerate(partings, start=1):
            is_other = parting is not None and number >= parting
            desk.engine.token(side, f"{word}!" if is_other else word)
    desk.page.clock.flush()


def press(desk: Desk, *, backwards: bool = False) -> tuple[int, int, str]:
    """Side and token that are selected by one more key, and what the status line says."""
    modifier = SHIFT if backwards else Qt.KeyboardModifier.NoModifier
    desk.qtbot.keyClick(desk.window, Qt.Key.Key_F3, modifier)
    place = desk.session.selection.place
    assert place is not None
    return place.side, place.token, desk.window.status.notice


def test_each_parting_is_a_stop_and_the_last_leads_round(desk: Desk) -> None:
    run_of(desk, 30, 7, 30)
    assert press(desk) == (2, 7, "C differs from A at 7")
    assert [panel.text.marked_token for panel in desk.page.answers.shown] == [7] * 4
    assert press(desk) == (1, 30, "B and D differ from A at 30")
    assert [panel.text.marked_token for panel in desk.page.answers.shown] == [30] * 4
    assert press(desk) == (2, 7, "No more differences, back to the first: C differs from A at 7")


def test_the_way_back_leads_round_too(desk: Desk) -> None:
    run_of(desk, 30, 7)
    assert press(desk, backwards=True)[:2] == (1, 30)
    assert press(desk, backwards=True)[:2] == (2, 7)
    side, token, words = press(desk, backwards=True)
    assert (side, token) == (1, 30)
    assert words == "No more differences, back to the last: B differs from A at 30"


def test_it_goes_on_from_the_token_that_is_selected(desk: Desk) -> None:
    run_of(desk, 30, 7)
    desk.session.selection.select(0, 12)
    assert press(desk)[:2] == (1, 30)
    desk.session.selection.select(0, 12)
    assert press(desk, backwards=True)[:2] == (2, 7)


def test_the_only_difference_is_brought_back_into_sight(desk: Desk) -> None:
    run_of(desk, 3)
    desk.say(WORDS * 20)
    assert press(desk)[:2] == (1, 3)
    bar = desk.first.text.verticalScrollBar()
    bar.setValue(bar.maximum())
    press(desk)
    assert bar.value() < bar.maximum() // 2


@pytest.mark.parametrize(
    ("partings", "words"),
    [
        ((), "There is no other side to compare with A."),
        ((None, None), "No side differs from A so far."),
    ],
)
def test_where_nothing_differs_it_says_so(
    desk: Desk, qtbot: QtBot, partings: tuple[None, ...], words: str
) -> None:
    run_of(desk, *partings)
    qtbot.keyClick(desk.window, Qt.Key.Key_F3)
    assert desk.window.status.notice == words
    assert desk.session.selection.place is None


def test_a_run_that_has_ended_differs_no_more(desk: Desk, qtbot: QtBot) -> None:
    run_of(desk, None)
    desk.engine.finish()
    qtbot.keyClick(desk.window, Qt.Key.Key_F3)
    assert desk.window.status.notice == "No side differs from A."


def test_before_a_run_there_is_nothing_to_go_to(desk: Desk, qtbot: QtBot) -> None:
    qtbot.keyClick(desk.window, Qt.Key.Key_F3)
    assert desk.window.status.notice == "There is no other side to compare with A."


def test_no_menu_has_the_same_key_twice(desk: Desk) -> None:
    """A letter that two entries have opens neither of them at once."""
    bar = desk.window.menuBar()
    menus = [menu for menu in bar.children() if isinstance(menu, QMenu)]
    assert len(menus) > 5
    for menu in (bar, *menus):
        texts = [action.text().replace("&&", "") for action in menu.actions()]
        letters = [text[text.index("&") + 1].lower() for text in texts if "&" in text]
        assert len(set(letters)) == len(letters), letters
    shortcuts = [key.toString() for action in desk.window.actions() for key in action.shortcuts()]
    assert len(set(shortcuts)) == len(shortcuts)
