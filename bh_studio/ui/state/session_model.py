"""What is on screen: the run or the session that all panels show. QtCore only.

Knows no widget, no file and no thread. Panels observe the run models of its sides.
"""

from __future__ import annotations

import logging
from enum import Enum, auto
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import structs
from PySide6.QtCore import QObject, Signal, Slot

from bh_studio.engine.protocol.events import (
    Event,
    Failed,
    Finished,
    JobCancelled,
    KeptIn,
    Notice,
    Progress,
    PromptRead,
    RunBegan,
    SideFinished,
    TokenGenerated,
    Waiting,
)
from bh_studio.engine.protocol.experiments import Comparison, SameText, conversation_of
from bh_studio.engine.protocol.requests import Body, LoadModel, RunKept
from bh_studio.engine.protocol.texts import Text
from bh_studio.engine.records.same_text.result import SameTextResult
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import Conversation, GenerationParameters, ModelInfo
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.sides import Sides
from bh_studio.ui.state.engine_model import EngineModel
from bh_studio.ui.state.run_sides import RunSides, check_session, check_text
from bh_studio.ui.state.selection import Selection
from bh_studio.ui.state.words import misfit_words

if TYPE_CHECKING:
    from bh_studio.engine.records.journal import Journal

_log = logging.getLogger(__name__)


class RunState(Enum):
    """What becomes of the run that was asked for, as far as the engine has confirmed it.

    WAITING: something else comes first, such as the load of the model.
    """

    IDLE = auto()
    WAITING = auto()
    RUNNING = auto()
    CANCELLING = auto()


