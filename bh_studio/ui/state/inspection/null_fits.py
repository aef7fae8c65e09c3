"""How well the nulls of rules fit, for charts that show it. QtCore only."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import QObject, QTimer, Signal, Slot

from bh_studio.engine.protocol.events import Event, Failed, SessionNullJudged
from bh_studio.engine.protocol.requests import JudgeSessionNull
from bh_studio.engine.records.diagnostics import NullFit
from bh_studio.engine.records.terms import ModelInfo
from bh_studio.engine.rules import RuleParameters
from bh_studio.ui.state.engine_model import EngineModel

_WAITING = "The null is being judged…"

# A null by the model's fingerprint and its hash, and the rule that tests with it.
_Key = tuple[str, str, RuleParameters]


class NullFits(QObject):
    """Asks about a null when somebody first wants to see it, about one at a time, and keeps what it
    is told. What could not be known is asked anew when another model is there.

    changed: more is known now, or something is to be asked anew.
    """

    changed = Signal()

    def __init__(self, engine: EngineModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._engine = engine
        self._known: dict[_Key, NullFit | str] = {}
        self._wanted: dict[_Key, ModelInfo] = {}
        self._asked: _Key | None = None
        self._is_overtaken = False
        # What is wanted while something is drawn is asked for afterwards.
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(0)
        self._soon.timeout.connect(self._go_on)
        engine.jobs.attached.connect(self._begin_anew)
        engine.model_changed.connect(self._take_model)

    def of(self, model: ModelInfo, rule: RuleParameters) -> NullFit | str:
        """How well the null of `rule`, which tests, fits in a session with `model`; a sentence if
        that is on its way, or why it cannot be known."""
        key = model.fingerprint, model.null_sha256, rule
        if key not in self._known and key != self._asked:
            self._wanted[key] = model
            self._soon.start()
        return self._known.get(key, _WAITING)

    @Slot()
    def _begin_anew(self) -> None:
        self._asked, self._is_overtaken = None, False
        self._forget_problems()

    @Slot()
    def _take_model(self) -> None:
        # What is on its way was asked without it.
        self._is_overtaken = self._asked is not None
        self._forget_problems()

    def _forget_problems(self) -> None:
        self._known = {key: fit for key, fit in self._known.items() if isinstance(fit, NullFit)}
        self.changed.emit()

    @Slot()
    def _go_on(self) -> None:
        jobs = self._engine.jobs
        if self._asked is not None or not self._wanted or not jobs.has_engine:
            return
        key = next(iter(self._wanted))
        model = self._wanted.pop(key)
        self._asked = key
        body = JudgeSessionNull(model, key[-1], self._engine.calibration_of(model))
        jobs.ask(body, partial(self._take, key, model))

    def _take(self, key: _Key, model: ModelInfo, event: Event) -> None:
        is_overtaken, self._asked, self._is_overtaken = self._is_overtaken, None, False
        match event:
            case SessionNullJudged(fit):
                self._known[key] = fit
                self.changed.emit()
            case Failed() if is_overtaken:
                self._wanted[key] = model
            case Failed():
                self._known[key] = f"{event.message} {event.advice}".strip()
                self.changed.emit()
        self._go_on()
