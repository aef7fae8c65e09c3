"""The one engine thread: owns the model from start to exit and answers requests with events.

Of Qt it knows only QtCore. torch and transformers are imported in
the engine thread, so a window can be up before they are.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, QThread, Signal, Slot

from bh_studio.engine.errors import Cancelled, CancelToken, EngineError
from bh_studio.engine.protocol.events import (
    CalibrationSaved,
    Event,
    JobCancelled,
    LoadProgress,
    LoadRefused,
    ModelLoaded,
    ModelUnloaded,
    Report,
    failure,
)
from bh_studio.engine.protocol.experiments import Experiment
from bh_studio.engine.protocol.requests import (
    Body,
    InspectModel,
    LoadModel,
    Request,
    SaveCalibration,
    UnloadModel,
)

if TYPE_CHECKING:
    from bh_studio.engine.loading import LoadedModel

log = logging.getLogger(__name__)

_Tell = Callable[[Event], None]


class Engine(QObject):
    """The engine as the GUI thread sees it: requests in, events out, never a wait.

    reported: every events.Report, delivered in the thread that owns the receiving object.
    """

    reported = Signal(object)
    _submitted = Signal(object, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._thread = QThread()
        self._thread.setObjectName("engine")
        self._worker = _Worker()
        self._worker.moveToThread(self._thread)
        self._submitted.connect(self._worker.handle)
        self._worker.reported.connect(self.reported)
        self._worker.ended.connect(self._forget)
        self._cancel_tokens: dict[int, CancelToken] = {}

    def start(self) -> None:
        """Start the engine thread."""
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Queue `request`; its events follow."""
        token = self._cancel_tokens[request.job] = CancelToken()
        self._submitted.emit(request, token)

    def cancel(self, job: int) -> None:
        """Ask a job to end as soon as it can; one that has ended is no matter."""
        if job in self._cancel_tokens:
            self._cancel_tokens[job].cancel()

    def shutdown(self) -> None:
        """Cancel all requests and end the thread; returns when it has ended.

        The wait is at most one step long: a token, the reading of a prompt, a calibration window,
        or the import of torch.
        """
        for token in self._cancel_tokens.values():
            token.cancel()
        self._thread.quit()
        self._thread.wait()

    @Slot(int)
    def _forget(self, job: int) -> None:
        self._cancel_tokens.pop(job, None)


class _Worker(QObject):
    """Lives in the engine thread; handles one request after the other."""

    reported = Signal(object)
    ended = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self._loaded: LoadedModel | None = None

    @Slot(object, object)
    def handle(self, request: Request, cancel: CancelToken) -> None:
        """Answer `request` with events; nothing it raises leaves this method."""
        job, body = request

        def report(event: Event) -> None:
            self.reported.emit(Report(job, event))

        try:
            self._answer(body, report, cancel)
        except Cancelled:
            report(JobCancelled())
        except EngineError as error:
            log.info("A request could not be met: %s", error)
            report(failure(error))
        except Exception as error:
            log.exception("A request failed")
            report(failure(error))
        self.ended.emit(job)

    def _answer(self, body: Body, report: _Tell, cancel: CancelToken) -> None:
        match body:
            case LoadModel():
                self._load(body, report, cancel)
            case UnloadModel():
                self._unload(report)
            case InspectModel():
                self._inspect(body, report)
            case SaveCalibration():
                self._save_calibration(body, report)
            case _:
                self._run(body, report, cancel)

    def _load(self, request: LoadModel, report: _Tell, cancel: CancelToken) -> None:
        report(LoadProgress("Starting PyTorch"))
        from bh_studio.engine.loading import load_prepared, prepare_load
        from bh_studio.engine.models.memory import release_memory
        from bh_studio.engine.models.plan import MemoryShortageError, plan_load

        plan = plan_load(request.source, request.device, request.dtype, self._reusable())
        try:
            if not request.load_anyway:
                plan.check_memory()
        except MemoryShortageError as error:
            report(LoadRefused(request, error.message, error.advice, error.needs))
            return
        prepared = prepare_load(plan, request.calibration)
        if cancel.is_cancelled:
            raise Cancelled
        # The old model goes before the new one comes: two may not fit into memory.
        if self._loaded is not None:
            self._unload(report)
        try:
            steps = load_prepared(prepared, cancel)
            while True:
                try:
                    report(next(steps))
                except StopIteration as end:
                    self._loaded = end.value
                    break
        except BaseException as error:
            # The frames that failed hold the half-filled model.
            traceback.clear_frames(error.__traceback__)
            release_memory()
            raise
        report(ModelLoaded(self._loaded.info))

    def _unload(self, report: _Tell) -> None:
        if self._loaded is not None:
            from bh_studio.engine.models.memory import release_memory

            self._loaded = None
            release_memory()
        report(ModelUnloaded())

    def _inspect(self, request: InspectModel, report: _Tell) -> None:
        from bh_studio.engine.models.plan import inspect_model

        report(inspect_model(request, self._reusable()))

    def _reusable(self) -> dict[str, int]:
        from bh_studio.engine.models.memory import bytes_by_device

        return {} if self._loaded is None else bytes_by_device(self._loaded.model)

    def _save_calibration(self, request: SaveCalibration, report: _Tell) -> None:
        if self._loaded is None:
            raise EngineError("No model is loaded.", "Load a model first.")
        from bh_studio.engine.routing.recordings import save_recording

        try:
            save_recording(self._loaded.recording, request.path)
        except OSError as error:
            raise EngineError(
                f"{request.path} could not be written: {error.strerror}.", "Choose another place."
            ) from error
        report(CalibrationSaved(request.path))

    def _run(self, experiment: Experiment, report: _Tell, cancel: CancelToken) -> None:
        if self._loaded is None:
            raise EngineError("No model is loaded.", "Load a model first.")
        from bh_studio.engine.experiments.runner import run

        for event in run(self._loaded, experiment, cancel=cancel):
            report(event)
