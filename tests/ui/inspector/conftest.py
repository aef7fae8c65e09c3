"""A run whose router logits are kept, with and without a window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from pytestqt.qtbot import QtBot

from bh_studio.engine.protocol.requests import InspectToken, LoadModel, ReplaySide
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules import RuleParameters, parse_rule
from bh_studio.ui.state.engine_model import EngineModel
from bh_studio.ui.state.inspection.inspection_model import InspectionModel
from bh_studio.ui.state.jobs_model import JobsModel
from bh_studio.ui.state.run_model import RunModel
from bh_studio.ui.state.selection import Selection
from bh_studio.ui.state.session_model import SessionModel
from tests.fake_engine import FakeEngine
from tests.ui.conftest import Desk

CUT = parse_rule("cut:0.04")
GENERATION = GenerationParameters(max_new_tokens=64)


@dataclass
class Bench:
    """The models of an inspection and the fake engine behind them."""

    model: EngineModel
    session: SessionModel
    inspection: InspectionModel
    engine: FakeEngine
    qtbot: QtBot

    @property
    def selection(self) -> Selection:
        return self.session.selection

    @property
    def runs(self) -> tuple[RunModel, ...]:
        return self.session.sides.runs

    @property
    def asked(self) -> list[InspectToken | ReplaySide]:
        """What was asked for, the first first."""
        return [b for b in self.engine.files if isinstance(b, InspectToken | ReplaySide)]

    def load(self, request: LoadModel) -> None:
        """Have a model loaded."""
        self.model.load_with(request)
        self.engine.finish_load()

    def start(self, sides: Sequence[RuleParameters | None] = (None, CUT)) -> None:
        """Begin a run."""
        self.session.run("Once", tuple(sides), GENERATION)
        self.engine.begin()

    def say(self, words: Sequence[str]) -> None:
        """All sides say `words`."""
        for word in words:
            for side in self.engine.sides:
                self.engine.token(side, word, 5 if side else 8)

    def finish(self) -> Session:
        """End the run."""
        return self.engine.finish()

    def settle(self) -> None:
        """Let everything be answered that was asked for."""
        self.qtbot.waitUntil(lambda: not self.engine.has_files_left)


@pytest.fixture
def bench(qtbot: QtBot) -> Iterator[Bench]:
    model = EngineModel(JobsModel())
    session = SessionModel(model)
    engine = FakeEngine()
    engine.keeps_logits = True
    engine.reported.connect(model.jobs.apply)
    model.jobs.attach(engine)
    model.load("embedded")
    engine.finish_load()
    inspection = InspectionModel(model, session.sides, session.selection)
    inspection.watch(True)
    yield Bench(model, session, inspection, engine, qtbot)
    model.jobs.attach(None)
    engine.shutdown()


def finished_run(
    desk: Desk,
    words: Sequence[str],
    sides: Sequence[RuleParameters | None] = (None, CUT),
    *,
    keeps_logits: bool = True,
) -> Session:
    """A run in a window, from start to end."""
    desk.engine.keeps_logits = keeps_logits
    desk.page.prompt.set_prompt("Once")
    desk.page.settings_panel.show_sides(tuple(sides))
    desk.window.actions_.run.trigger()
    desk.engine.begin()
    for word in words:
        for side in desk.engine.sides:
            desk.engine.token(side, word, 5 if side else 8)
    session = desk.engine.finish()
    desk.settle()
    return session
