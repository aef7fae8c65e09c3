"""The state of the window and the only place where the engine's events are applied.

QtCore only: knows no widget, no file and no thread. Panels observe its two run models.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum, auto

from PySide6.QtCore import QObject, Signal, Slot

from bh_studio.engine.messages import (
    CancelToken,
    Event,
    Failed,
    GenerationParameters,
    LoadCancelled,
    LoadModel,
    LoadProgress,
    ModelInfo,
    ModelLoaded,
    Request,
    RunComparison,
    RunFinished,
    RunStarted,
    Side,
    SideFinished,
    TokenGenerated,
)
from bh_studio.engine.rule_parameters import Mode, RuleParameters
from bh_studio.engine.session import Session
from bh_studio.ui.expert_scale import ExpertScale
from bh_studio.ui.run_model import RunModel

_log = logging.getLogger(__name__)

ANALYZE_NOTE = (
    "Analyze mode: this text was made with the baseline's routing. "
    "The counts are what BH would have used."
)


class State(Enum):
    """What the engine is doing, as far as it has confirmed it."""

    NO_MODEL = auto()
    LOADING = auto()
    READY = auto()
    RUNNING = auto()
    CANCELLING = auto()


class SessionModel(QObject):
    """Owns the state, the loaded model's description, both runs and the current session."""

    state_changed = Signal(object)
    load_progressed = Signal(object)
    model_changed = Signal()
    content_changed = Signal()
    session_changed = Signal()
    run_finished = Signal(object)
    failed = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.state = State.NO_MODEL
        self.model: ModelInfo | None = None
        self.session: Session | None = None
        self.baseline = RunModel("Baseline", self)
        self.bh = RunModel("BH", self)
        self.baseline.changed.connect(self.content_changed)
        self.bh.changed.connect(self.content_changed)
        self.run_mode = Mode.PATCH
        self.first_difference: int | None = None
        self.compared_tokens = 0
        self._submit: Callable[[Request], None] | None = None
        self._cancel: CancelToken | None = None
        self._run_id = 0
        # The run that was asked for, until the engine has accepted its prompt.
        self._awaited: RunComparison | None = None

    # --- what the user asks for ---

    def attach(self, submit: Callable[[Request], None] | None) -> None:
        """Send requests to `submit` from now on; None takes the engine away."""
        self._submit = submit

    @property
    def is_busy(self) -> bool:
        """Whether a run is in flight."""
        return self.state in (State.RUNNING, State.CANCELLING)

    @property
    def can_stop(self) -> bool:
        """Whether there is work in flight that was not asked to stop yet."""
        working = self.state in (State.LOADING, State.RUNNING)
        return working and self._cancel is not None and not self._cancel.is_cancelled

    def load(self, source: str) -> None:
        """Load a model in place of the one there is."""
        if self._submit is None or self.is_busy or self.state is State.LOADING:
            return
        self.model = None
        request = LoadModel(source)
        self._cancel = request.cancel
        self._set_state(State.LOADING)
        self.model_changed.emit()
        self._submit(request)

    def run(self, prompt: str, rule: RuleParameters, generation: GenerationParameters) -> None:
        """Answer `prompt` with both sides; ignored unless the state is ready."""
        if self._submit is None or self.state is not State.READY or self.model is None:
            return
        self._run_id += 1
        request = RunComparison(self._run_id, prompt, rule, generation)
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
        _check(session)
        self._begin(session.prompt, session.rule, session.generation, session.model)
        self.baseline.replace(session.sides[Side.BASELINE])
        self.bh.replace(session.sides[Side.BH])
        self._compare_tokens()
        self._set_session(session)

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
                    self.load_progressed.emit(event)
            case ModelLoaded(model):
                self.model = model
                self._cancel = None
                self._set_state(State.READY)
                self.model_changed.emit()
            case LoadCancelled():
                self._cancel = None
                self._set_state(State.NO_MODEL)
            case Failed():
                self._apply_failure(event)

    def _apply_to_run(
        self, event: TokenGenerated | SideFinished | RunStarted | RunFinished
    ) -> None:
        awaited = self._awaited
        if awaited is not None and self.model is not None:
            self._awaited = None
            self._begin(awaited.prompt, awaited.rule, awaited.generation, self.model)
            self._set_session(None)
        match event:
            case TokenGenerated():
                self._side(event.side).append(event)
                self._compare_tokens()
            case SideFinished():
                self._side(event.side).finish(event)
            case RunFinished(_, session):
                self.baseline.replace(session.sides[Side.BASELINE])
                self.bh.replace(session.sides[Side.BH])
                self._compare_tokens()
                self._end_run()
                self._set_session(session)
                self.run_finished.emit(session)

    def _apply_failure(self, failure: Failed) -> None:
        if failure.run_id is None:
            if self.state is State.LOADING:
                self._cancel = None
                self._set_state(State.NO_MODEL)
        elif failure.run_id == self._run_id and self.is_busy:
            if self._awaited is None:
                self.baseline.fail()
                self.bh.fail()
            self._end_run()
        else:
            _log.warning("Dropped the failure of an earlier run: %s", failure.message)
            return
        # The engine has logged the details where they arose.
        _log.info("Failed: %s", failure.message)
        self.failed.emit(failure)

    def _begin(
        self,
        prompt: str,
        rule: RuleParameters,
        generation: GenerationParameters,
        model: ModelInfo,
    ) -> None:
        self.run_mode = rule.mode
        self.first_difference = None
        self.compared_tokens = 0
        scale = ExpertScale.spanning(rule.min_k, rule.max_k, model.top_k)
        for run in (self.baseline, self.bh):
            is_bh = run is self.bh
            run.begin(
                prompt=prompt,
                layers=model.layers,
                top_k=model.top_k,
                scale=scale,
                most_tokens=generation.max_new_tokens,
                routing=describe_rule(rule, model) if is_bh else describe_top_k(model),
                note=ANALYZE_NOTE if is_bh and rule.mode is Mode.ANALYZE else "",
            )

    def _compare_tokens(self) -> None:
        left, right = self.baseline.token_ids, self.bh.token_ids
        both = min(len(left), len(right))
        while self.first_difference is None and self.compared_tokens < both:
            if left[self.compared_tokens] != right[self.compared_tokens]:
                self.first_difference = self.compared_tokens
            self.compared_tokens += 1

    def _end_run(self) -> None:
        self._cancel = None
        self._awaited = None
        self._set_state(State.READY)

    def _side(self, side: Side) -> RunModel:
        return self.baseline if side is Side.BASELINE else self.bh

    def _set_state(self, state: State) -> None:
        self.state = state
        self.state_changed.emit(state)

    def _set_session(self, session: Session | None) -> None:
        self.session = session
        self.session_changed.emit()


