"""What one side produced so far, for any panel to show. QtCore only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PySide6.QtCore import QObject, Signal

from bh_studio.engine.protocol.events import PromptRead, SideFinished, TokenGenerated
from bh_studio.engine.records.counts import CountStatistics, count_statistics, tokens_per_second
from bh_studio.engine.records.decisions.decision import Decision
from bh_studio.engine.records.decisions.drift import Drift
from bh_studio.engine.records.decisions.router_rows import HeldRows, RouterRows
from bh_studio.engine.records.decisions.token_choices import TokenChoice, TokenChoices
from bh_studio.engine.records.same_text.as_answer import as_answer
from bh_studio.engine.records.same_text.result import SameTextResult
from bh_studio.engine.records.same_text.side_reading import SideReading
from bh_studio.engine.records.session import SideRecord
from bh_studio.engine.records.terms import FinishReason, ModelInfo
from bh_studio.engine.rules import RuleParameters
from bh_studio.ui.state.expert_scale import ExpertScale
from bh_studio.ui.state.grown_array import GrownArray
from bh_studio.ui.state.transcript import Passage


@dataclass(frozen=True, slots=True)
class RunSide:
    """What is known of a side before it says anything.

    rule: None for the model's own routing. passages: what stands above the answer, the prompt
    included. most_tokens: it may produce. routing: the rule in words. note: what has to be known to
    read the text rightly; often empty. first_number: what its first token is counted as for people:
    0, but 1 of a text that is read, for nothing predicts that which is counted as 0.
    """

    model: ModelInfo
    rule: RuleParameters | None
    passages: tuple[Passage, ...]
    scale: ExpertScale
    most_tokens: int
    routing: str
    note: str
    first_number: int = 0

    @property
    def can_be_limited(self) -> bool:
        """Whether min_k or max_k can decide in place of the rule."""
        return self.rule is not None and self.rule.entry.can_be_limited


class RunModel(QObject):
    """The tokens, counts and times of one side, growing while the engine works.

    name: its letter. about: what it is; None before it is begun. prompt_tokens: those of all that
    stands before the answer; None before they are read. prompt_token_ids: which they are, as soon
    as it is known. reading: what it made of a given text; None where it writes one. drift: how like
    the null's text is what it read and wrote; None until it has ended, and where that is not known.
    `epoch` changes when the content is replaced; while it stays, tokens are only appended, and
    only the last token's text may still grow.
    """

    changed = Signal()

    def __init__(self, name: str, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.name = name
        self.epoch = 0
        self._clear(None)

    def _clear(self, about: RunSide | None) -> None:
        self.about = about
        layers = 0 if about is None else about.model.layers
        self.is_running = False
        self.is_failed = False
        self.finish_reason: FinishReason | None = None
        self.token_ids: list[int] = []
        self.token_texts: list[str] = []
        self._counts = GrownArray((layers,), np.uint8)
        self._raw_counts = GrownArray((layers,), np.uint8)
        self._seconds = GrownArray((), np.float64)
        self._prompt_counts = np.zeros((0, layers), np.uint8)
        self.prompt_tokens: int | None = None
        self.prompt_token_ids: tuple[int, ...] = ()
        self._logits: GrownArray | None = None
        self._experts: GrownArray | None = None
        self._choices: tuple[GrownArray, ...] | None = None
        self._record: SideRecord | None = None
        self.drift: Drift | None = None
        self._statistics: CountStatistics | None = None
        self.reading: SideReading | None = None
        self._kl: np.ndarray | None = None

    def begin(self, about: RunSide) -> None:
        """Forget the last run and await the tokens of a new one."""
        self.epoch += 1
        self._clear(about)
        self.is_running = True
        self.changed.emit()

    def reset(self) -> None:
        """Forget the last run; there is nothing to show."""
        self.epoch += 1
        self._clear(None)
        self.changed.emit()

    def take_prompt(self, token_ids: tuple[int, ...]) -> None:
        """Take which tokens stand before the answer."""
        self.prompt_token_ids = token_ids
        self.changed.emit()

    def read_prompt(self, read: PromptRead) -> None:
        """Take what was decided at the positions of the prompt."""
        self._prompt_counts = read.expert_counts
        # The last of them predicts the answer's first token, and is counted there.
        self.prompt_tokens = len(read.expert_counts) + 1
        self._decide(read.decision)
        self.changed.emit()

    def append(self, token: TokenGenerated) -> None:
        """Add the next token."""
        self._counts.extend(token.expert_counts[None])
        self._raw_counts.extend(token.raw_counts[None])
        self._seconds.extend(np.array([token.seconds]))
        self.token_ids.append(token.token_id)
        self.token_texts.append(token.text)
        self._decide(token.decision)
        self._choose(token.choice)
        self._statistics = None
        self.changed.emit()

    def finish(self, finished: SideFinished) -> None:
        """Take the characters held back until now and the reason for the end."""
        if finished.text_tail and self.token_texts:
            self.token_texts[-1] += finished.text_tail
        self.finish_reason = finished.record.finish_reason
        self.drift = finished.record.drift
        self.is_running = False
        self.changed.emit()

    def replace(self, record: SideRecord) -> None:
        """Take over the final record; what is on screen stays if the tokens are the same."""
        same = self.token_ids == list(record.token_ids)
        if not (same and self.token_texts == list(record.token_texts)):
            self.epoch += 1
        self.token_ids = list(record.token_ids)
        self.token_texts = list(record.token_texts)
        self._counts = GrownArray.of(record.expert_counts)
        self._raw_counts = GrownArray.of(record.raw_counts)
        self._seconds = GrownArray.of(record.token_seconds)
        self._prompt_counts = record.prompt_expert_counts
        self.prompt_tokens = len(record.prompt_token_ids)
        self.prompt_token_ids = record.prompt_token_ids
        self._logits = self._experts = self._choices = self._kl = None
        self._record = record
        self.drift = record.drift
        self._statistics = None
        self.finish_reason = record.finish_reason
        self.is_running = False
        self.changed.emit()

    def read(self, about: RunSide, result: SameTextResult, reading: SideReading) -> None:
        """Take what the side made of a given text: the first token is the prompt, for nothing
        predicts it."""
        self._clear(about)
        self.reading = reading
        self.replace(as_answer(result, reading))

    def take_kl(self, kl: np.ndarray) -> None:
        """Take how far its predictions are from those of side A, (token,) for its first tokens, as
        far as both have read the same."""
        self._kl = kl
        self.changed.emit()

    def stop(self) -> None:
        """It was stopped before it had anything."""
        self.finish_reason = FinishReason.STOPPED
        self.is_running = False
        self.changed.emit()

    def fail(self) -> None:
        """The run broke off; what has arrived stays visible."""
        self.is_failed = self.finish_reason is None
        self.is_running = False
        self.changed.emit()

    # --- what it is ---

    @property
    def is_started(self) -> bool:
        """Whether there is anything to show."""
        return self.about is not None

    @property
    def layers(self) -> int:
        return 0 if self.about is None else self.about.model.layers

    @property
    def top_k(self) -> int:
        """Experts of the model's own routing."""
        return 0 if self.about is None else self.about.model.top_k

    @property
    def scale(self) -> ExpertScale:
        """The colours of its counts."""
        return ExpertScale() if self.about is None else self.about.scale

    @property
    def note(self) -> str:
        """What has to be known to read its text rightly; often empty."""
        return "" if self.about is None else self.about.note

    @property
    def is_counted_only(self) -> bool:
        """Whether its rule only counted what it would have used."""
        return bool(self.note)

    # --- what it produced ---

    @property
    def token_count(self) -> int:
        return len(self.token_ids)

    @property
    def most_tokens(self) -> int:
        """It may say: what was asked for, as far as the model has room for it."""
        if self.about is None:
            return 0
        room = self.about.model.context_length - (self.prompt_tokens or 0)
        return min(self.about.most_tokens, max(room, 1))

    @property
    def counts(self) -> np.ndarray:
        """(token, layer) uint8, experts used."""
        return self._counts.rows

    @property
    def raw_counts(self) -> np.ndarray:
        """(token, layer) uint8, the same before min_k and max_k were applied."""
        return self._raw_counts.rows

    @property
    def prompt_counts(self) -> np.ndarray:
        """(prompt token, layer) uint8, as SideRecord has them; none before it is read."""
        return self._prompt_counts

    @property
    def first_number(self) -> int:
        """What its first token is counted as for people."""
        return 0 if self.about is None else self.about.first_number

    def position(self, token: int) -> int:
        """Where among all positions that were read a token of the answer was predicted, or one of
        the prompt, counted from its end with -1, was read."""
        return len(self._prompt_counts) + token

    @property
    def record(self) -> SideRecord | None:
        """What its session says of it; None until it is there."""
        return self._record

    @property
    def router_logits(self) -> RouterRows | None:
        """Of the positions read so far; None where they are not kept."""
        if self._record is not None:
            return self._record.router_logits
        return None if self._logits is None else HeldRows(self._logits.rows)

    @property
    def routed_experts(self) -> np.ndarray | None:
        """(position, layer, slot) uint8, as SideRecord has them; None where they are not kept."""
        if self._record is not None:
            return self._record.routed_experts
        return None if self._experts is None else self._experts.rows

    @property
    def choices(self) -> TokenChoices | None:
        """How probable each token was; None where that is not kept."""
        if self._record is not None:
            return self._record.choices
        if self._choices is None:
            return None
        return TokenChoices(*(kept.rows for kept in self._choices))

    @property
    def kl(self) -> np.ndarray | None:
        """(token,) floating, KL(A || this side) in nats of what each token was predicted by, for as
        many of its first tokens as were predicted from what A has read; None where it is not
        known."""
        return self._kl if self.reading is None else self.reading.kl

    @property
    def statistics(self) -> CountStatistics:
        """Numbers over the tokens so far, from the same function as the saved ones."""
        if self._statistics is None:
            self._statistics = count_statistics(self.counts, self.raw_counts)
        return self._statistics

    @property
    def tokens_per_second(self) -> float | None:
        return tokens_per_second(self._seconds.rows)

    @property
    def time_to_first_token_s(self) -> float | None:
        return float(self._seconds.rows[0]) if len(self._seconds) else None

    def token_means(self, start: int = 0) -> np.ndarray:
        """(token,) mean experts over layers, for the tokens from `start` on."""
        counts = self.counts[start:]
        return counts.mean(axis=1) if counts.size else np.zeros(0)

    def _decide(self, decision: Decision | None) -> None:
        if decision is None:
            return
        if self._experts is None:
            self._experts = GrownArray(decision.experts.shape[1:], np.uint8)
        self._experts.extend(decision.experts)
        if decision.router_logits is None:
            return
        if self._logits is None:
            self._logits = GrownArray(decision.router_logits.shape[1:], np.float32)
        self._logits.extend(decision.router_logits)

    def _choose(self, choice: TokenChoice | None) -> None:
        if choice is None:
            return
        if self._choices is None:
            width = (len(choice.top_ids),)
            self._choices = (
                GrownArray((), np.float32), GrownArray((), np.int32),
                GrownArray(width, np.int32), GrownArray(width, np.float32),
            )  # fmt: skip
        for kept, value in zip(self._choices, choice, strict=True):
            kept.extend(np.asarray(value)[None])
