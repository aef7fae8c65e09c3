"""The sides of a run, and where their texts part. QtCore only: knows no engine and no state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from PySide6.QtCore import QObject, Signal

from bh_studio.engine.protocol.events import PromptRead, SideFinished, TokenGenerated
from bh_studio.engine.protocol.experiments import SameText
from bh_studio.engine.records.decisions.drift import DriftWords, drift_words
from bh_studio.engine.records.same_text.result import SameTextResult
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import Conversation, GenerationParameters, ModelInfo
from bh_studio.engine.rules import Mode, RuleParameters, rule_title
from bh_studio.engine.rules.sides import MOST_SIDES, side_letter
from bh_studio.ui.state.expert_scale import ExpertScale
from bh_studio.ui.state.run_model import RunModel, RunSide
from bh_studio.ui.state.transcript import Passage, Voice, passages
from bh_studio.ui.state.words import describe_rule, describe_top_k, listed

ANALYZE_NOTE = (
    "Analyze mode: this text was made with the model's own routing. "
    "The counts are what {} would have used."
)
READING_NOTE = (
    "Analyze mode: this side has read with the model's own routing. "
    "The counts are what {} would have used."
)
_MOST_COUNTED, _MOST_RANKED = 2**8 - 1, 2**31 - 1


@dataclass(frozen=True, slots=True)
class Parting:
    """How far a side says what the first side says.

    token: the first in which they differ; None if none does so far. compared: tokens that both
    have, up to that one.
    """

    token: int | None = None
    compared: int = 0


class RunSides(QObject):
    """Keeps the models of all sides in step.

    all_runs: one for each side that there can be. runs: of the sides on screen; none before the
    first run. partings: of each side from the first, which never parts from itself.
    notices: what a person should know of the run, each a sentence. is_same_text: whether all sides
    read a given text, rather than write one each. same_text: what they made of it; None before.
    """

    changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.all_runs = tuple(RunModel(side_letter(side), self) for side in range(MOST_SIDES))
        for run in self.all_runs:
            run.changed.connect(self.changed)
        self._clear(0)

    def _clear(self, sides: int) -> None:
        self.runs = self.all_runs[:sides]
        self.partings = [Parting()] * sides
        self.notices: tuple[str, ...] = ()
        self.is_same_text = False
        self.same_text: SameTextResult | None = None

    def begin(
        self,
        prompt: str,
        sides: Sequence[RuleParameters | None],
        generation: GenerationParameters,
        model: ModelInfo,
        conversation: Conversation | None,
    ) -> None:
        """Start all sides anew for a prompt."""
        self._begin(sides_of(prompt, sides, generation, model, conversation))

    def _begin(self, abouts: Sequence[RunSide], *, is_same_text: bool = False) -> None:
        self._clear(len(abouts))
        self.is_same_text = is_same_text
        for run, about in zip(self.runs, abouts, strict=True):
            run.begin(about)
        for run in self.all_runs[len(abouts) :]:
            run.reset()

    def begin_text(self, definition: SameText, model: ModelInfo) -> None:
        """Start all sides anew to read a given text."""
        abouts = _readers(definition.sides, model)
        whole = [_reading(about, definition.text.content) for about in abouts]
        self._begin(whole, is_same_text=True)

    def show_text(self, result: SameTextResult, notices: tuple[str, ...] = ()) -> None:
        """Take what all sides made of a text, and what a person should know of it."""
        abouts = _readers(result.sides, result.model)
        whole = [_reading(about, "".join(result.token_texts)) for about in abouts]
        self._begin(whole, is_same_text=True)
        self.same_text, self.notices = result, notices
        first, *others = result.token_texts
        for run, about, reading in zip(self.runs, abouts, result.readings, strict=False):
            run.read(_reading(about, first, len(others)), result, reading)
        for run in self.runs[len(result.readings) :]:
            run.stop()
        if not result.is_complete:
            left = [run.name for run in self.runs[len(result.readings) :]]
            self.notice(f"Stopped before {listed(left)} had read the text.")

    @property
    def drift(self) -> DriftWords:
        """Whether the text is unlike the one the null was fitted on; nothing until all sides have
        ended."""
        if any(run.is_running or run.about is None for run in self.runs):
            return DriftWords()
        rules = [run.about.rule for run in self.runs if run.about is not None]
        return drift_words(rules, [run.drift for run in self.runs])

    def notice(self, text: str) -> None:
        """Take a fact of the run, once."""
        if text not in self.notices:
            self.notices += (text,)
            self.changed.emit()

    def take_prompts(self, token_ids: Sequence[tuple[int, ...]]) -> None:
        """Take what each side reads before it answers."""
        for run, ids in zip(self.runs, token_ids, strict=True):
            run.take_prompt(ids)

    def read_prompt(self, event: PromptRead) -> None:
        """Take what one side decided over its prompt."""
        self.runs[event.side].read_prompt(event)

    def append(self, event: TokenGenerated) -> None:
        """Take one token."""
        self.runs[event.side].append(event)
        self._compare_tokens()

    def finish(self, event: SideFinished) -> None:
        """Take the end of one side."""
        self.runs[event.side].finish(event)

    def replace(self, session: Session) -> None:
        """Take what a finished session says of all sides."""
        for run, record in zip(self.runs, session.records, strict=True):
            run.replace(record)
        self._compare_tokens()

    def stop(self) -> None:
        """All sides were stopped before they had anything."""
        for run in self.runs:
            run.stop()

    def fail(self) -> None:
        """All sides end with what they have."""
        for run in self.runs:
            run.fail()

    def reset(self) -> None:
        """Forget all sides."""
        self._clear(0)
        for run in self.all_runs:
            run.reset()

    def _compare_tokens(self) -> None:
        first = self.runs[0].token_ids
        for side, run in enumerate(self.runs[1:], start=1):
            parting = self.partings[side]
            token, compared = parting.token, parting.compared
            both = min(len(first), len(run.token_ids))
            while token is None and compared < both:
                if first[compared] != run.token_ids[compared]:
                    token = compared
                compared += 1
            self.partings[side] = Parting(token, compared)


def sides_of(
    prompt: str,
    sides: Sequence[RuleParameters | None],
    generation: GenerationParameters,
    model: ModelInfo,
    conversation: Conversation | None,
) -> list[RunSide]:
    """What is known of the sides of a run before they say anything.

    Raises ValueError, TypeError or OverflowError for what cannot be shown.
    """
    rules = [rule for rule in sides if rule is not None]
    scale = ExpertScale.spanning(
        min((rule.min_k for rule in rules), default=model.top_k),
        max((rule.max_k for rule in rules), default=model.top_k),
        model.top_k,
    )
    return [
        RunSide(
            model=model,
            rule=rule,
            passages=passages(prompt, conversation, side),
            scale=scale,
            most_tokens=generation.max_new_tokens,
            routing=describe_top_k(model) if rule is None else describe_rule(rule, model),
            note="" if rule is None else _note(rule),
        )
        for side, rule in enumerate(sides)
    ]


def check_session(session: Session) -> None:
    """Raise ValueError, TypeError or OverflowError for what cannot be shown."""
    for side, record in enumerate(session.records):
        name = f"side {side_letter(side)}"
        shape = (len(record.token_ids), session.model.layers)
        if record.expert_counts.shape != shape or record.raw_counts.shape != shape:
            raise ValueError(f"The counts of {name} are not those of its tokens and layers.")
        trial = RunModel(name)
        trial.replace(record)
        _ = trial.statistics, trial.tokens_per_second, trial.time_to_first_token_s
    sides_of(session.prompt, session.sides, session.generation, session.model, session.conversation)
    float(session.generation.temperature)
    _check_rules(session.sides, session.model)


def check_text(result: SameTextResult) -> None:
    """Raise ValueError, TypeError or OverflowError for what cannot be shown."""
    for side, reading in enumerate(result.readings):
        counted = max(reading.counts.max(), reading.raw_counts.max())
        if counted > _MOST_COUNTED or reading.ranks.max() > _MOST_RANKED:
            raise ValueError(f"The numbers of side {side_letter(side)} are too large.")
    _readers(result.sides, result.model)
    _check_rules(result.sides, result.model)


def _check_rules(sides: Sequence[RuleParameters | None], model: ModelInfo) -> None:
    """Raise OverflowError for whole numbers too large for a float, which no box shows."""
    for rule in sides:
        if rule is not None:
            for number in (rule.temperature, *rule.levels(model.layers)):
                float(number)


def _readers(sides: Sequence[RuleParameters | None], model: ModelInfo) -> list[RunSide]:
    """What is known of sides that are to read a text, before they do."""
    abouts = sides_of("", sides, GenerationParameters(), model, None)
    return [
        about if about.rule is None else replace(about, note=_note(about.rule, READING_NOTE))
        for about in abouts
    ]


def _reading(about: RunSide, text: str, most_tokens: int = 0) -> RunSide:
    """The same side with `text` above its tokens, of which there may be so many."""
    passage = Passage(Voice.CONTINUED, text)
    return replace(about, passages=(passage,), most_tokens=most_tokens, first_number=1)


def _note(rule: RuleParameters, words: str = ANALYZE_NOTE) -> str:
    return words.format(rule_title(rule)) if rule.mode is Mode.ANALYZE else ""
