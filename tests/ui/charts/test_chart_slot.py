"""A slot: what is picked, what is drawn when, and what is kept of it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PySide6.QtCore import QPointF, Qt
from PySide6.QtGui import QGuiApplication, QImage
from PySide6.QtWidgets import QApplication, QTableView
from pytestqt.qtbot import QtBot

from bh_studio.engine.protocol.events import Failed
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.ui.charts.chart import Chart
from bh_studio.ui.charts.difference_map import DifferenceMap
from bh_studio.ui.charts.divergence_chart import DivergenceChart
from bh_studio.ui.charts.heat_map import HeatMap
from bh_studio.ui.charts.layer_chart import LayerChart
from bh_studio.ui.charts.limit_chart import LimitChart
from bh_studio.ui.charts.slot.catalogue import CHARTS
from bh_studio.ui.charts.slot.chart_slot import ChartSlot
from bh_studio.ui.widgets.theme import DARK, Theme
from tests.ui.charts.conftest import BH, Run

NewSlot = Callable[[type[Chart]], ChartSlot]
# That of a text that all sides read is another matter.
OF_WRITTEN = tuple(kind for kind in CHARTS if kind is not DivergenceChart)


def test_every_chart_is_picked_and_drawn_with_three_sides(run: Run, new_slot: NewSlot) -> None:
    run.begin(None, BH, RuleParameters(level=0.01))
    run.write()
    run.selection.select(1, 2, 3)
    slot = new_slot(LayerChart)
    for kind in OF_WRITTEN:
        slot.pick(kind)
        assert isinstance(slot.chart, kind)
        assert not slot.is_empty
        assert slot.readout
        assert slot.picker.toolTip().startswith(kind.title)
        assert slot.chart.plot.accessibleName() == kind.title
        assert slot.chart.plot.accessibleDescription()
        assert "arrow keys" in slot.chart.plot.toolTip()
        assert slot.chart.numbers().values.size
        columns, rows = slot.chart.grid()
        for cell in ((0, 0), (columns - 1, rows - 1)):
            slot.chart.point_at(cell)
            assert slot.readout == slot.chart.describe(*cell)
            slot.chart.choose(*cell)


def test_without_a_run_every_chart_says_what_it_will_show(run: Run, new_slot: NewSlot) -> None:
    slot = new_slot(LayerChart)
    for kind in CHARTS:
        slot.pick(kind)
        assert slot.is_empty
        assert slot.words == kind.meaning
        assert not slot.save_csv.isEnabled()


def test_a_chart_is_built_when_it_is_picked(run: Run, new_slot: NewSlot) -> None:
    slot = new_slot(LayerChart)
    assert [type(chart) for chart in slot.findChildren(Chart)] == [LayerChart]
    slot.pick(HeatMap)
    assert len(slot.findChildren(Chart)) == 2
    slot.pick(LayerChart)
    assert len(slot.findChildren(Chart)) == 2


def test_a_chart_is_picked_by_keys(run: Run, new_slot: NewSlot, qtbot: QtBot) -> None:
    slot = new_slot(LayerChart)
    qtbot.keyClick(slot.picker, Qt.Key.Key_Down)
    assert isinstance(slot.chart, HeatMap)


def test_what_is_not_on_screen_is_not_drawn(
    run: Run, new_slot: NewSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.begin()
    run.write()
    slot = new_slot(LayerChart)
    drawn: list[Chart] = []
    draw = LayerChart.draw

    def note(chart: LayerChart) -> None:
        drawn.append(chart)
        draw(chart)

    monkeypatch.setattr(LayerChart, "draw", note)
    slot.refresh()
    assert len(drawn) == 1
    slot.hide()
    slot.refresh()
    assert len(drawn) == 1
    slot.show()
    assert len(drawn) == 2
    slot.pick(HeatMap)
    slot.refresh()
    assert len(drawn) == 2


def test_the_side_picker_names_the_sides_that_can_be_shown(run: Run, new_slot: NewSlot) -> None:
    run.begin(None, BH, RuleParameters(level=0.01))
    run.write()
    slot = new_slot(HeatMap)
    picker = slot.side_picker
    assert [picker.itemText(row) for row in range(picker.count())] == ["A", "B", "C"]
    assert picker.currentText() == "C"
    picker.setCurrentIndex(0)
    picker.activated.emit(0)
    assert (slot.chart.side.name, picker.currentText()) == ("A", "A")
    slot.pick(DifferenceMap)
    assert [picker.itemText(row) for row in range(picker.count())] == ["B", "C"]
    slot.pick(LayerChart)
    assert picker.isHidden()


def test_a_frozen_slot_keeps_what_it_shows(run: Run, new_slot: NewSlot) -> None:
    run.begin()
    run.write()
    slot = new_slot(HeatMap)
    slot.freeze.trigger()
    run.say(1, " more")
    slot.refresh()
    assert isinstance(slot.chart, HeatMap)
    assert len(slot.chart.shown_cells) == 6
    assert slot.readout.startswith("Frozen")
    run.begin(BH)
    slot.refresh()
    assert len(slot.chart.shown_cells) == 6
    assert not slot.chart.is_live
    # Another chart is one of the same moment.
    slot.pick(LayerChart)
    assert len(slot.chart.shown.written) == 2
    slot.freeze.trigger()
    assert slot.is_empty


def test_the_numbers_take_the_place_of_the_picture(run: Run, new_slot: NewSlot) -> None:
    run.begin()
    run.write()
    slot = new_slot(HeatMap)
    slot.as_table.trigger()
    view = slot.findChild(QTableView)
    assert view is not None
    assert view.isVisible()
    model = view.model()
    counts = run.sides.runs[1].counts
    assert (model.rowCount(), model.columnCount()) == counts.shape
    assert model.data(model.index(3, 5)) == str(counts[3, 5])
    vertical = model.headerData(2, Qt.Orientation.Vertical)
    assert vertical == "2   w2"
    assert model.headerData(0, Qt.Orientation.Horizontal) == "Layer 0"
    view.setCurrentIndex(model.index(3, 5))
    run.say(1, " more", 3)
    slot.refresh()
    assert model.rowCount() == len(counts) + 1
    assert view.currentIndex().row() == 3
    for kind in OF_WRITTEN:
        slot.pick(kind)
        assert view.isVisible()
        assert model.rowCount() == len(slot.chart.numbers().values)
    slot.as_table.trigger()
    assert not view.isVisible()


def test_the_texts_beside_the_numbers_are_those_of_the_side(run: Run, new_slot: NewSlot) -> None:
    run.begin()
    run.write()
    slot = new_slot(HeatMap)
    slot.as_table.trigger()
    view = slot.findChild(QTableView)
    assert view is not None
    changed: list[int] = []
    view.model().headerDataChanged.connect(lambda _way, _first, last: changed.append(last))
    slot.side_picker.setCurrentIndex(0)
    slot.side_picker.activated.emit(0)
    assert view.model().headerData(5, Qt.Orientation.Vertical) == "5   A5"
    assert changed[-1] == 5


def test_the_picture_is_copied(run: Run, new_slot: NewSlot) -> None:
    run.begin()
    run.write()
    slot = new_slot(LayerChart)
    slot.copy.trigger()
    image = QGuiApplication.clipboard().image()
    assert image.width() > 2 * slot.chart.width() - 1
    assert "clipboard" in slot.readout


@pytest.mark.parametrize("kind", CHARTS, ids=lambda kind: kind.__name__)
def test_pictures_and_numbers_are_written(
    run: Run, new_slot: NewSlot, tmp_path: Path, kind: type[Chart]
) -> None:
    rules = (None, BH, RuleParameters(level=0.01))
    if kind in OF_WRITTEN:
        run.begin(*rules)
        run.write()
    else:
        run.read_text(*rules)
    slot = new_slot(kind)
    for action, suffix in ((slot.save_png, "png"), (slot.save_svg, "svg"), (slot.save_csv, "csv")):
        action.trigger()
        dialog = slot.files.dialog
        assert dialog is not None
        assert dialog.isVisible()
        assert dialog.defaultSuffix() == suffix
        dialog.close()
        dialog.fileSelected.emit(str(tmp_path / f"chart.{suffix}"))
        assert slot.readout.startswith("Saved to")
    image = QImage(str(tmp_path / "chart.png"))
    colors = {image.pixel(x, y) for x in range(0, image.width(), 7) for y in range(0, 400, 7)}
    assert len(colors) > 5
    drawing = ElementTree.parse(tmp_path / "chart.svg").getroot()
    texts = [text for element in drawing.iter() for text in element.itertext()]
    assert any(kind.title in text for text in texts)
    assert len(list(drawing.iter())) > 50
    with (tmp_path / "chart.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 1 + len(slot.chart.numbers().values)


def test_what_is_written_is_what_was_drawn_when_it_was_asked_for(
    run: Run, new_slot: NewSlot, tmp_path: Path
) -> None:
    run.begin()
    run.write()
    slot = new_slot(HeatMap)
    slot.save_csv.trigger()
    run.say(1, " more")
    slot.refresh()
    assert slot.files.dialog is not None
    slot.files.dialog.close()
    slot.files.dialog.fileSelected.emit(str(tmp_path / "chart.csv"))
    assert len((tmp_path / "chart.csv").read_text().splitlines()) == 7


def test_what_cannot_be_written_is_told_and_replaces_nothing(
    run: Run, new_slot: NewSlot, tmp_path: Path
) -> None:
    run.begin()
    run.write()
    slot = new_slot(LayerChart)
    failures: list[Failed] = []
    slot.failed.connect(failures.append)
    slot.save_png.trigger()
    assert slot.files.dialog is not None
    slot.files.dialog.close()
    slot.files.dialog.fileSelected.emit(str(tmp_path / "missing" / "chart.png"))
    slot.save_png.trigger()
    slot.files.dialog.close()
    (tmp_path / "folder.png").mkdir()
    slot.files.dialog.fileSelected.emit(str(tmp_path / "folder.png"))
    assert [failure.message for failure in failures] == [
        "chart.png could not be written.", "folder.png could not be written."
    ]  # fmt: skip
    assert all(failure.advice for failure in failures)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_the_readout_has_a_line_of_its_own_where_the_card_is_narrow(
    run: Run, new_slot: NewSlot
) -> None:
    run.begin()
    run.write()
    slot = new_slot(LayerChart)
    label = slot.readout_label
    slot.resize(400, 400)
    QApplication.processEvents()
    assert label.y() > slot.picker.geometry().bottom()
    assert label.width() > 350
    slot.resize(1600, 400)
    QApplication.processEvents()
    assert label.geometry().center().y() < slot.picker.geometry().bottom()
    assert label.width() > 500


@pytest.mark.parametrize("percent", [100, 150])
def test_a_narrow_slot_keeps_its_menu(
    run: Run, new_slot: NewSlot, theme: Theme, percent: int
) -> None:
    run.begin(None, BH, RuleParameters(level=0.01), RuleParameters(level=0.1))
    run.write()
    theme.set_text_percent(percent)
    slot = new_slot(LayerChart)
    for kind in CHARTS:
        slot.pick(kind)
        slot.resize(320, 260)
        QApplication.processEvents()
        assert slot.width() <= 330
        assert slot.menu_button.isVisible()
        assert slot.rect().contains(slot.menu_button.geometry())
        assert slot.readout_label.toolTip()
        commands = slot.menu_button.menu().actions()
        assert {slot.maximise, slot.pop_out, slot.freeze, slot.as_table} <= set(commands)


def test_charts_take_the_theme(
    run: Run, new_slot: NewSlot, theme: Theme, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.begin()
    run.write()
    slot = new_slot(LayerChart)
    for kind in CHARTS:
        slot.pick(kind)
    monkeypatch.setattr(theme, "_system_colors", lambda: DARK)
    theme.follow_system()
    for chart in slot.findChildren(Chart):
        assert chart.plot.backgroundBrush().color() == DARK.surface
    assert slot.chart.axis("left").textPen().color() == DARK.muted


def test_a_frame_draws_what_is_there_anew_and_adds_nothing(run: Run, new_slot: NewSlot) -> None:
    run.begin(tokens=200)
    run.write()
    slot = new_slot(LayerChart)
    for kind in CHARTS:
        slot.pick(kind)
        items = len(slot.chart.plot.scene().items())
        for token in range(30):
            run.say(0, f" {token}", experts=[1], log_probability=-1.0)
            run.say(1, f" {token}", 4, experts=[2], log_probability=-1.0)
            slot.refresh()
        assert len(slot.chart.plot.scene().items()) == items


def test_a_limit_that_is_clicked_selects_its_layer(
    run: Run, new_slot: NewSlot, qtbot: QtBot
) -> None:
    run.begin()
    run.write()
    slot = new_slot(LimitChart)
    plot = slot.chart.plot
    box = plot.getPlotItem().vb
    point = plot.mapFromScene(box.mapViewToScene(QPointF(11, 60)))
    qtbot.mouseClick(plot.viewport(), Qt.MouseButton.LeftButton, pos=point)
    assert run.selection.place == (1, 5, 11)


@pytest.mark.parametrize("kind", CHARTS)
def test_a_layer_that_the_run_lacks_is_framed_nowhere(
    run: Run, new_slot: NewSlot, kind: type[Chart]
) -> None:
    run.begin()
    run.write()
    run.selection.select(0, 0, 1000)
    slot = new_slot(kind)
    slot.refresh()
    assert not slot.chart._frame.isVisible()
