"""The one owner of the loaded model: answers one request after another, each with events.

torch and transformers are imported when the first request needs them, so whoever makes a host can
be up before they are. Knows no thread and no job.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from bh_studio.engine.errors import Cancelled, CancelToken, EngineError
from bh_studio.engine.execution.imports import without_collection
from bh_studio.engine.execution.run_keeping import Events, kept
from bh_studio.engine.protocol.events import (
    CalibrationSaved,
    KlMeasured,
    LoadProgress,
    LoadRefused,
    ModelInspected,
    ModelLoaded,
    ModelUnloaded,
    NullJudged,
)
from bh_studio.engine.protocol.experiments import Comparison
from bh_studio.engine.protocol.requests import (
    InspectModel,
    JudgeNull,
    LoadModel,
    MeasureKl,
    ModelBound,
    RunKept,
    SaveCalibration,
    UnloadModel,
)

if TYPE_CHECKING:
    from bh_studio.engine.loading import LoadedModel


class Host:
    """loaded: the model; None until one is loaded.

    history: folder that keeps every comparison; None for none.
    """

    def __init__(self, history: Path | None = None) -> None:
        self.loaded: LoadedModel | None = None
        self._history = history

    def answer(self, body: ModelBound, cancel: CancelToken) -> Events:
        """What comes of `body`; the last event says how it ended.

        Between two events nothing on the model is changed, so that another request may be answered
        before it goes on; but for loads, which leave no model to answer with.
        Raises EngineError with what a person can do about it, ValueError for a definition that does
        not fit the model, Cancelled if nothing came of it by then.
        """
        match body:
            case LoadModel():
                yield from self._load(body, cancel)
            case UnloadModel():
                yield from self._unload()
            case InspectModel():
                yield self._inspect(body)
            case SaveCalibration():
                yield self._save_calibration(body)
            case JudgeNull():
                yield self._judge(body)
            case MeasureKl():
                from bh_studio.engine.experiments.written_kl import kl_to_first

                yield KlMeasured(kl_to_first(self._model(), body, cancel))
            case RunKept(experiment, journal):
                from bh_studio.engine.experiments.kept import run_kept

                yield from run_kept(self._model(), experiment, journal, cancel)
            case _:
                from bh_studio.engine.experiments.runner import run

                events: Events = run(self._model(), body, cancel=cancel)
                if isinstance(body, Comparison) and self._history is not None:
                    events = kept(events, self._history)
                yield from events

    def _load(self, request: LoadModel, cancel: CancelToken) -> Events:
        yield LoadProgress("Starting PyTorch")
        with without_collection(is_first=self.loaded is None):
            from bh_studio.engine.decoding.detokenizer import vocabulary_of
            from bh_studio.engine.loading import load_prepared, prepare_load
            from bh_studio.engine.models.memory import release_memory
            from bh_studio.engine.models.plan import MemoryShortageError, plan_load

        plan = plan_load(request.source, request.device, request.dtype, self._reusable())
        try:
            if not request.load_anyway:
                plan.check_memory()
        except MemoryShortageError as error:
            yield LoadRefused(request, error.message, error.advice, error.needs)
            return
        prepared = prepare_load(plan, request.calibration)
        if cancel.is_cancelled:
            raise Cancelled
        # The old model goes before the new one comes: two may not fit into memory.
        if self.loaded is not None:
            yield from self._unload()
        try:
            self.loaded = yield from load_prepared(prepared, cancel)
        except BaseException as error:
            # The frames that failed hold the half-filled model.
            traceback.clear_frames(error.__traceback__)
            release_memory()
            raise
        yield ModelLoaded(self.loaded.info, vocabulary_of(self.loaded.tokenizer))

    def _unload(self) -> Events:
        if self.loaded is not None:
            from bh_studio.engine.models.memory import release_memory

            self.loaded = None
            release_memory()
        yield ModelUnloaded()

    def _inspect(self, request: InspectModel) -> ModelInspected:
        with without_collection(is_first=self.loaded is None):
            from bh_studio.engine.models.plan import inspect_model

        return inspect_model(request, self._reusable())

    def _save_calibration(self, request: SaveCalibration) -> CalibrationSaved:
        from bh_studio.engine.routing.recordings import save_recording

        try:
            save_recording(self._model().recording, request.path)
        except OSError as error:
            raise EngineError(
                f"{request.path} could not be written: {error.strerror}.", "Choose another place."
            ) from error
        return CalibrationSaved(request.path)

    def _judge(self, request: JudgeNull) -> NullJudged:
        from bh_studio.engine.calibration.diagnostics import diagnose
        from bh_studio.engine.routing.recordings import Recording

        given = request.recording
        recording = self._model().recording if given is None else Recording.of(given)
        diagnostics = diagnose(recording, request.null, request.score, request.alpha)
        return NullJudged(diagnostics, recording.arrays)

    def _model(self) -> LoadedModel:
        if self.loaded is None:
            raise EngineError("No model is loaded.", "Load a model first.")
        return self.loaded

    def _reusable(self) -> dict[str, int]:
        """Bytes by device that the loaded model would give back."""
        from bh_studio.engine.models.memory import bytes_by_device

        return {} if self.loaded is None else bytes_by_device(self.loaded.model)
