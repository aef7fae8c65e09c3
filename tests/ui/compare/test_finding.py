"""Ctrl+F: what is typed is found in the answers of all sides, also while they grow."""

from __future__ import annotations

import time

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QTextCursor
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from bh_studio.ui.compare.find_bar import FindBar
from bh_studio.ui.compare.token_text import TokenText
from tests.ui.conftest import Desk

CTRL = Qt.KeyboardModifier.ControlModifier
SHIFT = Qt.KeyboardModifier.ShiftModifier


def find(desk: Desk, wanted: str) -> FindBar:
    """Open the bar and type `wanted`."""
    desk.qtbot.keyClick(desk.window, Qt.Key.Key_F, CTRL)
    bar = desk.page.answers.find_bar
    assert bar.isVisible()
    assert bar.field.hasFocus()
    desk.qtbot.keyClicks(bar.field, wanted)
    return bar


def marked(desk: Desk, view: TokenText) -> tuple[list[str], str]:
    """What is marked in `view` as it was written, and the current match of that."""
    colors = desk.theme.colors
    units = view.source.encode("utf-16-le", "surrogatepass")
    found, current = [], ""
    for mark in view.extraSelections():
        span = units[2 * mark.cursor.selectionStart() : 2 * mark.cursor.selectionEnd()]
        ground = mark.format.background().color()
        if ground == colors.found:
            found.append(span.decode("utf-16-le", "replace"))
        if ground == colors.text:
            current = span.decode("utf-16-le", "replace")
    return found, current


def test_all_sides_are_searched_and_counted(desk: Desk) -> None:
    desk.start("Once")
    desk.say([" red", " tea", " and", " TEA"], [" red", " tea", " or", " milk"])
    bar = find(desk, "tea")
    assert bar.count.text() == "1 of 3 in A and B"
    assert marked(desk, desk.first.text) == (["tea", "TEA"], "tea")
    assert marked(desk, desk.second.text) == (["tea"], "")
    bar.field.clear()
    desk.qtbot.keyClicks(bar.field, "milk")
    assert bar.count.text() == "1 of 1 in B"
    assert marked(desk, desk.first.text) == ([], "")
    desk.qtbot.keyClicks(bar.field, "y")
    assert bar.count.text() == "Not found"
    assert not bar.next_button.isEnabled()


def test_enter_goes_on_and_round(desk: Desk, qtbot: QtBot) -> None:
    desk.start("Once")
    desk.say([" tea", " and", " TEA"], [" tea", " or", " milk"])
    bar = find(desk, "tea")
    counts = []
    for _ in range(3):
        qtbot.keyClick(bar.field, Qt.Key.Key_Return)
        counts.append(bar.count.text())
    assert counts == [f"{place} of 3 in A and B" for place in (2, 3, 1)]
    qtbot.keyClick(bar.field, Qt.Key.Key_Return, SHIFT)
    assert bar.count.text() == "3 of 3 in A and B"
    assert marked(desk, desk.second.text) == (["tea"], "tea")
    qtbot.mouseClick(bar.previous_button, Qt.MouseButton.LeftButton)
    assert marked(desk, desk.first.text) == (["tea", "TEA"], "TEA")
    qtbot.mouseClick(bar.next_button, Qt.MouseButton.LeftButton)
    assert bar.count.text() == "3 of 3 in A and B"


def test_a_longer_word_stays_where_a_shorter_one_was_found(desk: Desk, qtbot: QtBot) -> None:
    desk.start("Once")
    desk.say([" tea", " ten", " tent"])
    bar = find(desk, "te")
    qtbot.keyClick(bar.field, Qt.Key.Key_Return)
    qtbot.keyClicks(bar.field, "n")
    assert bar.count.text() == "1 of 4 in A and B"
    qtbot.keyClicks(bar.field, "t")
    assert bar.count.text() == "1 of 2 in A and B"


def test_the_case_matters_where_one_wants_it(desk: Desk) -> None:
    desk.start("Once")
    desk.say([" Tea", " tea"])
    bar = find(desk, "tea")
    assert bar.count.text() == "1 of 4 in A and B"
    bar.match_case.click()
    assert bar.count.text() == "1 of 2 in A and B"


def test_a_match_out_of_sight_is_revealed(desk: Desk, qtbot: QtBot) -> None:
    desk.start("Once")
    desk.say([f" word{number}" for number in range(800)])
    bar = find(desk, "word5 ")
    view = desk.first.text
    assert not view.is_following
    assert marked(desk, view) == (["word5 "], "word5 ")
    top = view.verticalScrollBar().value()
    bar.field.clear()
    qtbot.keyClicks(bar.field, "word700")
    assert view.verticalScrollBar().value() > top
    assert marked(desk, view) == (["word700"], "word700")


