"""Fixtures of the window's tests: a window on a fake engine, closed and checked at the end."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from bh_studio.engine.protocol.experiments import Comparison
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import GenerationParameters, ModelInfo
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.settings import Settings
from bh_studio.ui.charts.heat_map import HeatMap
from bh_studio.ui.charts.layer_chart import LayerChart
from bh_studio.ui.charts.slot.chart_slot import ChartSlot
from bh_studio.ui.compare.answer_panel import AnswerPanel
from bh_studio.ui.compare.page import ComparePage
from bh_studio.ui.main_window import MainWindow
from bh_studio.ui.remembered import restore
from bh_studio.ui.state.engine_model import EngineModel
from bh_studio.ui.state.jobs_model import JobsModel
from bh_studio.ui.state.models.downloads import Downloads
from bh_studio.ui.state.models.hub_statuses import HubStatuses
from bh_studio.ui.state.session_model import SessionModel
from bh_studio.ui.widgets.copied_text import release_copied_text
from bh_studio.ui.widgets.theme import Theme
from tests.fake_download import FakeHub
from tests.fake_engine import CHAT_MODEL, MODEL, FakeEngine

# The offscreen platform says this whenever a window or a tooltip is shown.
_NOISE = r"This plugin does not support (propagateSizeHints|raise)\(\)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/ui" in item.path.as_posix():
            item.add_marker(pytest.mark.qt_log_ignore(_NOISE, extend=True))


@dataclass
class Desk:
    """A window, its models and the fake engine behind it."""

    window: MainWindow
    model: EngineModel
    session: SessionModel
    engine: FakeEngine
    theme: Theme
    hub: FakeHub
    qtbot: QtBot

    @property
    def page(self) -> ComparePage:
        """The window's page of a comparison."""
        return self.window.compare

    @property
    def first(self) -> AnswerPanel:
        """The panel of side A."""
        return self.page.answers.panels[0]

    @property
    def second(self) -> AnswerPanel:
        """The panel of side B."""
        return self.page.answers.panels[1]

    @property
    def slots(self) -> tuple[ChartSlot, ...]:
        """Both places of charts."""
        return self.page.charts.slots

    @property
    def layers(self) -> LayerChart:
        """The chart that is in the first of them at the start."""
        chart = self.slots[0].chart
        assert isinstance(chart, LayerChart)
        return chart

    @property
    def heat_map(self) -> HeatMap:
        """The chart that is in the second one."""
        chart = self.slots[1].chart
        assert isinstance(chart, HeatMap)
        return chart

    def load(self) -> None:
        """Have a model loaded."""
        self.model.load("embedded")
        self.engine.finish_load()

    def start(
        self,
        prompt: str = "Once",
        rule: RuleParameters | None = None,
        generation: GenerationParameters | None = None,
    ) -> Comparison:
        """Start a run with these parameters."""
        panel = self.page.settings_panel
        self.page.prompt.set_prompt(prompt)
        panel.show_sides((None, rule or RuleParameters()))
        panel.show_generation(generation or GenerationParameters())
        self.window.actions_.run.trigger()
        request = self.engine.run
        self.engine.begin()
        return request

    def say(self, baseline: list[str], bh: list[str] | None = None) -> None:
        """Both sides say their tokens, taking turns."""
        for left, right in zip(baseline, baseline if bh is None else bh, strict=True):
            self.engine.token(0, left, 8)
            self.engine.token(1, right, *self.engine.random_counts())
        self.page.clock.flush()

    def finished_run(self, tokens: int = 12) -> Session:
        """A run from start to end."""
        self.start()
        words = [f" word{number}" for number in range(tokens)]
        self.say(words, [" other" if word == " word5" else word for word in words])
        session = self.engine.finish()
        self.settle()
        return session

    def settle(self) -> None:
        """Let all files be read and written that were asked for, and the owed frame be painted."""
        self.qtbot.waitUntil(lambda: not self.window.files.is_under_way)
        self.page.clock.flush()

    def save(self, path: Path) -> bool:
        """Save what is on screen; whether it worked."""
        self.window.files.save_to(path)
        self.settle()
        return self.window.files.path == path and self.window.files.is_saved

    def open(self, path: Path) -> bool:
        """Open a session; whether it is on screen."""
        opened: list[Session] = []
        self.window.files.opened.connect(opened.append)
        self.window.files.open_path(path)
        self.settle()
        return len(opened) == 1


@pytest.fixture(autouse=True)
def _garbage_waits() -> Iterator[None]:
    """Between tests alone, as in the program between events: see bh_studio.ui.garbage."""
    # The window of the test before, which was referred to until now; they would pile up.
    gc.collect(1)
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def collected() -> None:
    """What earlier tests left goes now, not in the thread of an engine, where no timer may end."""
    gc.collect()


@pytest.fixture
def theme(qapp: object) -> Iterator[Theme]:
    from PySide6.QtCore import Qt
    from PySide6.QtWidgets import QApplication

    assert isinstance(qapp, QApplication)
    font = qapp.font()
    theme = Theme(qapp, Qt.ColorScheme.Light)
    yield theme
    theme.deleteLater()
    qapp.setStyleSheet("")
    qapp.setFont(font)


@pytest.fixture
def make_desk(qtbot: QtBot, theme: Theme) -> Iterator[Callable[..., Desk]]:
    desks: list[Desk] = []

    def make(
        settings: Settings | None = None, *, show: bool = False, answering: ModelInfo = MODEL
    ) -> Desk:
        model = EngineModel(JobsModel())
        session = SessionModel(model)
        engine = FakeEngine(answering)
        engine.reported.connect(model.jobs.apply)
        model.jobs.attach(engine)
        hub = FakeHub()
        # As the program does it, and in half the time.
        with theme.put_on_at_end():
            window = MainWindow(
                model,
                session,
                theme,
                settings or Settings(),
                Downloads(hub.make),
                HubStatuses(hub.look_up, hub.list_models, hub.discard),
            )
        restore(window, settings or Settings())
        desk = Desk(window, model, session, engine, theme, hub, qtbot)
        desks.append(desk)
        if show:
            window.resize(1280, 800)
            window.show()
            qtbot.waitExposed(window)
        return desk

    yield make
    release_copied_text()
    for desk in desks:
        desk.model.jobs.attach(None)
        desk.window.models.shutdown()
        desk.engine.shutdown()
        desk.window.hide()
        desk.window.deleteLater()
    from PySide6.QtCore import QEvent
    from PySide6.QtWidgets import QApplication

    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    """A shown window with a model loaded."""
    desk = make_desk(show=True)
    desk.load()
    return desk


@pytest.fixture
def chat_desk(make_desk: Callable[..., Desk]) -> Desk:
    """A shown window with an instruct model loaded."""
    desk = make_desk(show=True, answering=CHAT_MODEL)
    desk.load()
    return desk
