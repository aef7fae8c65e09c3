"""At every size of the window and of its text nothing is out of reach, and nothing cut for good."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html import unescape

import pytest
from PySide6.QtCore import QPoint, QRect, QSize, Qt
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractScrollArea,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLabel,
    QLineEdit,
    QToolButton,
    QWidget,
)

from bh_studio.engine.protocol.events import Failed
from bh_studio.engine.rules import parse_rule
from bh_studio.ui.charts.difference_map import DifferenceMap
from bh_studio.ui.charts.divergence_chart import DivergenceChart
from bh_studio.ui.charts.slot.catalogue import CHARTS
from bh_studio.ui.main_window import MainWindow
from tests.ui.conftest import Desk

SIZES = [(1024, 600), (1024, 640), (1280, 800), (1920, 1080), (3840, 2160)]
PERCENTS = [100, 150, 220]
RULES = {2: ("bh:0.05",), 4: ("bh:0.05", "cut:0.04", "entropy:0.8")}
CONTROLS = (QAbstractButton, QAbstractSpinBox, QComboBox, QLineEdit, QLabel)


@pytest.fixture
def make_sized(
    make_desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> Callable[[int, int], Desk]:
    """A window on the smallest screen, with so many sides and so large a text."""

    def make(percent: int, sides: int) -> Desk:
        monkeypatch.setattr(MainWindow, "_room", lambda _self: QSize(*SIZES[0]))
        desk = make_desk(show=True)
        desk.load()
        desk.theme.set_text_percent(percent)
        desk.page.settings_panel.show_sides((None, *map(parse_rule, RULES[sides])))
        desk.page.prompt.set_prompt("The old fisherman rowed out to the island")
        desk.window.actions_.run.trigger()
        desk.engine.begin()
        for number in range(40):
            for side in range(sides):
                word = f" word{number + side * (number > 9)}"
                desk.engine.token(side, word, *desk.engine.random_counts())
        desk.engine.finish()
        desk.settle()
        return desk

    return make


def resized(desk: Desk, size: tuple[int, int]) -> None:
    desk.window.resize(*size)
    for _ in range(5):
        QApplication.processEvents()


def text_of(control: QWidget) -> str:
    if isinstance(control, QToolButton) and not control.icon().isNull():
        style = control.toolButtonStyle()
        return "" if style is Qt.ToolButtonStyle.ToolButtonIconOnly else control.text()
    if isinstance(control, QLabel | QAbstractButton):
        return control.text()
    return control.currentText() if isinstance(control, QComboBox) else ""


def reachable(control: QWidget) -> bool:
    """Whether it lies within all that it is in, up to what can be scrolled to it."""
    around = control.parentWidget()
    while around is not None:
        if isinstance(around.parentWidget(), QAbstractScrollArea):
            return True
        place = QRect(control.mapTo(around, QPoint(0, 0)), control.size())
        if not around.rect().contains(place):
            return False
        around = around.parentWidget()
    return True


def shown_controls(window: QWidget) -> Iterator[QWidget]:
    for control in window.findChildren(QWidget):
        if isinstance(control, CONTROLS) and control.isVisible() and control.window() is window:
            yield control


def faults(window: QWidget) -> list[tuple[str, str, str]]:
    """What is out of reach, and what is cut and told nowhere: kind, words, fault."""
    found = []
    for control in shown_controls(window):
        words = text_of(control)
        what = type(control).__name__, words or control.accessibleName()
        if not reachable(control):
            found.append((*what, "out of reach"))
        is_wrapped = isinstance(control, QLabel) and control.wordWrap()
        wanted = control.fontMetrics().horizontalAdvance(words.replace("&", ""))
        told = re.sub(r"<[^>]*>", " ", unescape(control.toolTip()))
        is_told = all(word in told for word in words.split() if word != "·")
        if words and not is_wrapped and wanted > control.width() and not is_told:
            found.append((*what, f"{control.width()} of {wanted} and says only {told!r}"))
    return found


@pytest.mark.parametrize("sides", [2, 4])
@pytest.mark.parametrize("percent", PERCENTS)
def test_compare_at_every_size(
    make_sized: Callable[[int, int], Desk], percent: int, sides: int
) -> None:
    desk = make_sized(percent, sides)
    window, actions = desk.window, desk.window.actions_
    for is_inspected in (False, True):
        actions.inspector.setChecked(is_inspected)
        for size in SIZES:
            resized(desk, size)
            state = (size, is_inspected)
            assert window.size() == QSize(*size), state
            assert (faults(window), state) == ([], state)
            for panel in desk.page.answers.shown:
                line = panel.text.fontMetrics().lineSpacing()
                assert panel.text.viewport().height() >= 2 * line, state


@pytest.mark.parametrize("percent", PERCENTS)
@pytest.mark.parametrize("place", ["history", "models"])
def test_the_other_places_at_every_size(
    make_sized: Callable[[int, int], Desk], percent: int, place: str
) -> None:
    desk = make_sized(percent, 2)
    desk.window.actions_.places[place].trigger()
    for size in SIZES:
        resized(desk, size)
        assert desk.window.size() == QSize(*size)
        assert (faults(desk.window), size) == ([], size)


@pytest.mark.parametrize("percent", PERCENTS)
def test_settings_and_charts_that_are_asked_for_are_within_reach(
    make_sized: Callable[[int, int], Desk], percent: int
) -> None:
    desk = make_sized(percent, 4)
    actions = desk.window.actions_
    resized(desk, SIZES[0])
    for action in (actions.settings, actions.charts):
        if not action.isChecked():
            action.trigger()
    resized(desk, SIZES[0])
    assert desk.page.settings_panel.isVisible()
    assert desk.page.charts.splitter.isVisible()
    assert faults(desk.window) == []
    for slot in desk.slots:
        slot.pick(DifferenceMap)
    resized(desk, SIZES[0])
    assert faults(desk.window) == []
    assert desk.window.size() == QSize(*SIZES[0])


def test_the_settings_fold_where_the_answers_would_have_too_little(
    make_sized: Callable[[int, int], Desk],
) -> None:
    desk = make_sized(220, 2)
    resized(desk, (1024, 640))
    assert desk.page.side_strip.isVisible()
    assert not desk.page.settings_panel.isVisible()
    desk.window.actions_.settings.trigger()
    assert desk.page.settings_panel.isVisible()
    resized(desk, (1920, 1080))
    assert desk.page.settings_panel.isVisible()
    resized(desk, (1024, 640))
    assert desk.page.side_strip.isVisible()


@pytest.mark.parametrize("percent", [100, 150])
def test_charts_are_never_too_low_to_be_read(desk: Desk, percent: int) -> None:
    desk.theme.set_text_percent(percent)
    resized(desk, (1920, 1080))
    desk.finished_run()
    for kind in CHARTS:
        desk.slots[0].pick(kind)
        desk.page.splitters["rows"].setSizes([10_000, 1])
        QApplication.processEvents()
        slot = desk.slots[0]
        if not slot.is_empty:
            # Room for the marks of its axis, and four lines above them.
            assert slot.chart.plot.height() >= 8 * desk.theme.point_size, kind
        assert slot.readout_label.geometry().bottom() < slot.height()


@pytest.mark.parametrize("sides", [3, 4])
def test_the_numbers_of_every_side_at_a_token_have_room(desk: Desk, sides: int) -> None:
    resized(desk, (1280, 800))
    desk.page.prompt.mode.choose(True)
    desk.page.prompt.set_prompt("Once upon a time there was a king " * 30)
    rules = [parse_rule(rule) for rule in RULES[4]]
    desk.page.settings_panel.show_sides((None, *rules[: sides - 1]))
    desk.window.actions_.run.trigger()
    desk.engine.finish_text()
    desk.settle()
    chart, label = desk.slots[1].chart, desk.slots[1].readout_label
    assert isinstance(chart, DivergenceChart)
    chart.point_at((100, 0))
    resized(desk, (1280, 800))
    shown = label.fitted(label.width())
    assert shown == label.text()
    assert shown.startswith("Token 101: B 6.3125, C 12.6250")


def test_an_error_folds_no_charts(desk: Desk) -> None:
    desk.finished_run()
    line = desk.page.fontMetrics().lineSpacing()
    for height in range(40 * line, 50 * line, line):
        resized(desk, (1280, height))
        has_charts = desk.page.charts.splitter.isVisible()
        desk.window.report(Failed("Out of memory.", "Close other programs.", ""))
        resized(desk, (1280, height))
        assert desk.page.charts.splitter.isVisible() is has_charts
        desk.window.errors.dismiss()


def test_keys_bring_an_answer_into_sight(make_sized: Callable[[int, int], Desk]) -> None:
    desk = make_sized(220, 4)
    resized(desk, SIZES[0])
    for side in (3, 0):
        desk.window.actions_.sides[side].trigger()
        resized(desk, SIZES[0])
        text = desk.page.answers.panels[side].text
        assert text.hasFocus()
        assert text.visibleRegion().boundingRect().height() > text.height() / 2
