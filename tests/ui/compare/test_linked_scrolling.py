"""Scrolling one answer by hand scrolls the others to the same token, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QTextCursor, QWheelEvent
from PySide6.QtWidgets import QAbstractSlider, QApplication
from pytestqt.qtbot import QtBot

from bh_studio.engine.records.terms import FinishReason
from bh_studio.ui.compare.token_text import TokenText
from bh_studio.ui.remembered import remember
from tests.ui.conftest import Desk

Action = QAbstractSlider.SliderAction
SHORT = [f" w{number}" if number % 40 else "\n\n" for number in range(1, 601)]
LONG = [f" longer-word-{number}" if number % 25 else "\n" for number in range(1, 601)]


def turn_wheel(view: TokenText, notches: int) -> None:
    place = QPointF(20, 20)
    event = QWheelEvent(
        place,
        QPointF(view.viewport().mapToGlobal(place.toPoint())),
        QPoint(),
        QPoint(0, -120 * notches),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(view.viewport(), event)
    QApplication.processEvents()


def act(view: TokenText, action: Action) -> None:
    view.verticalScrollBar().triggerAction(action)
    QApplication.processEvents()


def holds(view: TokenText, token: int) -> bool:
    """Whether the line at the top has the beginning of `token`, or the end is in sight."""
    bar = view.verticalScrollBar()
    place = QTextCursor(view.document())
    place.setPosition(view._starts[token])
    top = view.cursorForPosition(QPoint(0, 8))
    return bar.value() == bar.maximum() or (
        view.cursorRect(place).center().y() == view.cursorRect(top).center().y()
    )


@pytest.fixture
def views(desk: Desk) -> tuple[TokenText, TokenText]:
    """Two finished answers of 600 tokens each, whose lines break elsewhere."""
    desk.window.resize(1280, 800)
    desk.start("A prompt that is a little longer than one line of an answer, so that it breaks.")
    desk.say(SHORT, LONG)
    desk.engine.finish()
    desk.page.clock.flush()
    QApplication.processEvents()
    return desk.first.text, desk.second.text


def test_the_wheel_scrolls_the_others_to_the_same_token(
    views: tuple[TokenText, TokenText],
) -> None:
    first, second = views
    act(first, Action.SliderToMinimum)
    assert (first.top, second.top) == (second.top, first.top)
    seen = set()
    for _ in range(8):
        turn_wheel(first, 2)
        assert holds(second, first.top), (first.top, second.top)
        seen.add(second.top)
    assert len(seen) > 4
    for _ in range(4):
        turn_wheel(second, -3)
        assert holds(first, second.top), (first.top, second.top)


@pytest.mark.parametrize(
    "action", [Action.SliderPageStepAdd, Action.SliderSingleStepAdd, Action.SliderToMaximum]
)
def test_the_bar_scrolls_the_others_too(views: tuple[TokenText, TokenText], action: Action) -> None:
    first, second = views
    act(second, Action.SliderToMinimum)
    assert first.top < 0
    for _ in range(12):
        act(second, action)
    assert second.top > 0
    assert holds(first, second.top), (first.top, second.top)


def test_keys_scroll_the_others_too(views: tuple[TokenText, TokenText], qtbot: QtBot) -> None:
    first, second = views
    act(first, Action.SliderToMinimum)
    first.setFocus()
    for _ in range(3):
        qtbot.keyClick(first, Qt.Key.Key_PageDown)
    QApplication.processEvents()
    assert first.top > 0
    assert holds(second, first.top)
    qtbot.keyClick(first, Qt.Key.Key_Home, Qt.KeyboardModifier.ControlModifier)
    QApplication.processEvents()
    assert (first.verticalScrollBar().value(), second.verticalScrollBar().value()) == (0, 0)


def test_the_scrolled_side_stays_where_the_hand_has_put_it(
    views: tuple[TokenText, TokenText],
) -> None:
    first, second = views
    for value in range(0, first.verticalScrollBar().maximum(), 7):
        first.verticalScrollBar().setSliderPosition(value)
        QApplication.processEvents()
        assert first.verticalScrollBar().value() == value
        assert holds(second, first.top) if first.top >= 0 else second.top == first.top


def test_at_its_end_a_short_answer_moves_no_longer_one(
    views: tuple[TokenText, TokenText],
) -> None:
    first, second = views
    act(second, Action.SliderToMaximum)
    place = second.verticalScrollBar().value()
    turn_wheel(first, 20)
    act(second, Action.SliderToMaximum)
    turn_wheel(first, 3)
    assert first.verticalScrollBar().value() == first.verticalScrollBar().maximum()
    assert second.verticalScrollBar().value() == place


def test_the_program_s_scrolling_moves_nothing_else(
    desk: Desk, views: tuple[TokenText, TokenText]
) -> None:
    first, second = views
    told: list[int] = []
    for view in views:
        view.scrolled.connect(told.append)
    first.show_token(30)
    second.scroll_to_start()
    first.scroll_to_end()
    first.verticalScrollBar().setValue(4)
    desk.window.resize(1100, 700)
    QApplication.processEvents()
    assert told == []


def test_a_side_that_is_read_at_its_end_goes_on_being_written(desk: Desk) -> None:
    desk.start("Once")
    desk.say(SHORT, LONG)
    first, second = desk.first.text, desk.second.text
    turn_wheel(first, -6)
    assert [first.is_following, second.is_following] == [False, True]
    assert second.verticalScrollBar().value() == second.verticalScrollBar().maximum()
    # One that was scrolled by hand goes along.
    turn_wheel(second, -2)
    turn_wheel(first, -2)
    assert [first.is_following, second.is_following] == [False, False]
    assert holds(second, first.top)
    # And one that has ended, too.
    desk.engine.finish_side(0, FinishReason.END_OF_TEXT)
    desk.page.clock.flush()
    turn_wheel(second, -2)
    assert second.top > 0
    assert holds(first, second.top)


def test_sides_are_unlocked_and_locked_again(
    desk: Desk, views: tuple[TokenText, TokenText], make_desk: Callable[..., Desk], qtbot: QtBot
) -> None:
    first, second = views
    action = desk.window.actions_.scroll_together
    assert action.isChecked()
    assert action in desk.window.actions_.view_menu.actions()
    act(first, Action.SliderToMinimum)
    qtbot.keyClick(desk.window, Qt.Key.Key_L, Qt.KeyboardModifier.ControlModifier)
    assert not action.isChecked()
    assert desk.window.status.notice == "Each answer scrolls by itself."
    turn_wheel(first, 5)
    assert first.verticalScrollBar().value() > second.verticalScrollBar().value() == 0
    assert remember(desk.window).scrolls_together is False
    again = make_desk(remember(desk.window))
    assert not again.window.actions_.scroll_together.isChecked()
    assert not again.page.answers.scrolls_together
    assert again.window.status.notice == ""
    qtbot.keyClick(desk.window, Qt.Key.Key_L, Qt.KeyboardModifier.ControlModifier)
    assert desk.window.status.notice == "Answers scroll together."
    turn_wheel(first, 1)
    assert holds(second, first.top)


def test_without_an_answer_the_prompts_scroll_together(desk: Desk) -> None:
    desk.window.resize(1024, 640)
    desk.start(" ".join(f"word{number}" for number in range(700)))
    desk.engine.fail()
    desk.page.clock.flush()
    first, second = desk.first.text, desk.second.text
    act(first, Action.SliderToMinimum)
    turn_wheel(first, 3)
    assert first.verticalScrollBar().value() == 9
    assert (second.top, second.verticalScrollBar().value()) == (first.top, 9)
