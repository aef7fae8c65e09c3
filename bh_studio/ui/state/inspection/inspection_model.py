"""What the rule of a side did at the selected token, and would do at another level. QtCore only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from PySide6.QtCore import QObject, QTimer, Signal, Slot

from bh_studio.engine.protocol.events import Event, Failed, SideReplayed, TokenInspected
from bh_studio.engine.protocol.requests import InspectToken, ReplaySide
from bh_studio.engine.records.decisions.token_inspection import InspectedToken
from bh_studio.engine.rules import RuleParameters
from bh_studio.ui.state.engine_model import EngineModel
from bh_studio.ui.state.run_model import RunModel
from bh_studio.ui.state.run_sides import RunSides
from bh_studio.ui.state.selection import Selection

REST_MS = 120
_NO_LOGITS = (
    "Of a text that was read no router logits are kept in its file, nor of a very long one. Read "
    "it again, or a part of it, to see what a rule does in each layer."
)


class _Subject(NamedTuple):
    """What is asked about. absence: why the side has no such token, a sentence; empty if it has."""

    side: int
    epoch: int
    rule: RuleParameters | None
    token: int
    absence: str


class InspectionModel(QObject):
    """Follows the selection while somebody watches, and asks for one thing at a time: what is
    selected meanwhile is asked for next, and nothing that was selected in between.

    changed: something below is another. token: what the side's rule did; None while that is not
    known. problem: why it cannot be known, a sentence. level: what is tried in place of the rule's;
    None for nothing. what_if: the same token at such a level, maybe the one that was tried before.
    run_mean: experts a token and layer at the tried level over the whole answer, None while that is
    not known. what_if_problem: why a level cannot be tried, a sentence.
    """

    changed = Signal()

    def __init__(
        self,
        engine: EngineModel,
        sides: RunSides,
        selection: Selection,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._engine = engine
        self._sides = sides
        self._selection = selection
        self.token: InspectedToken | None = None
        self.problem = ""
        self.level: float | None = None
        self.what_if: InspectedToken | None = None
        self.what_if_problem = ""
        self.run_mean: float | None = None
        self._subject: _Subject | None = None
        self._is_watched = self._is_asked = self._is_overtaken = False
        self._wants_token = self._wants_what_if = self._wants_run = False
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MS)
        self._rest.timeout.connect(self._want_run)
        selection.changed.connect(self._follow)
        sides.changed.connect(self._follow)
        engine.jobs.attached.connect(self._begin_anew)
        engine.model_changed.connect(self._take_model)

    def watch(self, is_watched: bool) -> None:
        """Ask from now on, or no more."""
        self._is_watched = is_watched
        self._follow()

    @property
    def run(self) -> RunModel | None:
        """The side that is looked at."""
        subject, runs = self._subject, self._sides.runs
        # The sides may have become fewer while nobody watches.
        return runs[subject.side] if subject is not None and subject.side < len(runs) else None

    @property
    def rule(self) -> RuleParameters | None:
        """The rule of that side; None for the model's own routing, and without a side."""
        return None if self._subject is None else self._subject.rule

    @property
    def has_vocabulary(self) -> bool:
        """Whether the model of the run is loaded, so that the text of any token is known."""
        loaded, runs = self._engine.model, self._sides.runs
        about = runs[0].about if runs else None
        return bool(loaded and about and loaded.fingerprint == about.model.fingerprint)

    def texts(self) -> Callable[[int], str | None]:
        """What gives the text of a token id: of any where there is a vocabulary, else of one that a
        side has said."""
        if self.has_vocabulary:
            return self._of_vocabulary
        said: dict[int, str] = {}
        for run in self._sides.runs:
            for token_id, text in zip(run.token_ids, run.token_texts, strict=True):
                said.setdefault(token_id, text)
        return said.get

    def _of_vocabulary(self, token_id: int) -> str | None:
        vocabulary = self._engine.vocabulary
        return vocabulary[token_id] if 0 <= token_id < len(vocabulary) else None

    @property
    def is_waiting(self) -> bool:
        """Whether what was done at the selected token is on its way."""
        return self._subject is not None and self.token is None and not self.problem

    @property
    def layer(self) -> int:
        """The layer that is looked at."""
        place = self._selection.place
        layer = 0 if place is None or place.layer is None else place.layer
        return min(layer, max(0, len(self.token.layers) - 1)) if self.token else layer

    @property
    def tried_rule(self) -> RuleParameters | None:
        """The side's rule at the tried level."""
        if self.level is None or self.rule is None:
            return None
        return dataclasses.replace(self.rule, level=self.level)

    def try_level(self, level: float) -> None:
        """Say what the rule would do at `level`; at its own that is known already.

        Ignored where there is not one level to change.
        """
        rule = self.rule
        if rule is None or isinstance(rule.level, tuple):
            return
        tried = None if level == rule.level else level
        if tried == self.level:
            return
        former = self.what_if
        self._drop_level()
        if tried is not None:
            # What was found at the level before stays until this one is known.
            self.level, self.what_if = tried, former
            self._wants_what_if = True
            self._rest.start()
        self.changed.emit()
        self._go_on()

    # --- what it waits for ---

    def _forget(self) -> None:
        self.token = None
        self.problem = ""
        self._wants_token = False
        self._drop_level()

    def _drop_level(self) -> None:
        self._rest.stop()
        self.level = self.what_if = self.run_mean = None
        self.what_if_problem = ""
        self._wants_what_if = self._wants_run = False

    @Slot()
    def _begin_anew(self) -> None:
        self._is_asked = self._is_overtaken = False
        self._go_on()

    @Slot()
    def _take_model(self) -> None:
        # What is on its way was asked without it.
        self._is_overtaken = self._is_asked
        self._want_again()
        self.changed.emit()
        self._go_on()

    def _want_again(self) -> None:
        """Ask for what the engine could not tell."""
        if self._subject is None or self._subject.absence:
            return
        if self.problem:
            self.problem, self._wants_token = "", True
        if self.what_if_problem:
            self.what_if_problem, self._wants_what_if = "", True

    @Slot()
    def _want_run(self) -> None:
        self._wants_run = True
        self._go_on()

    @Slot()
    def _follow(self) -> None:
        if not self._is_watched:
            return
        former, self._subject = self._subject, self._find_subject()
        if self._subject != former:
            before = self.token, self.problem, self.level, self.what_if
            self._take_subject(former)
            if (self.token, self.problem, self.level, self.what_if) != before:
                self.changed.emit()
        self._go_on()

    def _find_subject(self) -> _Subject | None:
        place = self._selection.place
        if place is None or not 0 <= place.side < len(self._sides.runs):
            return None
        run = self._sides.runs[place.side]
        if run.about is None:
            return None
        absence = _absence(run, place.token)
        return _Subject(place.side, run.epoch, run.about.rule, place.token, absence)

    def _take_subject(self, former: _Subject | None) -> None:
        subject = self._subject
        if subject is None or former is None or subject[:3] != former[:3]:
            self._forget()
        self.problem = "" if subject is None else subject.absence
        self._wants_token = subject is not None and not subject.absence
        self._wants_what_if = self._wants_token and self.level is not None
        if self.problem:
            self.token = self.what_if = None

    # --- what it asks ---

    def _go_on(self) -> None:
        jobs, subject = self._engine.jobs, self._subject
        if self._is_asked or not self._is_watched or subject is None or not jobs.has_engine:
            return
        run = self._sides.runs[subject.side]
        if run.about is None:
            return
        model = run.about.model
        calibration = self._engine.calibration_of(model)
        body: InspectToken | ReplaySide
        take: Callable[[Event], None]
        if self._wants_token or self._wants_what_if:
            if self._wants_token:
                self._wants_token, rule, take = False, subject.rule, self._take_token
            else:
                self._wants_what_if, rule, take = False, self.tried_rule, self._take_what_if
            position = run.position(subject.token)
            body = InspectToken(model, run.router_logits, position, rule, calibration)
        elif self._wants_run and run.record is not None and self.level is not None:
            self._wants_run = False
            body = ReplaySide(model, run.record, self.tried_rule, calibration)
            take = partial(self._take_run, self.level)
        else:
            return
        self._is_asked = True
        jobs.ask(body, partial(self._take, subject, take))

    def _take(self, subject: _Subject, take: Callable[[Event], None], event: Event) -> None:
        is_overtaken, self._is_asked, self._is_overtaken = self._is_overtaken, False, False
        if subject == self._subject:
            take(event)
            if is_overtaken:
                self._want_again()
            self.changed.emit()
        self._go_on()

    def _take_token(self, event: Event) -> None:
        match event:
            case TokenInspected(token):
                self.token = token
            case Failed():
                self._forget()
                self.problem = f"{event.message} {event.advice}".strip()

    def _take_what_if(self, event: Event) -> None:
        if self.level is None:
            return
        match event:
            case TokenInspected(token):
                self.what_if, self.what_if_problem = token, ""
            case Failed():
                self.what_if = None
                self.what_if_problem = f"{event.message} {event.advice}".strip()

    def _take_run(self, level: float, event: Event) -> None:
        if level == self.level and isinstance(event, SideReplayed):
            self.run_mean = event.replayed.answer.mean


def _absence(run: RunModel, token: int) -> str:
    """Why a side has no such token, or nothing to say of it, a sentence; empty if it has."""
    if run.reading is not None and run.router_logits is None:
        return _NO_LOGITS
    if -len(run.prompt_counts) <= token < run.token_count:
        return ""
    number = run.first_number + token
    if run.is_running and (token >= 0 or run.prompt_tokens is None):
        what = f"comes to token {number}" if token >= 0 else "has read its prompt"
        return f"Waiting until side {run.name} {what}."
    if token >= 0:
        return f"Side {run.name} has no token {number}; it has said {run.token_count}."
    return f"The prompt of side {run.name} has only {len(run.prompt_counts)} positions before that."