def _check(session: Session) -> None:
    """Raise for a session whose numbers cannot be shown."""
    ExpertScale.spanning(session.rule.min_k, session.rule.max_k, session.model.top_k)
    describe_rule(session.rule, session.model)
    # Whole numbers too large for a float have no box that shows them.
    if isinstance(session.rule.level, tuple):
        raise ValueError("Its rule has a level for each layer, which this window cannot show.")
    for number in (session.rule.level, session.rule.temperature, session.generation.temperature):
        float(number)
    for side in Side:
        record = session.sides[side]
        shape = (len(record.token_ids), session.model.layers)
        if record.expert_counts.shape != shape or record.raw_counts.shape != shape:
            raise ValueError(f"The counts of {side.value} are not those of its tokens and layers.")
        trial = RunModel(side.value)
        trial.replace(record)
        _ = trial.statistics, trial.tokens_per_second, trial.time_to_first_token_s


def describe_top_k(model: ModelInfo) -> str:
    """The baseline's routing in a few words."""
    return f"top-{model.top_k} of {model.experts} in every layer"


def describe_rule(rule: RuleParameters, model: ModelInfo) -> str:
    """BH routing in a few words."""
    if rule.min_k == rule.max_k:
        limits = f"always {rule.min_k}"
    else:
        limits = f"{rule.min_k} to {rule.max_k}"
    return f"{rule.level_text}, {limits} of {model.experts} in each layer"
