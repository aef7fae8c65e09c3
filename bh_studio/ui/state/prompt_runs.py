"""The runs of the prompt on screen, the earlier ones too, to go back to. QtCore only.

One that is kept in a folder is read from there again, so that many of them take no memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PySide6.QtCore import QObject, Signal, Slot

from bh_studio.engine.errors import as_sentence
from bh_studio.engine.protocol.events import Failed, JobCancelled, ResultRead, SessionRead
from bh_studio.engine.protocol.experiments import Comparison, SameText, conversation_of
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import Conversation, GenerationParameters, ModelInfo
from bh_studio.engine.rules.sides import Sides, side_letter
from bh_studio.engine.rules.text import format_rule
from bh_studio.ui.state.file_jobs import FileJobs
from bh_studio.ui.state.session_model import SessionModel

# Runs that lie nowhere are held as they are, which takes megabytes for each.
_MOST_HELD = 5


@dataclass(eq=False, slots=True)
class PromptRun:
    """number: among those of its prompt, from 1. started_at: as its session says it; empty before
    there is one. place: the folder or file it can be read from; None while that is not known.
    saved: the file that it was saved to. session: of one that has ended and lies nowhere."""

    number: int
    model: ModelInfo
    sides: Sides
    generation: GenerationParameters
    started_at: str = ""
    place: Path | None = None
    saved: Path | None = None
    session: Session | None = None

    @property
    def can_come_back(self) -> bool:
        """Whether it can be shown again once another one is on screen."""
        return self.place is not None or self.session is not None

    def is_that_of(self, session: Session) -> bool:
        """Whether `session` is what came of it, as far as that is known."""
        return self.sides == session.sides and self.started_at in ("", session.started_at)


class PromptRuns(QObject):
    """Follows the runs of a session model, and shows one of them in it.

    runs: of one prompt and what preceded it, the oldest first; another prompt begins anew.
    current: the one on screen. chosen: that, or the one that is being read to take its place.
    changed: any of this, or whether another can be shown. shown: another run was put on screen,
    with the file that it was saved to or None. failed: one could not be.
    """

    changed = Signal()
    shown = Signal(object)
    failed = Signal(object)

    def __init__(
        self, session: SessionModel, jobs: FileJobs, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._session = session
        self._jobs = jobs
        self._asked: tuple[str, Conversation | None] | None = None
        self._last = 0
        self.runs: tuple[PromptRun, ...] = ()
        self.current: PromptRun | None = None
        self._awaited: PromptRun | None = None
        session.run_accepted.connect(self._begin)
        session.run_finished.connect(self._finish)
        session.run_lost.connect(self._lose)
        session.session_changed.connect(self._follow)
        session.state_changed.connect(self.changed)

    @property
    def can_change(self) -> bool:
        """Whether another run can be put on screen."""
        return len(self.runs) > 1 and self.chosen is not None and not self._session.is_busy

    @property
    def chosen(self) -> PromptRun | None:
        return self._awaited or self.current

    def show(self, run: PromptRun) -> None:
        """Put `run` on screen as soon as it is read, in place of whatever is being read; not while
        another is in flight."""
        if self._session.is_busy or run is self.chosen:
            return
        self._jobs.give_up_reading()
        if run is self.current:
            return
        if run.session is not None:
            self._show(run, run.session)
        elif run.place is not None:
            self._awaited = run
            self._jobs.read(run.place, partial(self._take_read, run))
            self.changed.emit()

    def step(self, by: int) -> bool:
        """Show the run so many places later, earlier with a negative number; False without one."""
        if self.chosen is None:
            return False
        place = self.runs.index(self.chosen) + by
        if not (self.can_change and 0 <= place < len(self.runs)):
            return False
        self.show(self.runs[place])
        return True

    def note_opened(self, session: Session, place: Path, saved: Path | None) -> None:
        """Take what was opened from a file or folder, and is on screen now."""
        if self._asked != (session.prompt, session.conversation):
            self._start_anew(session.prompt, session.conversation)
        known = (
            run for run in self.runs if place in (run.place, run.saved) and run.is_that_of(session)
        )
        run = next(known, None) or self._append(session.model, session.sides, session.generation)
        run.started_at = session.started_at
        run.place, run.saved, run.session = place, saved, None
        self._set_current(run)

    def note_saved(self, path: Path) -> None:
        """Take where the run on screen was saved; what was saved there before is no more."""
        for other in self.runs:
            if other.saved == path:
                other.saved = None
        if (run := self.current) is not None:
            run.saved = path
            if run.place is None:
                run.place, run.session = path, None

    @Slot(object)
    def _begin(self, asked: Comparison | SameText) -> None:
        if isinstance(asked, SameText):
            self._leave()
            return
        model = self._session.engine.model
        assert model is not None, "a run was accepted without a model"
        conversation = conversation_of(asked, model)
        if self._asked != (asked.prompt, conversation):
            self._start_anew(asked.prompt, conversation)
        self._set_current(self._append(model, asked.sides, asked.generation))

    @Slot(object)
    def _finish(self, session: Session) -> None:
        run = self.current
        if run is None:
            return
        run.started_at, run.place = session.started_at, self._session.folder
        if run.place is None:
            run.session = session
            held = [other for other in self.runs if other.session is not None]
            for other in held[:-_MOST_HELD]:
                self._drop(other)
        self.changed.emit()

    @Slot()
    def _lose(self) -> None:
        # It is still on screen: until another one is, it stays among them.
        if (run := self.current) is not None:
            run.place = self._session.folder
            self.changed.emit()

    @Slot()
    def _follow(self) -> None:
        session = self._session
        if session.sides.same_text is not None:
            self._leave()
        elif session.session is None and not session.is_busy:
            self._forget()

    def _leave(self) -> None:
        """A text is on screen in their place; they are there again with the next run."""
        self._awaited = None
        self._set_current(None)

    def _forget(self) -> None:
        self._asked, self._awaited, self.runs = None, None, ()
        self._set_current(None)

    def _take_read(
        self, run: PromptRun, event: SessionRead | ResultRead | Failed | JobCancelled
    ) -> None:
        self._awaited = None
        if isinstance(event, JobCancelled) or self._session.is_busy or run not in self.runs:
            self.changed.emit()
        elif isinstance(event, SessionRead) and run.is_that_of(event.session):
            self._show(run, event.session)
        elif isinstance(event, Failed):
            self._refuse(run, event)
        else:
            message = f"Run {run.number} of this prompt could not be shown."
            self._refuse(run, Failed(message, "Its file holds something else now.", ""))

    def _show(self, run: PromptRun, session: Session) -> None:
        try:
            self._session.show_session(session)
        except (ValueError, TypeError, OverflowError) as error:
            message = f"Run {run.number} of this prompt could not be shown."
            self._refuse(run, Failed(message, f"{as_sentence(error)} Nothing was changed.", ""))
            return
        self._set_current(run)
        self.shown.emit(run.saved)

    def _refuse(self, run: PromptRun, failure: Failed) -> None:
        self._drop(run)
        self.changed.emit()
        self.failed.emit(failure)

    def _start_anew(self, prompt: str, conversation: Conversation | None) -> None:
        self._asked, self._last = (prompt, conversation), 0
        self._awaited, self.runs = None, ()

    def _append(
        self, model: ModelInfo, sides: Sides, generation: GenerationParameters
    ) -> PromptRun:
        self._last += 1
        run = PromptRun(self._last, model, tuple(sides), generation)
        self.runs += (run,)
        return run

    def _drop(self, run: PromptRun) -> None:
        self.runs = tuple(other for other in self.runs if other is not run)

    def _set_current(self, run: PromptRun | None) -> None:
        former, self.current = self.current, run
        if former is not None and former is not run and not former.can_come_back:
            self._drop(former)
        self.changed.emit()


def run_names(runs: Sequence[PromptRun]) -> list[str]:
    """What to call each of `runs`: its number, its rules, and of its other settings and its model
    those in which they differ."""
    settings = [_setting_words(run) for run in runs]
    differ = {
        name for words in settings for name in words if len({w.get(name) for w in settings}) > 1
    }
    return [
        " · ".join((_rule_words(run), *(word for name, word in words.items() if name in differ)))
        for run, words in zip(runs, settings, strict=True)
    ]


def run_meaning(run: PromptRun) -> str:
    """All settings of `run` and its model, a line each."""
    lines = [
        f"{side_letter(side)}: {'own routing' if rule is None else format_rule(rule)}"
        for side, rule in enumerate(run.sides)
    ]
    lines.append(", ".join(_setting_words(run).values()))
    if run.saved is not None:
        lines.append(f"Saved to {run.saved}")
    return "\n".join(lines)


def _rule_words(run: PromptRun) -> str:
    rules = [format_rule(rule) for rule in run.sides if rule is not None]
    return f"#{run.number} {', '.join(rules) or 'own'}"


def _setting_words(run: PromptRun) -> dict[str, str]:
    generation = run.generation
    words = {"model": run.model.name, "tokens": f"{generation.max_new_tokens} tokens"}
    if not generation.sampling:
        return words | {"decoding": "greedy"}
    return words | {
        "decoding": f"temperature {generation.temperature:g}",
        "top_p": f"top-p {generation.top_p:g}",
        "seed": f"seed {generation.seed}",
    }
