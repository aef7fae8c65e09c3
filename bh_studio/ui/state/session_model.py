"""The state of the window and the only place where the engine's events are applied.

QtCore only: knows no widget, no file and no thread. Panels observe its two run models.
"""

from __future__ import annotations

import dataclasses
import logging
from enum import Enum, auto
from functools import partial
from pathlib import Path

from PySide6.QtCore import QObject, Signal, Slot

from bh_studio.engine.protocol.events import (
    CalibrationSaved,
    Event,
    Failed,
    Finished,
    JobCancelled,
    LoadProgress,
    LoadRefused,
    ModelInspected,
    ModelLoaded,
    ModelUnloaded,
    Notice,
    Progress,
    SideFinished,
    TokenGenerated,
)
from bh_studio.engine.protocol.experiments import Comparison, conversation_of
from bh_studio.engine.protocol.requests import (
    InspectModel,
    LoadModel,
    SaveCalibration,
    UnloadModel,
)
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import Conversation, GenerationParameters, ModelInfo
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.ui.state.jobs_model import JobsModel
from bh_studio.ui.state.run_pair import RunPair, check_session

_log = logging.getLogger(__name__)


class State(Enum):
    """What the engine is doing, as far as it has confirmed it."""

    NO_MODEL = auto()
    LOADING = auto()
    READY = auto()
    UNLOADING = auto()
    RUNNING = auto()
    CANCELLING = auto()


