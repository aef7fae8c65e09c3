"""The state of the window and the only place where the engine's events are applied.

QtCore only: knows no widget, no file and no thread. Panels observe its two run models.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path

from PySide6.QtCore import QObject, Signal, Slot

from bh_studio.engine.errors import CancelToken
from bh_studio.engine.protocol.events import (
    CalibrationSaved,
    Event,
    Failed,
    LoadCancelled,
    LoadProgress,
    LoadRefused,
    ModelInspected,
    ModelLoaded,
    ModelUnloaded,
    Notice,
    RunFinished,
    RunStarted,
    SideFinished,
    TokenGenerated,
)
from bh_studio.engine.protocol.experiments import RunComparison
from bh_studio.engine.protocol.requests import (
    InspectModel,
    LoadModel,
    Request,
    SaveCalibration,
    UnloadModel,
)
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import Conversation, GenerationParameters, ModelInfo
from bh_studio.engine.rules.parameters import RuleParameters
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
    became_idle = Signal()
    content_changed = Signal()
    session_changed = Signal()
    run_accepted = Signal(object)
    run_finished = Signal(object)
    failed = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
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
        self._submit: Callable[[Request], None] | None = None
        self._cancel: CancelToken | None = None
        self._run_id = 0
        # The run that was asked for, until the engine has accepted its prompt.
        self._awaited: RunComparison | None = None
        # Requests other than runs, the oldest first. The engine ends them in this order, each with
        # one event; a failure does not say whose it is.
        self._pending: deque[Request] = deque()

    # --- what the user asks for ---

    def attach(self, submit: Callable[[Request], None] | None) -> None:
        """Send requests to `submit` from now on; None takes the engine away."""
        self._submit = submit

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
        working = self.state in (State.LOADING, State.RUNNING)
        return working and self._cancel is not None and not self._cancel.is_cancelled

    @property
    def is_settled(self) -> bool:
        """Whether a model could be loaded now, in place of the one there is."""
        return self.state in (State.NO_MODEL, State.READY)

    @property
    def is_idle(self) -> bool:
        """Whether the engine has nothing to do."""
        return self._submit is not None and self.is_settled and not self._pending

    def load(self, source: str) -> None:
        """Load the model `source` as the engine thinks best, in place of the one there is."""
        self.load_with(LoadModel(source))

    def load_with(self, request: LoadModel) -> None:
        """Load a model in place of the one there is; that one stays until the engine lets it go."""
        if self._submit is None or not self.is_settled:
            return
        self._cancel = request.cancel
        self.loading = request
        self._set_state(State.LOADING)
        self._progress(LoadProgress("Waiting for the engine"))
        self._send(request)

    def load_anyway(self, refused: LoadRefused) -> None:
        """Load what was refused for want of memory."""
        again = dataclasses.replace(refused.request, load_anyway=True, cancel=CancelToken())
        self.load_with(again)

    @Slot()
    def unload(self) -> None:
        """Give the memory of the loaded model back; ignored unless the state is ready."""
        if self._submit is not None and self.state is State.READY:
            self._set_state(State.UNLOADING)
            self._send(UnloadModel())

    def inspect(self, request: InspectModel) -> None:
        """Ask what a model is and needs; ignored unless the engine is idle."""
        if self.is_idle:
            self._send(request)

    def save_calibration(self, path: Path) -> None:
        """Write what the nulls are fitted on to a file; ignored unless the state is ready."""
        if self._submit is not None and self.state is State.READY:
            self._send(SaveCalibration(path))

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
        if self._submit is None or self.state is not State.READY or self.model is None:
            return
        self._run_id += 1
        request = RunComparison(self._run_id, prompt, rule, generation, conversation)
        self._cancel = request.cancel
        # What is on screen stays until the engine takes the prompt: it may refuse it.
        self._awaited = request
        self._set_state(State.RUNNING)
        self._submit(request)

    @Slot()
    def stop(self) -> None:
        """Ask for the end of what is in flight; the engine's answer makes it final."""
        if not self.can_stop or self._cancel is None:
            return
        self._cancel.cancel()
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

    @Slot(object)
    def apply(self, event: Event) -> None:
        """Take one event from the engine; events of an earlier run are dropped."""
        match event:
            case TokenGenerated() | SideFinished() | RunStarted() | RunFinished():
                if event.run_id == self._run_id and self.is_busy:
                    self._apply_to_run(event)
            case LoadProgress():
                if self.state is State.LOADING:
                    self._progress(event)
            case ModelUnloaded():
                self._apply_unloaded()
            case Failed():
                self._apply_failure(event)
            case Notice(text):
                _log.info("%s", text)
            case _:
                self._apply_answer(event)

    def _apply_answer(
        self, event: ModelLoaded | LoadRefused | LoadCancelled | ModelInspected | CalibrationSaved
    ) -> None:
        """Take what ends a request other than a run."""
        request = self._end_request()
        match event:
            case ModelLoaded(model):
                self.model = model
                self.loaded = request if isinstance(request, LoadModel) else None
                self._set_state(State.READY)
                self.model_changed.emit()
            case LoadRefused():
                self._settle()
                self.load_refused.emit(event)
            case LoadCancelled():
                if isinstance(request, LoadModel):
                    self._settle()
            case ModelInspected():
                self.model_inspected.emit(event)
            case CalibrationSaved(path):
                self.calibration_saved.emit(path)
        self._tell_if_idle()

    def _apply_unloaded(self) -> None:
        self.model = self.loaded = None
        if self.state is State.UNLOADING:
            self._end_request()
            self._set_state(State.NO_MODEL)
        # While another model loads, the engine says so before it reads that one.
        self.model_changed.emit()
        self._tell_if_idle()

    def _apply_to_run(
        self, event: TokenGenerated | SideFinished | RunStarted | RunFinished
    ) -> None:
        awaited = self._awaited
        if awaited is not None and self.model is not None:
            self._awaited = None
            run = (awaited.rule, awaited.generation, self.model, awaited.conversation)
            self._runs.begin(awaited.prompt, *run)
            self._set_session(None)
            self.run_accepted.emit(awaited)
        match event:
            case TokenGenerated():
                self._runs.append(event)
            case SideFinished():
                self._runs.finish(event)
            case RunFinished(_, session):
                self._runs.replace(session)
                self._end_run()
                self._set_session(session)
                self.run_finished.emit(session)

    def _apply_failure(self, failure: Failed) -> None:
        if failure.run_id is None:
            request = self._end_request()
            if isinstance(request, LoadModel | UnloadModel):
                self._settle()
            elif isinstance(request, InspectModel):
                # Asked by the window on its own account; it says so where the answer would be.
                self.inspection_failed.emit(failure)
                self._tell_if_idle()
                return
        elif failure.run_id == self._run_id and self.is_busy:
            if self._awaited is None:
                self._runs.fail()
            self._end_run()
        else:
            _log.warning("Dropped the failure of an earlier run: %s", failure.message)
            return
        # The engine has logged the details where they arose.
        _log.info("Failed: %s", failure.message)
        self.failed.emit(failure)
        self._tell_if_idle()

    def _end_run(self) -> None:
        self._cancel = None
        self._awaited = None
        self._set_state(State.READY)
        self._tell_if_idle()

    def _send(self, request: Request) -> None:
        assert self._submit is not None
        self._pending.append(request)
        self._submit(request)

    def _end_request(self) -> Request | None:
        request = self._pending.popleft() if self._pending else None
        if isinstance(request, LoadModel):
            self._cancel = None
            self.loading = None
            self.load_progress = None
        return request

    def _settle(self) -> None:
        """A load or an unload has ended: what answers now is what there was, or nothing."""
        self._set_state(State.NO_MODEL if self.model is None else State.READY)

    def _tell_if_idle(self) -> None:
        if self.is_idle:
            self.became_idle.emit()

    def _progress(self, progress: LoadProgress) -> None:
        self.load_progress = progress
        self.load_progressed.emit(progress)

    def _set_state(self, state: State) -> None:
        self.state = state
        self.state_changed.emit(state)

    def _set_session(self, session: Session | None) -> None:
        self.session = session
        self.session_changed.emit()
