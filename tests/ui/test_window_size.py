"""The window is on the screen, and keeps its size whatever it shows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PySide6.QtCore import QEvent, QObject, QSize, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication, QProgressBar
from pytestqt.qtbot import QtBot

from bh_studio.engine.protocol.events import Failed, LoadProgress, Notice
from bh_studio.ui.help_dialogs import about_dialog
from bh_studio.ui.main_window import MainWindow
from bh_studio.ui.remembered import remember
from bh_studio.ui.widgets.number_line import NumberLine
from tests.ui.conftest import Desk

LONG = "A sentence that says at length what is wrong here and what can be done about that. " * 3
SCREENS = [(1280, 720), (1366, 768), (1024, 640)]


def events() -> None:
    for _ in range(5):
        QApplication.processEvents()


class LayoutRequests(QObject):
    """Counts how often a widget is asked to lay itself out anew."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        self.count += event.type() is QEvent.Type.LayoutRequest
        return super().eventFilter(watched, event)


@pytest.mark.parametrize("screen", SCREENS)
def test_a_first_window_is_no_larger_than_the_screen(
    screen: tuple[int, int], make_desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Screen:
        def availableSize(self) -> QSize:  # noqa: N802
            return QSize(*screen)

    monkeypatch.setattr(QGuiApplication, "platformName", lambda: "xcb")
    monkeypatch.setattr(MainWindow, "screen", lambda _self: Screen())
    window = make_desk().window
    assert window.width() == min(1280, screen[0])
    assert screen[1] - 60 < window.height() < screen[1]


@pytest.mark.parametrize("size", [(1024, 640), (1280, 720), (900, 600)])
def test_the_window_keeps_its_size(size: tuple[int, int], desk: Desk) -> None:
    window, page = desk.window, desk.page
    window.resize(*size)
    events()
    desk.start("Once")
    desk.say([" upon", " a"])
    desk.engine.report(Notice(LONG))
    page.clock.flush()
    events()
    for panel in (desk.first, desk.second):
        panel.numbers.show_values(dict.fromkeys(panel.numbers.values, "123456789.1 tok/s"))
    events()
    window.report(Failed(LONG, LONG, ""))
    events()
    window.status.show_state(LONG)
    window.status.notify(LONG)
    events()
    assert window.size() == QSize(*size)
    assert page.differences.lines[0].isVisible()


@pytest.mark.parametrize(
    ("size", "lines", "has_charts"), [((1280, 800), 20, True), ((1024, 640), 15, False)]
)
def test_answers_have_room_to_be_read(
    size: tuple[int, int], lines: int, has_charts: bool, desk: Desk
) -> None:
    desk.window.resize(*size)
    desk.finished_run()
    events()
    assert desk.page.charts.splitter.isVisible() is has_charts
    assert desk.window.actions_.charts.isChecked() is has_charts
    for panel in (desk.first, desk.second):
        text = panel.text
        assert text.viewport().height() // text.fontMetrics().lineSpacing() >= lines


def test_numbers_lie_below_the_answers_whatever_they_have_room_for(
    desk: Desk, qtbot: QtBot
) -> None:
    desk.window.resize(1280, 800)
    desk.finished_run()
    desk.window.actions_.inspector.setChecked(True)
    page = desk.page
    for size, has_legend in (((1280, 800), False), ((1920, 1080), True), ((1280, 800), False)):
        desk.window.resize(*size)
        qtbot.waitUntil(lambda: page.answers.geometry().bottom() < page.differences.y())
        assert page.differences.legend.isVisible() is has_legend


def test_charts_are_folded_and_brought_back(desk: Desk, make_desk: Callable[..., Desk]) -> None:
    desk.window.resize(1280, 800)
    desk.finished_run()
    events()
    before = desk.second.text.height()
    desk.window.actions_.charts.trigger()
    events()
    assert not desk.page.charts.splitter.isVisible()
    assert desk.second.text.height() > before
    # What a person wants stays, also where there is room and after the next start.
    desk.window.resize(1600, 1000)
    events()
    assert not desk.page.charts.splitter.isVisible()
    again = make_desk(remember(desk.window), show=True)
    assert not again.page.charts.splitter.isVisible()
    again.window.actions_.charts.trigger()
    again.window.resize(1024, 640)
    events()
    assert again.page.charts.splitter.isVisible()


@pytest.mark.parametrize("size", [(1280, 800), (900, 600)])
def test_a_window_comes_to_rest(
    size: tuple[int, int], desk: Desk, qapp: QApplication, qtbot: QtBot
) -> None:
    desk.window.resize(*size)
    desk.finished_run()
    requests = LayoutRequests()
    qapp.installEventFilter(requests)

    def is_at_rest() -> bool:
        before = requests.count
        qtbot.wait(50)
        return requests.count == before

    qtbot.waitUntil(is_at_rest)
    qapp.removeEventFilter(requests)


def test_long_numbers_are_cut_and_told_on_hovering(qtbot: QtBot) -> None:
    line = NumberLine({"Speed": "Tokens per second.", "Status": "Why it ended."})
    qtbot.addWidget(line)
    line.resize(120, 20)
    line.show()
    line.show_values({"Speed": "1234567890.1 tok/s", "Status": ""})
    assert line.minimumSizeHint().width() == 0
    assert line.accessibleName() == "Speed: 1234567890.1 tok/s, Status: none yet"
    for words in ("Speed: 1234567890.1 tok/s", "Tokens per second.", "Status: –", "Why it ended."):
        assert words in line.toolTip()


@pytest.mark.parametrize(("size", "is_whole"), [((1280, 720), True), ((1024, 640), False)])
def test_a_notice_has_the_lines_that_there_is_room_for(
    size: tuple[int, int], is_whole: bool, desk: Desk
) -> None:
    notice = desk.page.differences.notice
    desk.window.resize(*size)
    desk.start("Once")
    desk.say([" upon"])
    desk.engine.report(Notice(LONG))
    desk.page.clock.flush()
    events()
    needed = notice.fontMetrics().boundingRect(
        0, 0, notice.width(), 10_000, int(Qt.TextFlag.TextWordWrap), LONG
    )
    assert (notice.height() >= needed.height()) is is_whole
    assert notice.wordWrap() is is_whole


def test_no_bar_is_painted_over_what_is_said(desk: Desk) -> None:
    status = desk.window.status
    status.notify("Saved to run.bhsession")
    status.show_progress(LoadProgress("Reading the weights", 0.5))
    events()
    (bar,) = status.findChildren(QProgressBar)
    assert not bar.isVisible()
    status.clear_notice()
    events()
    assert bar.isVisible()
    assert status.stage == "Reading the weights"
    status.show_state("Ready")
    status.notify("Saved to run.bhsession")
    status.clear_notice()
    events()
    assert not bar.isVisible()


def test_about_shows_long_paths_whole(desk: Desk, qtbot: QtBot) -> None:
    import dataclasses

    model = desk.model.model
    assert model is not None
    long = dataclasses.replace(model, id="/home/" + "averylongname" * 20, fingerprint="0f" * 32)
    dialog = about_dialog(desk.window, long)
    qtbot.addWidget(dialog)
    dialog.show()
    events()
    assert dialog.text.horizontalScrollBar().maximum() == 0
    assert dialog.text.verticalScrollBar().maximum() == 0
    assert long.id in dialog.text.toPlainText()
    assert dialog.text.document().size().width() <= dialog.text.viewport().width()
