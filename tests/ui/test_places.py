"""The places of the window: which there are, how one goes from one to another, what stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import QSize, Qt
from PySide6.QtWidgets import QApplication, QDialog, QWidget
from pytestqt.qtbot import QtBot

from bh_studio import paths
from bh_studio.engine.protocol.events import Failed
from bh_studio.ui.remembered import remember
from bh_studio.ui.state.engine_model import EngineState
from tests.ui.conftest import Desk

CONTROL = Qt.KeyboardModifier.ControlModifier
FAILED = Failed("Out of memory.", "Close other programs.", "")


def place_of(desk: Desk, name: str) -> QWidget:
    """The page of the place `name`, which has been shown."""
    history = desk.window.history
    pages = {"compare": desk.page, "models": desk.window.models.page}
    if history is not None:
        pages["history"] = history
    return pages[name]


def shown(desk: Desk) -> QWidget:
    return desk.window.place


def go(desk: Desk, name: str) -> QWidget:
    desk.window.actions_.places[name].trigger()
    return place_of(desk, name)


def events() -> None:
    for _ in range(5):
        QApplication.processEvents()


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (Qt.Key.Key_1, "compare"),
        (Qt.Key.Key_2, "history"),
        (Qt.Key.Key_3, "models"),
        (Qt.Key.Key_H, "history"),
        (Qt.Key.Key_M, "models"),
    ],
)
def test_keys_and_rail_go_to_a_place_and_typing_begins_there(
    desk: Desk, qtbot: QtBot, key: Qt.Key, name: str
) -> None:
    window = desk.window
    window.activateWindow()
    qtbot.waitUntil(desk.page.prompt.editor.hasFocus)
    qtbot.keyClick(desk.page.prompt.editor, key, CONTROL)
    for _ in range(2):
        page = place_of(desk, name)
        assert shown(desk) is page
        assert page.isVisible()
        assert desk.page.isVisible() is (name == "compare")
        pressed = [place for place, button in window.rail.buttons.items() if button.isChecked()]
        assert pressed == [name]
        focus = QApplication.focusWidget()
        assert focus is not None
        assert page.isAncestorOf(focus)
        go(desk, "compare")
        assert desk.page.prompt.editor.hasFocus()
        qtbot.mouseClick(window.rail.buttons[name], Qt.MouseButton.LeftButton)
    assert window.findChildren(QDialog) == []


def test_typing_begins_where_it_is_wanted(desk: Desk, qtbot: QtBot) -> None:
    go(desk, "history")
    assert desk.window.history is not None
    qtbot.waitUntil(desk.window.history.wanted.hasFocus)
    go(desk, "models")
    qtbot.waitUntil(desk.window.models.page.list.hasFocus)


@pytest.mark.parametrize("name", ["history", "models"])
def test_escape_goes_back_and_ends_nothing(desk: Desk, qtbot: QtBot, name: str) -> None:
    desk.start("Once")
    go(desk, name)
    qtbot.keyClick(QApplication.focusWidget() or desk.window, Qt.Key.Key_Escape)
    assert shown(desk) is desk.page
    assert not desk.engine.is_run_cancelled
    qtbot.keyClick(desk.page.prompt.editor, Qt.Key.Key_Escape)
    assert desk.engine.is_run_cancelled


@pytest.mark.parametrize("name", ["compare", "history", "models"])
def test_what_went_wrong_is_seen_in_every_place(desk: Desk, qtbot: QtBot, name: str) -> None:
    page = go(desk, name)
    desk.window.report(FAILED)
    events()
    assert desk.window.errors.isVisible()
    assert desk.window.errors.geometry().bottom() < page.mapTo(desk.window, page.pos()).y()
    qtbot.keyClick(desk.window, Qt.Key.Key_Escape)
    assert not desk.window.errors.isVisible()
    assert shown(desk) is page


def test_a_loaded_model_brings_the_answers_back(desk: Desk) -> None:
    go(desk, "models")
    desk.model.load("embedded")
    desk.engine.fail("The weights are damaged.")
    assert shown(desk) is desk.window.models.page
    desk.load()
    assert shown(desk) is desk.page


def test_a_load_that_ends_tears_nobody_from_the_history(desk: Desk) -> None:
    page = go(desk, "history")
    desk.load()
    assert shown(desk) is page


@pytest.mark.parametrize("name", ["history", "models"])
def test_a_run_that_is_opened_brings_the_answers_back(
    desk: Desk, tmp_path: Path, name: str
) -> None:
    desk.finished_run(3)
    path = tmp_path / "a.bhsession"
    assert desk.save(path)
    page = go(desk, name)
    desk.open(tmp_path / "missing.bhsession")
    assert shown(desk) is page
    assert desk.open(path)
    assert shown(desk) is desk.page


def test_a_run_from_another_place_is_seen(desk: Desk) -> None:
    desk.page.prompt.set_prompt("Once")
    go(desk, "models")
    desk.window.actions_.run.trigger()
    assert shown(desk) is desk.page
    assert desk.engine.run.prompt == "Once"


def test_what_acts_on_the_answers_rests_elsewhere(desk: Desk) -> None:
    desk.finished_run(3)
    actions = desk.window.actions_
    able = [action for action in actions.of_compare if action.isEnabled()]
    assert actions.remove_side in able
    for name in ("history", "models"):
        go(desk, name)
        assert not [action.text() for action in actions.of_compare if action.isEnabled()]
        desk.page.changed.emit()
        assert not [action.text() for action in actions.of_compare if action.isEnabled()]
    go(desk, "compare")
    assert [action for action in actions.of_compare if action.isEnabled()] == able


def test_the_strip_and_the_line_below_go_to_a_place(desk: Desk) -> None:
    desk.window.status.download_chosen.emit()
    assert shown(desk) is desk.window.models.page
    desk.window.kept.exceeded.emit()
    desk.window.kept_strip.remedy_button.click()
    assert shown(desk) is desk.window.history
    # Who looks at the runs is told there.
    desk.window.kept.exceeded.emit()
    assert desk.window.kept_strip.failure is None


def test_a_loading_model_is_not_cancelled_by_leaving(desk: Desk, qtbot: QtBot) -> None:
    desk.model.load("embedded")
    page = go(desk, "models")
    qtbot.keyClick(page, Qt.Key.Key_Escape)
    assert shown(desk) is desk.page
    assert desk.model.state is EngineState.LOADING
    assert not desk.engine.cancelled


def test_return_opens_the_selected_run_from_the_table(desk: Desk, qtbot: QtBot) -> None:
    desk.engine.history = paths.history_dir()
    desk.finished_run(3)
    go(desk, "history")
    page = desk.window.history
    assert page is not None
    qtbot.waitUntil(lambda: page.selected is not None)
    page.table.setFocus()
    qtbot.keyClick(page.table, Qt.Key.Key_Return)
    desk.settle()
    assert shown(desk) is desk.page


@pytest.mark.parametrize("percent", [100, 150, 220])
def test_the_rail_is_narrow_and_shows_each_word_whole(desk: Desk, percent: int) -> None:
    desk.theme.set_text_percent(percent)
    events()
    rail = desk.window.rail
    assert rail.width() <= 64 * percent / 100 + 1
    for button in rail.buttons.values():
        words = button.fontMetrics().horizontalAdvance(button.text())
        assert words + 6 <= button.width()
        assert button.accessibleName() == button.text()
        assert button.toolTip()


def test_going_elsewhere_leaves_the_size_of_the_window(desk: Desk) -> None:
    for size in (QSize(1024, 640), QSize(1280, 800)):
        desk.window.resize(size)
        for name in ("history", "models", "compare"):
            go(desk, name)
            events()
            assert desk.window.size() == size


def test_the_parts_of_the_models_are_remembered(
    make_desk: Callable[..., Desk], qtbot: QtBot
) -> None:
    first = make_desk(show=True)
    go(first, "models")
    first.window.models.page.splitters["models"].setSizes([400, 700])
    events()
    settings = remember(first.window)
    # A window in which nobody looks at them forgets nothing.
    settings = remember(make_desk(settings, show=True).window)
    third = make_desk(settings, show=True)
    go(third, "models")
    events()
    assert third.window.models.page.sizes() == first.window.models.page.sizes()
