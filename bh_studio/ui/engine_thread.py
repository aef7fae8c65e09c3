"""The one engine thread: owns the model from start to exit and answers requests with events.

Of Qt it knows only QtCore. torch and transformers are imported in
the engine thread, so a window can be up before they are.
"""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, QThread, Signal, Slot

from bh_studio.engine.errors import Cancelled, CancelToken, EngineError
from bh_studio.engine.protocol.events import (
    CalibrationSaved,
    LoadCancelled,
    LoadProgress,
    LoadRefused,
    ModelLoaded,
    ModelUnloaded,
    failure,
)
from bh_studio.engine.protocol.experiments import RunComparison
from bh_studio.engine.protocol.requests import (
    InspectModel,
    LoadModel,
    Request,
    SaveCalibration,
    UnloadModel,
)

if TYPE_CHECKING:
    from bh_studio.engine.loading import LoadedModel

log = logging.getLogger(__name__)


class Engine(QObject):
    """The engine as the GUI thread sees it: requests in, events out, never a wait.

    reported: every events.Event, delivered in the thread that owns the receiving object.
    """

    reported = Signal(object)
    _submitted = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._thread = QThread()
        self._thread.setObjectName("engine")
        self._worker = _Worker()
        self._worker.moveToThread(self._thread)
        self._submitted.connect(self._worker.handle)
        self._worker.reported.connect(self.reported)
        # Cancelling a request that has ended does nothing.
        self._cancel_tokens: list[CancelToken] = []

    def start(self) -> None:
        """Start the engine thread."""
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Queue `request`; its events follow."""
        self._cancel_tokens.append(request.cancel)
        self._submitted.emit(request)

    def shutdown(self) -> None:
        """Cancel all requests and end the thread; returns when it has ended.

        The wait is at most one step long: a token, the reading of a prompt, a calibration window,
        or the import of torch.
        """
        for token in self._cancel_tokens:
            token.cancel()
        self._thread.quit()
        self._thread.wait()


class _Worker(QObject):
    """Lives in the engine thread; handles one request after the other."""

    reported = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._loaded: LoadedModel | None = None

    @Slot(object)
    def handle(self, request: Request) -> None:
        """Answer `request` with events; nothing it raises leaves this method."""
        run_id = request.run_id if isinstance(request, RunComparison) else None
        try:
            self._answer(request)
        except Cancelled:
            self.reported.emit(LoadCancelled())
        except EngineError as error:
            log.info("A request could not be met: %s", error)
            self.reported.emit(failure(error, run_id))
        except Exception as error:
            log.exception("A request failed")
            self.reported.emit(failure(error, run_id))

    def _answer(self, request: Request) -> None:
        match request:
            case LoadModel():
                self._load(request)
            case UnloadModel():
                self._unload()
            case InspectModel():
                self._inspect(request)
            case SaveCalibration():
                self._save_calibration(request)
            case RunComparison():
                self._run(request)

    def _load(self, request: LoadModel) -> None:
        self.reported.emit(LoadProgress("Starting PyTorch"))
        from bh_studio.engine.loading import load_prepared, prepare_load
        from bh_studio.engine.models.memory import release_memory
        from bh_studio.engine.models.plan import MemoryShortageError, plan_load

        plan = plan_load(request.source, request.device, request.dtype, self._reusable())
        try:
            if not request.load_anyway:
                plan.check_memory()
        except MemoryShortageError as error:
            self.reported.emit(LoadRefused(request, error.message, error.advice, error.needs))
            return
        prepared = prepare_load(plan, request.calibration)
        if request.cancel.is_cancelled:
            raise Cancelled
        # The old model goes before the new one comes: two may not fit into memory.
        if self._loaded is not None:
            self._unload()
        try:
            self._loaded = load_prepared(prepared, self.reported.emit, request.cancel)
        except BaseException as error:
            # The frames that failed hold the half-filled model.
            traceback.clear_frames(error.__traceback__)
            release_memory()
            raise
        self.reported.emit(ModelLoaded(self._loaded.info))

    def _unload(self) -> None:
        if self._loaded is not None:
            from bh_studio.engine.models.memory import release_memory

            self._loaded = None
            release_memory()
        self.reported.emit(ModelUnloaded())

    def _inspect(self, request: InspectModel) -> None:
        from bh_studio.engine.models.plan import inspect_model

        self.reported.emit(inspect_model(request, self._reusable()))

    def _reusable(self) -> dict[str, int]:
        from bh_studio.engine.models.memory import bytes_by_device

        return {} if self._loaded is None else bytes_by_device(self._loaded.model)

    def _save_calibration(self, request: SaveCalibration) -> None:
        if self._loaded is None:
            raise EngineError("No model is loaded.", "Load a model first.")
        from bh_studio.engine.routing.recordings import save_recording

        try:
            save_recording(self._loaded.recording, request.path)
        except OSError as error:
            raise EngineError(
                f"{request.path} could not be written: {error.strerror}.", "Choose another place."
            ) from error
        self.reported.emit(CalibrationSaved(request.path))

    def _run(self, request: RunComparison) -> None:
        if self._loaded is None:
            raise EngineError("No model is loaded.", "Load a model first.")
        from bh_studio.engine.experiments.comparison import compare

        for event in compare(self._loaded, request):
            self.reported.emit(event)
