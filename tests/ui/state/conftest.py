"""Fixtures of the state's tests: the models of the window on a fake engine, without a window."""

from __future__ import annotations

import pytest

from bh_studio.ui.state.engine_model import EngineModel
from bh_studio.ui.state.jobs_model import JobsModel
from bh_studio.ui.state.session_model import SessionModel
from tests.fake_engine import FakeEngine


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def model(engine: FakeEngine) -> EngineModel:
    model = EngineModel(JobsModel())
    engine.reported.connect(model.jobs.apply)
    model.jobs.attach(engine)
    return model


@pytest.fixture
def ready(model: EngineModel, engine: FakeEngine) -> EngineModel:
    """An engine model with a model loaded."""
    model.load("embedded")
    engine.finish_load()
    return model


@pytest.fixture
def screen(ready: EngineModel) -> SessionModel:
    """A session model with a model loaded."""
    return SessionModel(ready)