class SessionModel(QObject):
    """Owns the state of the run, its sides, what is selected in them, and the current session.

    document: the whole of what all sides made of a text, as its file has it; None where each writes
    one, or none has read it yet. run_accepted: the engine has taken the prompt or the text, from
    then on the run is on screen. text_read: all sides have read the text, or those that were not
    stopped before. run_lost: it has ended without a session. run_broken_off: so it has, but what it
    had said is in this folder. folder: that keeps the newest run; None if none does.
    """

    state_changed = Signal(object)
    content_changed = Signal()
    session_changed = Signal()
    run_accepted = Signal(object)
    run_finished = Signal(object)
    text_read = Signal()
    run_lost = Signal()
    run_broken_off = Signal(object)
    failed = Signal(object)

    def __init__(self, engine: EngineModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.engine = engine
        self._jobs = engine.jobs
        self.state = RunState.IDLE
        self.session: Session | None = None
        self.document: dict[str, Any] | None = None
        self.sides = RunSides(self)
        self.sides.changed.connect(self.content_changed)
        self.selection = Selection(self)
        # The run in flight and its job, and whether the engine has accepted its prompt.
        self._run: Comparison | SameText | None = None
        self._journal: Journal | None = None
        self._job = 0
        self._is_accepted = False
        self.folder: Path | None = None
        # What the answers on screen are to: prompt, what precedes it, and the model.
        self._answered: tuple[object, ...] = ()
        # What a run that waits stands behind: the load of its model, or another job.
        self._load: LoadModel | None = None
        self._behind = 0
        engine.state_changed.connect(self._follow_load)

    # --- what the user asks for ---

    @property
    def is_busy(self) -> bool:
        """Whether a run is in flight."""
        return self.state is not RunState.IDLE

    @property
    def is_reading(self) -> bool:
        """Whether that run is of a text that all sides read."""
        return isinstance(self._run, SameText)

    @property
    def can_stop(self) -> bool:
        """Whether a run is in flight that was not asked to stop yet."""
        return self.state in (RunState.WAITING, RunState.RUNNING)

    @property
    def awaited(self) -> Body | None:
        """What has to end, or to give way, before the run begins; None if it does not wait."""
        if self.state is not RunState.WAITING:
            return None
        return self._load or self._jobs.body_of(self._behind)

    def run(
        self,
        prompt: str,
        sides: tuple[RuleParameters | None, ...],
        generation: GenerationParameters,
        conversation: Conversation | None = None,
    ) -> None:
        """Answer `prompt` with all sides, as soon as the model that is loading is there.

        Ignored where there is no such model, and while a run is in flight.
        conversation: what precedes it; None continues it as plain text.
        """
        if self._can_ask:
            self._ask(
                Comparison(
                    prompt=prompt, sides=sides, generation=generation, conversation=conversation
                )
            )

    def read(self, text: Text, sides: tuple[RuleParameters | None, ...]) -> None:
        """Have all sides read `text`, where a run could begin; nothing is generated."""
        if self._can_ask:
            self._ask(SameText(text=text, sides=sides))

    def take_as_message(self, conversation: Conversation) -> None:
        """Let a run that was asked for as plain text be a message behind `conversation`.

        Only while its prompt is not accepted: before its model was there, nobody knew that it can
        chat. It ends where other sides have answered the turns.
        """
        run = self._run
        if isinstance(run, Comparison) and not self._is_accepted and run.conversation is None:
            if words := misfit_words(conversation.turns, len(run.sides)):
                self._withdraw()
                self.failed.emit(Failed("The message was not sent.", words, ""))
                return
            self._run = None
            self._jobs.cancel(self._job)
            self._ask(structs.replace(run, conversation=conversation))

    @Slot()
    def stop(self) -> None:
        """Ask for the end of the run; the engine's answer makes it final.

        A run that waits leaves no trace, so it has ended for whoever looks on.
        """
        if self.state is RunState.WAITING:
            self._withdraw()
        elif self.can_stop:
            # First, for what has not begun may end within the call.
            self._set_state(RunState.CANCELLING)
            self._jobs.cancel(self._job)

    def show_session(self, session: Session) -> None:
        """Show a finished session in place of what is on screen; not while a run is in flight.

        Raises ValueError, TypeError or OverflowError for what cannot be shown; nothing has
        changed then.
        """
        if self.is_busy:
            raise RuntimeError("A run is in flight.")
        check_session(session)
        self._begin_sides(
            session.prompt, session.sides, session.generation, session.model, session.conversation
        )
        self.sides.replace(session)
        self._set_session(session)

    def show_text(self, result: SameTextResult, document: dict[str, Any]) -> None:
        """Show what sides made of a text in place of what is on screen; not while a run is in
        flight. document: the whole of it.

        Raises ValueError, TypeError or OverflowError for what cannot be shown; nothing has
        changed then.
        """
        if self.is_busy:
            raise RuntimeError("A run is in flight.")
        check_text(result)
        self._keep_place((result.text_sha256, result.model.fingerprint), len(result.sides))
        self.sides.show_text(result)
        self._set_session(None, document)

    def clear(self) -> None:
        """Forget what is on screen; ignored while a run is in flight."""
        if self.is_busy:
            return
        self._answered = ()
        self.selection.clear()
        self.sides.reset()
        self._set_session(None)

    # --- what the engine reports ---

    @property
    def _can_ask(self) -> bool:
        return self._jobs.has_engine and self.engine.will_answer and not self.is_busy

    def _ask(self, run: Comparison | SameText) -> None:
        # What is on screen stays until the engine takes the prompt: it may refuse it.
        self._run, self._is_accepted, self.folder = run, False, None
        self._load, self._behind = self.engine.loading, 0
        # Before it is asked for, since the answer may come before the number of the job.
        self._set_state(RunState.RUNNING if self._load is None else RunState.WAITING)
        body: Body = run
        if isinstance(run, SameText):
            # Not at the top: the window's first frame reads no text.
            from bh_studio.engine.records.journal import Journal

            # Kept nowhere; its header says how the rows of a file are made.
            self._journal = Journal(None)
            body = RunKept(run, self._journal)
        self._job = self._jobs.ask(body, partial(self._apply, run))

    @Slot()
    def _follow_load(self) -> None:
        """A run that waits for a model goes on when it is there, and ends quietly with its load."""
        load, engine = self._load, self.engine
        if load is None or (engine.loading is load and engine.can_cancel_load):
            return
        if engine.loaded is load:
            self._load = None
            self._set_state(RunState.RUNNING)
        else:
            self._withdraw()

    def _withdraw(self) -> None:
        """Forget a run that has not begun; what the engine still says of it is about nothing."""
        self._run = None
        self._jobs.cancel(self._job)
        self._end()

    def _apply(self, run: Comparison | SameText, event: Event) -> None:
        if run is not self._run:
            return
        match event:
            case Waiting(behind) if self._load is None and self._jobs.body_of(behind) is not None:
                self._behind = behind
                self._set_state(RunState.WAITING)
            case Progress():
                self._accept(run)
            case KeptIn(folder):
                self.folder = folder
            case Notice(text):
                _log.info("%s", text)
                self.sides.notice(text)
            case RunBegan(header):
                self.sides.take_prompts(header.prompt_token_ids)
            case PromptRead():
                self.sides.read_prompt(event)
            case TokenGenerated():
                self.sides.append(event)
            case SideFinished():
                self.sides.finish(event)
            case Finished(SameTextResult() as result):
                from bh_studio.engine.records.result_document import result_document

                assert self._journal is not None, "a text was read that nobody asked for"
                self.sides.show_text(result, self.sides.notices)
                self._end()
                self._set_session(None, result_document(self._journal, result))
                self.text_read.emit()
            case Finished(session):
                self.sides.replace(session)
                self._end()
                self._set_session(session)
                self.run_finished.emit(session)
            case JobCancelled():
                if isinstance(run, SameText) and self._is_accepted:
                    self.sides.stop()
                self._lose()
            case Failed():
                self._lose()
                _log.info("Failed: %s", event.message)
                self.failed.emit(event)
                if self.folder is not None:
                    self.run_broken_off.emit(self.folder)

    def _accept(self, run: Comparison | SameText) -> None:
        """The first step of a run says that its prompt was accepted."""
        model = self.engine.model
        if self._is_accepted or model is None:
            return
        self._is_accepted = True
        if self.state is RunState.WAITING:
            self._set_state(RunState.RUNNING)
        if isinstance(run, SameText):
            self._keep_place((run.text.sha256, model.fingerprint), len(run.sides))
            self.sides.begin_text(run, model)
        else:
            precedes = conversation_of(run, model)
            self._begin_sides(run.prompt, run.sides, run.generation, model, precedes)
        self._set_session(None)
        self.run_accepted.emit(run)

    def _begin_sides(
        self,
        prompt: str,
        sides: Sides,
        generation: GenerationParameters,
        model: ModelInfo,
        precedes: Conversation | None,
    ) -> None:
        self._keep_place((prompt, precedes, model.fingerprint), len(sides))
        self.sides.begin(prompt, sides, generation, model, precedes)

    def _keep_place(self, answered: tuple[object, ...], sides: int) -> None:
        """Who has changed a rule and runs the same again, or goes back to a run of the same, goes
        on looking at the same token; else at nothing."""
        former, self._answered = self._answered, answered
        place = self.selection.place
        if self._answered != former or (place is not None and place.side >= sides):
            self.selection.clear()

    def _lose(self) -> None:
        """A run has ended without a session; one that was never accepted leaves no trace."""
        is_accepted = self._is_accepted
        if is_accepted:
            self.sides.fail()
        self._end()
        if is_accepted:
            self.run_lost.emit()

    def _end(self) -> None:
        self._run = self._load = None
        self._set_state(RunState.IDLE)

    def _set_state(self, state: RunState) -> None:
        self.state = state
        self.state_changed.emit(state)

    def _set_session(self, session: Session | None, document: dict[str, Any] | None = None) -> None:
        self.session, self.document = session, document
        self.session_changed.emit()
