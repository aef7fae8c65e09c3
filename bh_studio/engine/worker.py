"""The one engine thread: owns the model from start to exit and answers requests with events.

The only engine module that knows Qt, and of Qt only QtCore. torch and transformers are imported in
the engine thread, so a window can be up before they are.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, QThread, Signal, Slot

from bh_studio.engine.errors import Cancelled, EngineError, failure
from bh_studio.engine.messages import (
    CancelToken,
    LoadCancelled,
    LoadModel,
    LoadProgress,
    ModelLoaded,
    Request,
    RunComparison,
)

if TYPE_CHECKING:
    from bh_studio.engine.models import LoadedModel

log = logging.getLogger(__name__)


class Engine(QObject):
    """The engine as the GUI thread sees it: requests in, events out, never a wait.

    reported: every messages.Event, delivered in the thread that owns the receiving object.
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
            if isinstance(request, LoadModel):
                self._load(request)
            else:
                self._run(request)
        except Cancelled:
            self.reported.emit(LoadCancelled())
        except EngineError as error:
            log.info("A request could not be met: %s", error)
            self.reported.emit(failure(error, run_id))
        except Exception as error:
            log.exception("A request failed")
            self.reported.emit(failure(error, run_id))

    def _load(self, request: LoadModel) -> None:
        self.reported.emit(LoadProgress("Starting PyTorch"))
        from bh_studio.engine.models import load_model

        # The old model goes before the new one comes: two may not fit into memory.
        self._loaded = None
        self._loaded = load_model(request.source, self.reported.emit, request.cancel)
        self.reported.emit(ModelLoaded(self._loaded.info))

    def _run(self, request: RunComparison) -> None:
        if self._loaded is None:
            raise EngineError("No model is loaded.", "Load a model first.")
        from bh_studio.engine.comparison import compare

        for event in compare(self._loaded, request):
            self.reported.emit(event)
