"""The model that answers: loading, unloading and looking at models, calibrations. QtCore only.

Knows no run: what else was asked for, and needs the model to stay, JobsModel says.
"""

from __future__ import annotations

import logging
from enum import Enum, auto
from functools import partial
from pathlib import Path

from msgspec import structs
from PySide6.QtCore import QObject, Signal, Slot

from bh_studio.engine.protocol.events import (
    CalibrationSaved,
    Event,
    Failed,
    JobCancelled,
    LoadProgress,
    LoadRefused,
    ModelInspected,
    ModelLoaded,
    ModelUnloaded,
)
from bh_studio.engine.protocol.requests import (
    InspectModel,
    LoadModel,
    SaveCalibration,
    UnloadModel,
)
from bh_studio.engine.records.terms import ModelInfo
from bh_studio.ui.state.jobs_model import JobsModel

_log = logging.getLogger(__name__)


class EngineState(Enum):
    """What becomes of the model, as far as the engine has confirmed it."""

    NO_MODEL = auto()
    LOADING = auto()
    READY = auto()
    UNLOADING = auto()


class EngineModel(QObject):
    """Owns the state of the engine and the loaded model's description.

    model: the loaded one. vocabulary: of that, (token id,) the text of each token. loaded, loading:
    what was asked for when it was loaded, and what is loading now. load_progress: how far that is.
    """

    state_changed = Signal(object)
    load_progressed = Signal(object)
    load_refused = Signal(object)
    model_changed = Signal()
    model_inspected = Signal(object)
    inspection_failed = Signal(object)
    calibration_saved = Signal(object)
    failed = Signal(object)

    def __init__(self, jobs: JobsModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.jobs = jobs
        self.state = EngineState.NO_MODEL
        self.model: ModelInfo | None = None
        self.vocabulary: tuple[str, ...] = ()
        self.loaded: LoadModel | None = None
        self.loading: LoadModel | None = None
        self.load_progress: LoadProgress | None = None
        # The job of the load, until it was asked to end.
        self._cancellable: int | None = None

    @property
    def can_cancel_load(self) -> bool:
        """Whether a model is loading that nobody has given up yet."""
        return self.state is EngineState.LOADING and self._cancellable is not None

    @property
    def will_answer(self) -> bool:
        """Whether there is a model to answer with, or one on its way."""
        return self.state is EngineState.READY or self.can_cancel_load

    @property
    def is_settled(self) -> bool:
        """Whether a model could be loaded now, in place of the one there is."""
        return (
            self.state in (EngineState.NO_MODEL, EngineState.READY) and not self.jobs.need_the_model
        )

    @property
    def is_ready(self) -> bool:
        """Whether there is a model that nothing else was asked of."""
        return self.state is EngineState.READY and not self.jobs.need_the_model

    @property
    def is_idle(self) -> bool:
        """Whether the engine has nothing to do."""
        return self.jobs.is_idle and self.is_settled

    def calibration_of(self, model: ModelInfo) -> Path | None:
        """The file with the null of a session with `model`, if what is loaded was given it."""
        if self.loaded is None or self.model is None:
            return None
        return self.loaded.calibration if self.model.null_sha256 == model.null_sha256 else None

    # --- what the user asks for ---

    def load(self, source: str) -> None:
        """Load the model `source` as the engine thinks best, in place of the one there is."""
        self.load_with(LoadModel(source))

    def load_with(self, request: LoadModel) -> None:
        """Load a model in place of the one there is; that one stays until the engine lets it go."""
        if not self.jobs.has_engine or not self.is_settled:
            return
        self.loading = request
        self._cancellable = self.jobs.ask(request, partial(self._apply_to_load, request))
        self._set_state(EngineState.LOADING)
        self._progress(LoadProgress("Waiting for the engine"))

    def load_anyway(self, refused: LoadRefused) -> None:
        """Load what was refused for want of memory."""
        self.load_with(structs.replace(refused.request, load_anyway=True))

    @Slot()
    def cancel_load(self) -> None:
        """Ask for the end of the load; the engine's answer makes it final."""
        if self.can_cancel_load and self._cancellable is not None:
            job, self._cancellable = self._cancellable, None
            self.state_changed.emit(self.state)
            # Last, for what has not begun may end within the call.
            self.jobs.cancel(job)

    @Slot()
    def unload(self) -> None:
        """Give the memory of the loaded model back; ignored unless the model is ready."""
        if self.jobs.has_engine and self.is_ready:
            self._set_state(EngineState.UNLOADING)
            self.jobs.ask(UnloadModel(), self._apply_to_unload)

    def inspect(self, request: InspectModel) -> None:
        """Ask what a model is and needs; ignored unless the engine is idle."""
        if self.is_idle:
            self.jobs.ask(request, self._apply_to_inspection)

    def save_calibration(self, path: Path) -> None:
        """Write what the nulls are fitted on to a file; ignored unless the model is ready."""
        if self.jobs.has_engine and self.is_ready:
            self.jobs.ask(SaveCalibration(path), self._apply_to_saving)

    # --- what the engine reports ---

    def _apply_to_load(self, request: LoadModel, event: Event) -> None:
        match event:
            case LoadProgress():
                self._progress(event)
            case ModelUnloaded():
                # The former model goes before the new one is read.
                self.model = self.loaded = None
                self.model_changed.emit()
            case ModelLoaded(model, vocabulary):
                self._end_load()
                self.model, self.loaded, self.vocabulary = model, request, vocabulary
                self._set_state(EngineState.READY)
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
                self._tell_failure(event)

    def _apply_to_unload(self, event: Event) -> None:
        match event:
            case ModelUnloaded():
                self.model = self.loaded = None
                self._set_state(EngineState.NO_MODEL)
                self.model_changed.emit()
            case Failed():
                self._settle()
                self._tell_failure(event)

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
                self._tell_failure(event)

    def _end_load(self) -> None:
        self._cancellable = self.loading = self.load_progress = None

    def _tell_failure(self, failure: Failed) -> None:
        # The engine has logged the details where they arose.
        _log.info("Failed: %s", failure.message)
        self.failed.emit(failure)

    def _settle(self) -> None:
        """A load or an unload has ended: what answers now is what there was, or nothing."""
        self._set_state(EngineState.NO_MODEL if self.model is None else EngineState.READY)

    def _progress(self, progress: LoadProgress) -> None:
        self.load_progress = progress
        self.load_progressed.emit(progress)

    def _set_state(self, state: EngineState) -> None:
        self.state = state
        self.state_changed.emit(state)
