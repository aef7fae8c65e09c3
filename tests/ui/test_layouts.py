"""Three layouts to choose from, the way back to the first one, and what the next start has."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PySide6.QtWidgets import QApplication

from bh_studio.settings import Settings
from bh_studio.ui.charts.difference_map import DifferenceMap
from bh_studio.ui.charts.heat_map import HeatMap
from bh_studio.ui.charts.layer_chart import LayerChart
from bh_studio.ui.charts.limit_chart import LimitChart
from bh_studio.ui.remembered import remember
from bh_studio.ui.widgets.elided_label import ElidedLabel
from tests.ui.conftest import Desk


def events() -> None:
    for _ in range(5):
        QApplication.processEvents()


def heights(desk: Desk) -> tuple[int, int]:
    """Of the answers, and of the charts; 0 where they are folded."""
    events()
    charts = desk.page.charts.splitter
    return desk.page.answers.height(), charts.height() if charts.isVisible() else 0


def test_each_layout_gives_the_room_to_what_it_is_named_after(desk: Desk) -> None:
    desk.window.resize(1280, 900)
    desk.finished_run()
    actions, first = desk.window.actions_, heights(desk)
    actions.layout_charts.trigger()
    answers, charts = heights(desk)
    assert charts > answers
    assert desk.first.text.height() > 3 * desk.page.fontMetrics().lineSpacing()
    actions.layout_reading.trigger()
    answers, charts = heights(desk)
    assert charts == 0
    assert answers > sum(first)
    actions.layout_balanced.trigger()
    assert heights(desk) == first


def test_a_chart_that_fills_the_page_gives_it_back(desk: Desk) -> None:
    desk.finished_run()
    desk.slots[0].maximise.setChecked(True)
    desk.window.actions_.layout_reading.trigger()
    events()
    assert desk.first.text.isVisible()


def test_a_layout_that_was_asked_for_is_there_where_there_is_little_room(desk: Desk) -> None:
    desk.window.resize(1024, 600)
    desk.finished_run()
    assert heights(desk)[1] == 0
    desk.window.actions_.layout_balanced.trigger()
    assert heights(desk)[1] > 0
    desk.window.actions_.layout_reset.trigger()
    assert heights(desk)[1] == 0


def test_reset_folds_the_settings_where_they_have_no_room(desk: Desk) -> None:
    desk.theme.set_text_percent(220)
    desk.window.resize(1024, 640)
    events()
    desk.window.actions_.settings.trigger()
    assert desk.page.settings_panel.isVisible()
    desk.window.actions_.layout_reset.trigger()
    assert not desk.page.settings_panel.isVisible()
    assert desk.page.side_strip.isVisible()


def test_reset_brings_the_first_layout_back(desk: Desk) -> None:
    desk.window.resize(1280, 900)
    desk.finished_run()
    page, actions = desk.page, desk.window.actions_
    events()
    first = page.sizes()
    page.splitters["answers"].setSizes([200, 700])
    page.splitters["charts"].setSizes([200, 700])
    page.splitters["rows"].setSizes([300, 500])
    actions.charts.trigger()
    actions.settings.trigger()
    actions.inspector.setChecked(True)
    desk.slots[0].pick(DifferenceMap)
    desk.slots[1].pop_out.setChecked(True)
    events()
    actions.layout_reset.trigger()
    events()
    assert page.sizes() == first
    assert page.settings_panel.isVisible()
    assert actions.settings.isChecked()
    assert actions.charts.isChecked()
    assert not page.inspector.isVisible()
    assert [type(slot.chart) for slot in desk.slots] == [LayerChart, HeatMap]
    assert not desk.slots[1].pop_out.isChecked()
    assert page.wants_charts is None


def test_the_charts_that_were_chosen_are_there_at_the_next_start(
    make_desk: Callable[..., Desk],
) -> None:
    first = make_desk(show=True)
    assert remember(first.window).charts == ("Experts by layer", "Token × layer")
    first.slots[0].pick(LimitChart)
    first.slots[1].pick(LayerChart)
    settings = remember(first.window)
    again = make_desk(settings, show=True)
    assert [type(slot.chart) for slot in again.slots] == [LimitChart, LayerChart]
    assert remember(again.window).charts == settings.charts
    again.window.actions_.layout_reset.trigger()
    assert [type(slot.chart) for slot in again.slots] == [LayerChart, HeatMap]


@pytest.mark.parametrize("by", ["a key", "too little room"])
def test_charts_that_are_folded_at_the_end_have_their_height_at_the_next_start(
    by: str, make_desk: Callable[..., Desk]
) -> None:
    desk = make_desk(show=True)
    desk.window.resize(1280, 900)
    events()
    desk.page.splitters["rows"].setSizes([400, 300])
    events()
    above, below = desk.page.sizes()["rows"]
    if by == "a key":
        desk.window.actions_.charts.trigger()
    else:
        desk.window.resize(1280, 640)
    assert heights(desk)[1] == 0
    kept = remember(desk.window)
    another = make_desk(kept, show=True)
    another.window.resize(1280, 900)
    another.page.show_charts(True)
    events()
    assert another.page.sizes()["rows"] == pytest.approx([above, below], abs=5)


def test_charts_that_fold_by_themselves_say_so_and_come_back(desk: Desk) -> None:
    desk.window.resize(1280, 776)
    desk.finished_run()
    button, status, actions = (
        desk.window.status.charts_button,
        desk.window.status,
        desk.window.actions_,
    )
    first = heights(desk)
    assert first[1] > 0
    assert not button.isVisible()
    actions.enlarge.trigger()
    assert heights(desk)[1] == 0
    assert button.isVisible()
    assert button.text() == "Charts folded: too little height"
    assert status.notice == "The charts have folded; F10 shows them."
    # Elsewhere there are none to be folded.
    actions.models.trigger()
    assert not button.isVisible()
    actions.compare.trigger()
    assert button.isVisible()
    actions.reset_text.trigger()
    assert heights(desk) == first
    assert not button.isVisible()
    # What is no longer so is no longer said.
    assert status.notice == ""
    desk.window.resize(1280, 640)
    assert heights(desk)[1] == 0
    assert button.isVisible()
    desk.window.resize(1280, 776)
    assert heights(desk) == first
    desk.window.resize(1280, 640)
    events()
    button.click()
    assert heights(desk)[1] > 0
    assert not button.isVisible()


def test_charts_that_a_person_folds_say_nothing(desk: Desk) -> None:
    desk.finished_run()
    desk.window.status.clear_notice()
    desk.window.actions_.charts.trigger()
    desk.window.resize(1280, 640)
    assert heights(desk)[1] == 0
    assert not desk.window.status.charts_button.isVisible()
    assert desk.window.status.notice == ""


def test_charts_without_a_height_have_that_of_the_first_start(
    make_desk: Callable[..., Desk],
) -> None:
    first, desk = (
        make_desk(Settings(splitters=splitters), show=True)
        for splitters in ({}, {"rows": [508, 0]})
    )
    assert heights(desk) == heights(first)


def test_charts_that_are_not_known_fall_back(make_desk: Callable[..., Desk]) -> None:
    for charts in (("Nonsense", LimitChart.title), ("Nonsense",), (LayerChart.title,) * 5):
        desk = make_desk(Settings(charts=charts))
        kinds = [type(slot.chart) for slot in desk.slots]
        assert kinds[0] is LayerChart
        assert kinds[1] is {2: LimitChart, 1: HeatMap, 5: LayerChart}[len(charts)]


def test_a_notice_stands_alone_also_when_the_text_size_changes(desk: Desk) -> None:
    status = desk.window.status
    for act in (desk.window.actions_.enlarge, desk.window.actions_.shrink):
        status.notify("Saved to run.bhsession")
        act.trigger()
        act.trigger()
        QApplication.processEvents()
        seen = [label.text() for label in status.findChildren(ElidedLabel) if label.isVisible()]
        # Larger text folds the charts, and says so in its place.
        assert status.notice
        assert status.notice in seen
        assert status.stage not in seen
    status.clear_notice()
    assert status.findChildren(ElidedLabel)[0].isVisible()
