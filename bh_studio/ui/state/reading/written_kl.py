"""KL to side A of answers that the sides have written, as far as all read the same. QtCore only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from PySide6.QtCore import QObject, QTimer, Signal, Slot

from bh_studio.engine.protocol.events import Event, Failed, JobCancelled, KlMeasured
from bh_studio.engine.protocol.requests import MeasureKl
from bh_studio.engine.records.terms import ModelInfo
from bh_studio.ui.state.engine_model import EngineState
from bh_studio.ui.state.reading.obstacle import Obstacle
from bh_studio.ui.state.run_model import RunModel
from bh_studio.ui.state.run_sides import RunSides
from bh_studio.ui.state.session_model import SessionModel

_NO_OTHER = Obstacle("no other side", "No other side has answered to compare with A.")
_NO_FIRST = Obstacle(
    "side A has no token", "Side A has not answered, so there is nothing to compare with."
)
_OTHER_TURNS = Obstacle(
    "different earlier turns",
    "Each side has read earlier answers of its own, so what they predict cannot be compared. It "
    "can in the first turn of a conversation.",
)
_GOES_ON = Obstacle(
    "the run goes on",
    "When the run has ended, the shared beginning of the answers is read again, and KL to A is "
    "known there.",
    passes=True,
)
_LOADS = Obstacle(
    "a model is loading", "KL to A is measured with the model of the run, once it is there.", True
)
_OTHER_NULL = Obstacle(
    "its null is not loaded",
    "The rules of this run compared with another null than that of the loaded model. Load it with "
    "the calibration that the run had.",
)
_READING = Obstacle(
    "the answers are read again",
    "All sides are reading the shared beginning of the answers again; then KL to A is known there.",
    passes=True,
)

# The sides on screen, each with its epoch.
_Run = tuple[tuple[str, int], ...]


class WrittenKl(QObject):
    """Has the engine measure it once somebody wants to see it, for nothing of it is recorded while
    the sides write; the run models then have it. Given up when another run begins.

    changed: what stands in its way is another now.
    """

    changed = Signal()

    def __init__(self, session: SessionModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._sides, self._engine = session.sides, session.engine
        self._asked: MeasureKl | None = None
        self._job = 0
        # What it was asked of, and why it could not be had of that.
        self._of: _Run = ()
        self._failure: Obstacle | None = None
        # What is wanted while something is drawn is asked for afterwards.
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(0)
        self._soon.timeout.connect(self._ask)
        self._sides.changed.connect(self._follow)
        session.state_changed.connect(self._take_state)
        # By then it is known where the answers of one that is opened part.
        session.session_changed.connect(self.changed)
        self._engine.state_changed.connect(self.changed)
        self._engine.model_changed.connect(self._take_model)
        self._engine.jobs.attached.connect(self._begin_anew)

    def want(self) -> Obstacle | None:
        """Have it measured as soon as it can be; why it is not there yet, None if it is or there is
        nothing to measure."""
        obstacle = self.obstacle()
        if obstacle is _READING and self._asked is None:
            self._soon.start()
        return obstacle

    def obstacle(self) -> Obstacle | None:
        """Why it is not there yet; None if it is or there is nothing to measure."""
        sides, runs = self._sides, self._sides.runs
        if sides.is_same_text or not any(run.token_count for run in runs):
            return None
        if any(run.kl is not None for run in runs):
            return None
        if len(runs) < 2:
            return _NO_OTHER
        if self._session.is_busy or any(run.is_running for run in runs):
            return _GOES_ON
        if not any(_compared(sides)):
            if not runs[0].token_count:
                return _NO_FIRST
            return _OTHER_TURNS if any(run.token_count for run in runs[1:]) else _NO_OTHER
        return self._missing(runs) or self._failure or _READING

    def _missing(self, runs: Sequence[RunModel]) -> Obstacle | None:
        """What of the run is not loaded."""
        engine, model = self._engine, _model_of(runs)
        if engine.state is EngineState.LOADING:
            return _LOADS
        loaded = engine.model if engine.state is EngineState.READY else None
        if loaded is None or loaded.fingerprint != model.fingerprint:
            return Obstacle(
                "its model is not loaded",
                f"KL to A is measured with the model of the run: load {model.name} in "
                f"{model.dtype}.",
            )
        rules = [run.about.rule for run in runs if run.about is not None]
        needs_null = any(rule is not None and rule.needs_calibration for rule in rules)
        return _OTHER_NULL if needs_null and loaded.null_sha256 != model.null_sha256 else None

    @Slot()
    def _ask(self) -> None:
        jobs, runs = self._engine.jobs, self._sides.runs
        if self._asked is not None or self.obstacle() is not _READING or not jobs.has_engine:
            return
        first = runs[0]
        self._of = _run(self._sides)
        self._asked = MeasureKl(
            model=_model_of(runs),
            sides=tuple(run.about.rule for run in runs if run.about is not None),
            prompt_token_ids=first.prompt_token_ids,
            token_ids=tuple(first.token_ids[: max(_compared(self._sides))]),
        )
        self._job = jobs.ask(self._asked, partial(self._take, self._asked))

    def _take(self, asked: MeasureKl, event: Event) -> None:
        if asked is not self._asked:
            return
        match event:
            case KlMeasured(kl):
                self._asked = None
                self._show(kl)
            case Failed():
                self._asked = None
                sentence = f"{event.message} {event.advice}".strip()
                self._failure = Obstacle("could not be read", sentence)
                self.changed.emit()
            case JobCancelled():
                self._asked = None

    def _show(self, kl: np.ndarray) -> None:
        first, *others = self._sides.runs
        lengths = _compared(self._sides)[1:]
        # By definition, whatever else it says.
        first.take_kl(np.zeros(first.token_count))
        for run, of_side, length in zip(others, kl[1:], lengths, strict=True):
            run.take_kl(of_side[:length])

    @Slot()
    def _follow(self) -> None:
        if self._of and self._of != _run(self._sides):
            self._give_up()

    @Slot()
    def _take_state(self) -> None:
        if self._session.is_busy:
            self._give_up()
        self.changed.emit()

    def _give_up(self) -> None:
        is_asked, self._asked = self._asked is not None, None
        self._of, self._failure = (), None
        if is_asked:
            self._engine.jobs.cancel(self._job)

    @Slot()
    def _take_model(self) -> None:
        self._failure = None
        self.changed.emit()

    @Slot()
    def _begin_anew(self) -> None:
        self._asked = self._failure = None
        self.changed.emit()


def _run(sides: RunSides) -> _Run:
    return tuple((run.name, run.epoch) for run in sides.runs)


def _compared(sides: RunSides) -> list[int]:
    """Of each side but A, how many of its first tokens were predicted from what A has read."""
    prompt = sides.runs[0].prompt_token_ids
    pairs = zip(sides.runs, sides.partings, strict=True)
    return [part.compared if run.prompt_token_ids == prompt else 0 for run, part in pairs]


def _model_of(runs: Sequence[RunModel]) -> ModelInfo:
    about = runs[0].about
    assert about is not None, "a run is on screen that was not begun"
    return about.model