def test_the_selected_token_stays_marked_beside_it(desk: Desk) -> None:
    desk.start("Once")
    desk.say([" red", " tea", " and"])
    desk.session.selection.select(0, 2)
    find(desk, "tea")
    colors = desk.theme.colors
    grounds = [mark.format.background().color() for mark in desk.first.text.extraSelections()]
    assert grounds == [colors.found, colors.accent, colors.text]
    desk.session.selection.select(0, 0)
    assert desk.first.text.marked_token == 0
    assert marked(desk, desk.first.text) == (["tea"], "tea")


@pytest.mark.parametrize("piece", ["👩‍🔬", "\0\r", "\u2028", "日本", "\ud83d"])
def test_marks_lie_right_behind_any_text(desk: Desk, piece: str) -> None:
    desk.start("Once")
    desk.say([f" {piece}", f" tea{piece}", " tea"])
    find(desk, "tea")
    view = desk.first.text
    assert marked(desk, view) == (["tea", "tea"], "tea")
    assert {mark.cursor.selectedText() for mark in view.extraSelections()} == {"tea"}


def test_what_comes_later_is_found_too(desk: Desk) -> None:
    desk.start("Once")
    desk.say([" red", " te"])
    bar = find(desk, "tea")
    assert bar.count.text() == "Not found"
    desk.say(["a", " TEA"])
    assert bar.count.text() == "4 in A and B"
    assert marked(desk, desk.first.text) == (["tea", "TEA"], "")
    desk.qtbot.keyClick(bar.field, Qt.Key.Key_Return)
    assert bar.count.text() == "1 of 4 in A and B"


def test_another_run_is_searched_anew(desk: Desk) -> None:
    desk.start("Once")
    desk.say([" tea", " tea"])
    bar = find(desk, "tea")
    desk.engine.finish()
    desk.start("Twice")
    desk.page.clock.flush()
    assert bar.count.text() == "Not found"
    assert marked(desk, desk.first.text) == ([], "")
    desk.say([" tea"])
    assert bar.count.text() == "2 in A and B"


def test_esc_closes_the_bar_and_ends_no_run(desk: Desk, qtbot: QtBot) -> None:
    desk.start("Once")
    desk.say([" tea"])
    bar = find(desk, "tea")
    qtbot.keyClick(bar.field, Qt.Key.Key_Escape)
    assert bar.isHidden()
    assert not desk.engine.is_run_cancelled
    assert marked(desk, desk.first.text) == ([], "")
    desk.say([" tea"])
    assert marked(desk, desk.first.text) == ([], "")
    # What was looked for is there again.
    qtbot.keyClick(desk.window, Qt.Key.Key_F, CTRL)
    assert bar.count.text() == "1 of 4 in A and B"
    assert bar.field.selectedText() == "tea"


def test_esc_closes_it_from_an_answer_too(desk: Desk, qtbot: QtBot) -> None:
    desk.finished_run()
    bar = find(desk, "word")
    desk.first.text.setFocus()
    qtbot.keyClick(desk.first.text, Qt.Key.Key_Escape)
    assert bar.isHidden()


def test_a_new_theme_keeps_the_marks(desk: Desk) -> None:
    desk.start("Once")
    desk.say([" tea", " tea"])
    find(desk, "tea")
    desk.theme.set_text_percent(110)
    assert marked(desk, desk.first.text) == (["tea", "tea"], "tea")


def test_only_matches_in_sight_are_marked(desk: Desk) -> None:
    desk.start("Once")
    desk.say([" tea"] * 3000)
    bar = find(desk, "tea")
    view = desk.first.text
    assert bar.count.text() == "1 of 6000 in A and B"
    assert 0 < len(view.extraSelections()) < 1500
    view.verticalScrollBar().setValue(view.verticalScrollBar().maximum())
    last = max(mark.cursor.selectionEnd() for mark in view.extraSelections())
    assert last == view.document().characterCount() - 1


def test_finding_in_long_answers_is_not_felt(desk: Desk) -> None:
    """A frame with 50,000 characters a side costs little more than one without finding."""
    desk.start("Once")
    desk.say([" a word and another one of it"] * 1750)
    bar = find(desk, "o")
    assert len(desk.first.text.source) > 50_000
    QApplication.processEvents()

    def seconds() -> float:
        began = time.process_time()
        for _ in range(20):
            desk.say([" a word and another"])
        return time.process_time() - began

    seconds()
    with_finding = seconds()
    bar.dismiss()
    assert with_finding < seconds() + 20 * 0.02


def test_a_selection_to_be_copied_stays_while_more_is_found(desk: Desk) -> None:
    desk.start("Once")
    desk.say([" tea"])
    find(desk, "tea")
    cursor = desk.first.text.textCursor()
    cursor.setPosition(0)
    cursor.setPosition(4, QTextCursor.MoveMode.KeepAnchor)
    desk.first.text.setTextCursor(cursor)
    desk.say([" tea"])
    assert desk.first.text.textCursor().selectedText() == "Once"
