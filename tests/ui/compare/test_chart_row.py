"""Where charts go: over the page and back, into a window and back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.ui.charts.count_histogram import CountHistogram
from bh_studio.ui.compare.page import ComparePage
from tests.fake_engine import MODEL
from tests.ui.conftest import Desk


@pytest.fixture
def page(make_desk: Callable[..., Desk]) -> ComparePage:
    """A page on screen."""
    desk = make_desk(show=True)
    generation = GenerationParameters(max_new_tokens=8)
    desk.session.sides.begin("Once", (None, RuleParameters()), generation, MODEL, None)
    return desk.page


def press(page: ComparePage, qtbot: QtBot, key: Qt.Key) -> None:
    qtbot.keyClick(QApplication.focusWidget() or page, key)
    QApplication.processEvents()


def test_a_chart_fills_the_page_until_escape(page: ComparePage, qtbot: QtBot) -> None:
    slot, other = page.charts.slots
    sizes, place = page.charts.splitter.sizes(), slot.geometry()
    slot.maximise.trigger()
    QApplication.processEvents()
    assert slot.isVisible()
    assert not page.answers.isVisible()
    assert not other.isVisible()
    assert slot.height() > 2 * place.height()
    assert [slot.maximise.isChecked() for slot in page.charts.slots] == [True, False]
    assert page.prompt.isVisible()
    press(page, qtbot, Qt.Key.Key_Escape)
    assert not page.charts.is_maximised
    assert page.answers.isVisible()
    assert other.isVisible()
    assert page.charts.splitter.sizes() == sizes
    assert slot.geometry() == place


def test_a_chart_fills_the_page_by_a_key(page: ComparePage, qtbot: QtBot) -> None:
    slot, _ = page.charts.slots
    page.window().activateWindow()
    slot.picker.setFocus()
    press(page, qtbot, Qt.Key.Key_F11)
    assert page.charts.is_maximised
    slot.picker.setFocus()
    press(page, qtbot, Qt.Key.Key_F11)
    assert not page.charts.is_maximised


def test_a_chart_that_comes_back_keeps_the_keys(page: ComparePage, qtbot: QtBot) -> None:
    slot, _ = page.charts.slots
    page.window().activateWindow()
    slot.picker.setFocus()
    press(page, qtbot, Qt.Key.Key_F11)
    press(page, qtbot, Qt.Key.Key_F11)
    assert page.window().focusWidget() is slot.chart.plot
    press(page, qtbot, Qt.Key.Key_F11)
    press(page, qtbot, Qt.Key.Key_Escape)
    assert page.window().focusWidget() is slot.chart.plot
    slot.pop_out.trigger()
    page.charts.stand_ins[0].button.setFocus()
    page.charts.stand_ins[0].button.click()
    assert page.window().focusWidget() is slot.chart.plot
    slot.pop_out.trigger()
    slot.window().close()
    assert page.window().focusWidget() is slot.chart.plot
    # Who is elsewhere stays there.
    slot.maximise.trigger()
    page.prompt.editor.setFocus()
    page.charts.bring_back()
    assert page.window().focusWidget() is page.prompt.editor


def test_the_layout_that_is_remembered_is_that_without_a_large_chart(page: ComparePage) -> None:
    QApplication.processEvents()
    sizes = {name: splitter.sizes() for name, splitter in page.splitters.items()}
    page.charts.slots[0].maximise.trigger()
    QApplication.processEvents()
    page.charts.slots[1].pop_out.trigger()
    QApplication.processEvents()
    assert {name: splitter.sizes() for name, splitter in page.splitters.items()} == sizes
    page.charts.slots[1].pop_out.trigger()
    page.charts.bring_back()
    assert {name: splitter.sizes() for name, splitter in page.splitters.items()} == sizes


@pytest.mark.parametrize("place", ["maximise", "pop_out"])
def test_both_charts_stay_as_wide_while_the_page_gets_another_width(
    place: str, page: ComparePage
) -> None:
    command = getattr(page.charts.slots[0], place)
    command.trigger()
    QApplication.processEvents()
    page.show_settings(False)
    QApplication.processEvents()
    command.trigger()
    QApplication.processEvents()
    one, other = page.charts.splitter.sizes()
    assert abs(one - other) <= 1


def test_a_chart_in_a_window_returns_when_that_is_closed(page: ComparePage) -> None:
    slot, other = page.charts.slots
    place = slot.geometry()
    slot.pop_out.trigger()
    QApplication.processEvents()
    window = slot.window()
    assert window is not page.window()
    assert window.isVisible()
    assert window.windowTitle() == "Experts by layer"
    slot.pick(CountHistogram)
    assert window.windowTitle() == "Histogram of counts"
    assert other.isVisible()
    window.close()
    QApplication.processEvents()
    assert slot.window() is page.window()
    assert slot.geometry() == place
    assert not slot.pop_out.isChecked()
    slot.pop_out.trigger()
    assert slot.window() is window
    # What stands in its place brings it back too.
    page.charts.stand_ins[0].button.click()
    QApplication.processEvents()
    assert slot.window() is page.window()
    assert slot.isVisible()


def test_a_chart_is_in_one_place_at_a_time(page: ComparePage) -> None:
    slot, other = page.charts.slots
    slot.pop_out.trigger()
    slot.maximise.trigger()
    QApplication.processEvents()
    assert not slot.pop_out.isChecked()
    assert slot.window() is page.window()
    other.maximise.trigger()
    QApplication.processEvents()
    assert other.isVisible()
    assert not slot.maximise.isChecked()
    slot.pop_out.trigger()
    other.pop_out.trigger()
    QApplication.processEvents()
    assert not page.charts.is_maximised
    assert page.answers.isVisible()
    assert slot.window() is not other.window()


def test_charts_in_windows_follow_the_run_and_go_with_the_window(page: ComparePage) -> None:
    slot, _ = page.charts.slots
    slot.pop_out.trigger()
    QApplication.processEvents()
    assert slot.is_empty
    window = page.window()
    window.close()
    QApplication.processEvents()
    assert not slot.isVisible()
