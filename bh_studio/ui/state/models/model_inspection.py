"""Keeps asking the engine about the model that is selected, one question at a time. QtCore only."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal, Slot

from bh_studio.engine.protocol.events import Failed, ModelInspected
from bh_studio.engine.protocol.requests import InspectModel
from bh_studio.ui.state.engine_model import EngineModel


class ModelInspection(QObject):
    """The latest question and its answer. A newer question replaces one that was not sent yet.

    answer: None until it is there; a Failed if the engine could not tell.
    """

    changed = Signal()

    def __init__(self, engine: EngineModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._engine = engine
        self._wanted: InspectModel | None = None
        self._sent: InspectModel | None = None
        self.answer: ModelInspected | Failed | None = None
        engine.model_inspected.connect(self._take_answer)
        engine.inspection_failed.connect(self._take_failure)
        engine.jobs.became_idle.connect(self._send)

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is to come."""
        return self._wanted is not None and self.answer is None

    def ask(self, source: str, device: str, dtype: str) -> None:
        """Ask anew, for what is free changes; the question is sent when the engine is idle."""
        self._wanted = InspectModel(source, device, dtype)
        self.answer = None
        self.changed.emit()
        self._send()

    def forget(self) -> None:
        """Ask nothing any more."""
        self._wanted = self.answer = None
        self.changed.emit()

    @Slot()
    def _send(self) -> None:
        if self.is_waiting and self._wanted is not self._sent and self._engine.is_idle:
            self._sent = self._wanted
            assert self._wanted is not None
            self._engine.inspect(self._wanted)

    @Slot(object)
    def _take_answer(self, answer: ModelInspected) -> None:
        if answer.request == self._wanted:
            self._take(answer)

    @Slot(object)
    def _take_failure(self, failure: Failed) -> None:
        if self._sent is self._wanted:
            self._take(failure)

    def _take(self, answer: ModelInspected | Failed) -> None:
        self.answer = answer
        self.changed.emit()