class SessionModel(QObject):
    """Owns the state, the loaded model's description, both runs and the current session."""

    state_changed = Signal(object)
    load_progressed = Signal(object)
    load_refused = Signal(object)
    model_changed = Signal()
    model_inspected = Signal(object)
    inspection_failed = Signal(object)
    calibration_saved = Signal(object)
    content_changed = Signal()
    session_changed = Signal()
    run_accepted = Signal(object)
    run_finished = Signal(object)
    run_lost = Signal()
    model_failed = Signal(object)
    failed = Signal(object)

    def __init__(self, jobs: JobsModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.jobs = jobs
        self.state = State.NO_MODEL
        self.model: ModelInfo | None = None
        # What was asked for when `model` was loaded, and what is loading now.
        self.loaded: LoadModel | None = None
        self.loading: LoadModel | None = None
        self.load_progress: LoadProgress | None = None
        self.session: Session | None = None
        self._runs = RunPair(self)
        self.baseline, self.bh = self._runs.baseline, self._runs.bh
        self._runs.changed.connect(self.content_changed)
        # The job of the load or run that Stop is for.
        self._stoppable: int | None = None
        # The run that was asked for, until the engine has accepted its prompt.
        self._awaited: Comparison | None = None

    # --- what the user asks for ---

    @property
    def first_difference(self) -> int | None:
        """The first token in which the texts differ; None if none does so far."""
        return self._runs.first_difference

    @property
    def compared_tokens(self) -> int:
        """Tokens that both sides have, up to the first difference."""
        return self._runs.compared_tokens

    @property
    def is_busy(self) -> bool:
        """Whether a run is in flight."""
        return self.state in (State.RUNNING, State.CANCELLING)

    @property
    def can_stop(self) -> bool:
        """Whether there is work in flight that was not asked to stop yet."""
        return self.state in (State.LOADING, State.RUNNING) and self._stoppable is not None

    @property
    def is_settled(self) -> bool:
        """Whether a model could be loaded now, in place of the one there is."""
        return self.state in (State.NO_MODEL, State.READY)

    @property
    def is_idle(self) -> bool:
        """Whether the engine has nothing to do."""
        return self.jobs.is_idle and self.is_settled

    def load(self, source: str) -> None:
        """Load the model `source` as the engine thinks best, in place of the one there is."""
        self.load_with(LoadModel(source))

    def load_with(self, request: LoadModel) -> None:
        """Load a model in place of the one there is; that one stays until the engine lets it go."""
        if not self.jobs.has_engine or not self.is_settled:
            return
        self.loading = request
        self._stoppable = self.jobs.ask(request, partial(self._apply_to_load, request))
        self._set_state(State.LOADING)
        self._progress(LoadProgress("Waiting for the engine"))

    def load_anyway(self, refused: LoadRefused) -> None:
        """Load what was refused for want of memory."""
        self.load_with(dataclasses.replace(refused.request, load_anyway=True))

    @Slot()
    def unload(self) -> None:
        """Give the memory of the loaded model back; ignored unless the state is ready."""
        if self.jobs.has_engine and self.state is State.READY:
            self._set_state(State.UNLOADING)
            self.jobs.ask(UnloadModel(), self._apply_to_unload)

    def inspect(self, request: InspectModel) -> None:
        """Ask what a model is and needs; ignored unless the engine is idle."""
        if self.is_idle:
            self.jobs.ask(request, self._apply_to_inspection)

    def save_calibration(self, path: Path) -> None:
        """Write what the nulls are fitted on to a file; ignored unless the state is ready."""
        if self.jobs.has_engine and self.state is State.READY:
            self.jobs.ask(SaveCalibration(path), self._apply_to_saving)

    def run(
        self,
        prompt: str,
        rule: RuleParameters,
        generation: GenerationParameters,
        conversation: Conversation | None = None,
    ) -> None:
        """Answer `prompt` with both sides; ignored unless the state is ready.

        conversation: what precedes it; None continues it as plain text.
        """
        if not self.jobs.has_engine or self.state is not State.READY or self.model is None:
            return
        # What is on screen stays until the engine takes the prompt: it may refuse it.
        self._awaited = Comparison(
            prompt=prompt, sides=(None, rule), generation=generation, conversation=conversation
        )
        self._stoppable = self.jobs.ask(self._awaited, self._apply_to_run)
        self._set_state(State.RUNNING)

    @Slot()
    def stop(self) -> None:
        """Ask for the end of what is in flight; the engine's answer makes it final."""
        if not self.can_stop or self._stoppable is None:
            return
        self.jobs.cancel(self._stoppable)
        self._stoppable = None
        if self.state is State.RUNNING:
            self._set_state(State.CANCELLING)
        else:
            self.state_changed.emit(self.state)

    def show_session(self, session: Session) -> None:
        """Show a finished session in place of what is on screen; not while a run is in flight.

        Raises ValueError, TypeError or OverflowError for numbers that cannot be shown; nothing has
        changed then.
        """
        if self.is_busy:
            raise RuntimeError("A run is in flight.")
        check_session(session)
        run = (session.rule, session.generation, session.model, session.conversation)
        self._runs.begin(session.prompt, *run)
        self._runs.replace(session)
        self._set_session(session)

    def clear(self) -> None:
        """Forget what is on screen; ignored while a run is in flight."""
        if self.is_busy:
            return
        self._runs.reset()
        self._set_session(None)

    # --- what the engine reports ---

    def _apply_to_load(self, request: LoadModel, event: Event) -> None:
        match event:
            case LoadProgress():
                self._progress(event)
            case ModelUnloaded():
                # The former model goes before the new one is read.
                self.model = self.loaded = None
                self.model_changed.emit()
            case ModelLoaded(model):
                self._end_load()
                self.model, self.loaded = model, request
                self._set_state(State.READY)
                self.model_changed.emit()
            case LoadRefused():
                self._end_load()
                self._settle()
                self.load_refused.emit(event)
            case JobCancelled():
                self._end_load()
                self._settle()
            case Failed():
                self._end_load()
                self._settle()
                self._tell_model_failure(event)

    def _apply_to_unload(self, event: Event) -> None:
        match event:
            case ModelUnloaded():
                self.model = self.loaded = None
                self._set_state(State.NO_MODEL)
                self.model_changed.emit()
            case Failed():
                self._settle()
                self._tell_model_failure(event)

    def _apply_to_inspection(self, event: Event) -> None:
        match event:
            case ModelInspected():
                self.model_inspected.emit(event)
            case Failed():
                # Asked by the window on its own account; it says so where the answer would be.
                self.inspection_failed.emit(event)

    def _apply_to_saving(self, event: Event) -> None:
        match event:
            case CalibrationSaved(path):
                self.calibration_saved.emit(path)
            case Failed():
                self._tell_model_failure(event)

    def _apply_to_run(self, event: Event) -> None:
        match event:
            case Progress():
                self._accept_run()
            case Notice(text):
                _log.info("%s", text)
            case TokenGenerated():
                self._runs.append(event)
            case SideFinished():
                self._runs.finish(event)
            case Finished(session):
                self._runs.replace(session)
                self._end_run()
                self._set_session(session)
                self.run_finished.emit(session)
            case JobCancelled():
                self._lose_run()
            case Failed():
                self._lose_run()
                _log.info("Failed: %s", event.message)
                self.failed.emit(event)

    def _accept_run(self) -> None:
        """The first step of a run says that its prompt was accepted."""
        awaited = self._awaited
        if awaited is None or self.model is None:
            return
        self._awaited = None
        (rule,) = (side for side in awaited.sides if side is not None)
        precedes = conversation_of(awaited, self.model)
        run = (rule, awaited.generation, self.model, precedes)
        self._runs.begin(awaited.prompt, *run)
        self._set_session(None)
        self.run_accepted.emit(awaited)

    def _lose_run(self) -> None:
        """A run has ended without a session; one that was never accepted leaves no trace."""
        is_accepted = self._awaited is None
        if is_accepted:
            self._runs.fail()
        self._end_run()
        if is_accepted:
            self.run_lost.emit()

    def _end_run(self) -> None:
        self._stoppable = self._awaited = None
        self._set_state(State.READY)

    def _end_load(self) -> None:
        self._stoppable = self.loading = self.load_progress = None

    def _tell_model_failure(self, failure: Failed) -> None:
        # The engine has logged the details where they arose.
        _log.info("Failed: %s", failure.message)
        self.model_failed.emit(failure)
        self.failed.emit(failure)

    def _settle(self) -> None:
        """A load or an unload has ended: what answers now is what there was, or nothing."""
        self._set_state(State.NO_MODEL if self.model is None else State.READY)

    def _progress(self, progress: LoadProgress) -> None:
        self.load_progress = progress
        self.load_progressed.emit(progress)

    def _set_state(self, state: State) -> None:
        self.state = state
        self.state_changed.emit(state)

    def _set_session(self, session: Session | None) -> None:
        self.session = session
        self.session_changed.emit()
