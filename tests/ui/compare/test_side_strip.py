"""What is left of the settings where they make room for the inspector."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QSize, Qt
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from bh_studio.engine.rules import parse_rule
from bh_studio.ui.compare.side_strip import SideStrip
from tests.ui.conftest import Desk


@pytest.fixture
def strip(desk: Desk) -> SideStrip:
    """The strip of a narrow window with three sides and a token that is inspected."""
    desk.window.resize(1024, 640)
    desk.page.settings_panel.show_sides((None, parse_rule("bh:0.05"), parse_rule("cut:0.04")))
    desk.page.prompt.set_prompt("Once")
    desk.window.actions_.run.trigger()
    desk.window.actions_.inspector.setChecked(True)
    QApplication.processEvents()
    return desk.page.side_strip


def test_it_is_there_only_where_the_settings_made_room(desk: Desk, strip: SideStrip) -> None:
    assert strip.isVisible()
    assert strip.width() == 44
    assert not desk.page.settings_panel.isVisible()
    desk.window.actions_.settings.trigger()
    assert not strip.isVisible()
    assert desk.page.settings_panel.isVisible()
    # Who has put them away wants none of them.
    desk.window.actions_.settings.trigger()
    assert not strip.isVisible()
    assert not desk.page.settings_panel.isVisible()


def test_a_letter_shows_the_settings_of_its_side(
    desk: Desk, strip: SideStrip, qtbot: QtBot
) -> None:
    panel = desk.page.settings_panel
    assert [button.text() for button in strip.buttons if button.isVisible()] == ["A", "B", "C"]
    assert "Side B, bh:0.05: show its settings (F9)" in strip.buttons[1].toolTip()
    qtbot.mouseClick(strip.buttons[1], Qt.MouseButton.LeftButton)
    assert panel.isVisible()
    assert panel.side_list.current == 1
    assert panel.side_list.rows[1].button.hasFocus()
    assert desk.window.actions_.settings.isChecked()
    assert desk.window.size() == QSize(1024, 640)


def test_the_plus_adds_a_side_and_shows_it(desk: Desk, strip: SideStrip, qtbot: QtBot) -> None:
    panel = desk.page.settings_panel
    qtbot.mouseClick(strip.add_button, Qt.MouseButton.LeftButton)
    assert len(panel.sides()) == 4
    assert panel.isVisible()
    assert panel.side_list.current == 3
    desk.window.actions_.inspector.setChecked(False)
    desk.window.actions_.inspector.setChecked(True)
    QApplication.processEvents()
    assert strip.isVisible()
    assert not strip.add_button.isVisible()


def test_every_letter_has_a_name(strip: SideStrip) -> None:
    for button in (*strip.buttons, strip.add_button):
        if button.isVisible():
            assert button.accessibleName()
            assert button.toolTip()
