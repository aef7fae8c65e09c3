"""The session document: one comparison with everything needed to trust and repeat it.

Owns the names that `session.json` and `compare --json` share. Knows no file, no Qt, no torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from bh_studio.engine.records.counts import count_statistics, first_difference, tokens_per_second
from bh_studio.engine.records.decisions.drift import Drift
from bh_studio.engine.records.decisions.router_rows import RouterRows
from bh_studio.engine.records.decisions.token_choices import TokenChoices
from bh_studio.engine.records.proofs.proof import Proof
from bh_studio.engine.records.terms import (
    Conversation,
    FinishReason,
    GenerationParameters,
    Keep,
    ModelInfo,
    Turn,
)
from bh_studio.engine.rules.parameters import RuleParameters

SCHEMA_VERSION = 4
# What the names of its files end with.
SUFFIX = ".bhsession"


class SessionError(ValueError):
    """A session could not be read; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True, eq=False)
class SideRecord:
    """All that one side read and produced.

    prompt_token_ids: what it read, the earlier turns of a conversation included; there the sides
        differ, because each remembers its own answers.
    token_ids: the answer's tokens, the end-of-text token included.
    token_texts: (token,) what each token added to `text`, as TokenGenerated had it; characters
        still held back at the end belong to the last token, so the pieces joined are `text`.
    expert_counts, raw_counts: (token, layer) uint8; row i belongs to the position whose output
        predicted token i, so row 0 is the last position of the prompt.
    prompt_expert_counts, prompt_raw_counts: (prompt token, layer) uint8, the last position left
        out because it is row 0 above.
    token_seconds: (token,) float64, this side's own computing time until each token was ready.
    routed_experts: (position, layer, slot) uint8, those that ran, as decisions.routed_experts has
        them, of every position that was read, prompt first: row i of the answer's counts is
        position len(prompt_token_ids) - 1 + i.
    choices: how probable each token of the answer was.
    router_logits: of the same positions as routed_experts.
        All three are None where they were not kept.
    drift: how like the null's text is what it read, prompt and answer; None where that was not
        judged, as without router logits.
    """

    # What fills a screen is not shown where a notebook shows the value of a cell.
    prompt_token_ids: tuple[int, ...] = field(repr=False)
    text: str
    token_ids: tuple[int, ...] = field(repr=False)
    token_texts: tuple[str, ...] = field(repr=False)
    expert_counts: np.ndarray = field(repr=False)
    raw_counts: np.ndarray = field(repr=False)
    prompt_expert_counts: np.ndarray = field(repr=False)
    prompt_raw_counts: np.ndarray = field(repr=False)
    token_seconds: np.ndarray = field(repr=False)
    finish_reason: FinishReason
    routed_experts: np.ndarray | None = field(default=None, repr=False)
    choices: TokenChoices | None = field(default=None, repr=False)
    router_logits: RouterRows | None = field(default=None, repr=False)
    drift: Drift | None = field(default=None, repr=False)

    @property
    def tokens_per_second(self) -> float | None:
        return tokens_per_second(self.token_seconds)

    @property
    def time_to_first_token_s(self) -> float | None:
        return float(self.token_seconds[0]) if len(self.token_seconds) else None

    @property
    def keeps(self) -> Keep | None:
        """What is here beside the counts; None for nothing."""
        if self.routed_experts is None or self.choices is None:
            return None
        return Keep.COUNTS if self.router_logits is None else Keep.LOGITS

    def statistics(self) -> dict[str, Any]:
        """Counts of the answer and of the prompt, apart."""
        return {
            "answer": count_statistics(self.expert_counts, self.raw_counts).to_dict(),
            "prompt": count_statistics(self.prompt_expert_counts, self.prompt_raw_counts).to_dict(),
        }

    def to_json(self) -> dict[str, Any]:
        """The record under the names of `session.json`, which has no arrays."""
        return {
            "prompt_token_ids": list(self.prompt_token_ids),
            "text": self.text,
            "token_ids": list(self.token_ids),
            "token_texts": list(self.token_texts),
            "tokens_per_second": self.tokens_per_second,
            "time_to_first_token_s": self.time_to_first_token_s,
            "finish_reason": self.finish_reason.value,
            "keeps": self.keeps and self.keeps.value,
            "drift": None if self.drift is None else self.drift.to_json(),
            "statistics": self.statistics(),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """One comparison. started_at, finished_at: ISO 8601 with time zone.

    sides: the rule of each, None for the model's own routing; the others are compared with the
    first. records: what each side read and produced.
    conversation: what preceded the prompt; None if it was plain text that all sides continued.
    environment: versions of everything, machine, device and threads.
    proof: what was checked of it; None if nothing was.
    """

    model: ModelInfo
    sides: tuple[RuleParameters | None, ...]
    generation: GenerationParameters
    prompt: str
    conversation: Conversation | None
    records: tuple[SideRecord, ...]
    environment: dict[str, Any] = field(repr=False)
    started_at: str
    finished_at: str
    proof: Proof | None = None

    @property
    def first_differences(self) -> tuple[int | None, ...]:
        """(side,) index of the first token in which its answer differs from that of the first side;
        None if it does not, as for the first side itself."""
        first = self.records[0]
        return tuple(first_difference(first.token_ids, r.token_ids) for r in self.records)

    @property
    def speed_ratios(self) -> tuple[float | None, ...]:
        """(side,) its tokens per second over those of the first side; None where one has none."""
        speeds = [record.tokens_per_second for record in self.records]
        return tuple(
            speed / speeds[0] if speed is not None and speeds[0] is not None else None
            for speed in speeds
        )

    @property
    def is_broken_off(self) -> bool:
        """Whether an error, or the end of the program, has ended a side."""
        return any(r.finish_reason is FinishReason.BROKEN_OFF for r in self.records)

    @property
    def continued(self) -> Conversation | None:
        """What precedes the next prompt of this conversation; None if it was plain text.

        A prompt to which no side has said anything is left out, and one whose answers broke off.
        """
        if self.conversation is None or self.is_broken_off:
            return self.conversation
        if not any(record.token_ids for record in self.records):
            return self.conversation
        answers = tuple(record.text for record in self.records)
        turns = (*self.conversation.turns, Turn(self.prompt, answers))
        return replace(self.conversation, turns=turns)

    def to_json(self) -> dict[str, Any]:
        """The document under the names of `session.json`, ready for json.dump."""
        return {
            "schema_version": SCHEMA_VERSION,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "model": asdict(self.model),
            "generation": asdict(self.generation),
            "prompt": self.prompt,
            "conversation": None if self.conversation is None else asdict(self.conversation),
            "sides": [
                {
                    "rule": None if rule is None else asdict(rule),
                    **record.to_json(),
                    "first_difference": difference,
                    "speed_ratio": ratio,
                }
                for rule, record, difference, ratio in zip(
                    self.sides,
                    self.records,
                    self.first_differences,
                    self.speed_ratios,
                    strict=True,
                )
            ],
            "environment": self.environment,
            "proof": None if self.proof is None else asdict(self.proof),
        }
