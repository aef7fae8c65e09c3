"""The session document: one comparison with everything needed to trust and repeat it.

Owns the names that `session.json` and `compare --json` share. Knows no file, no Qt, no torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from bh_studio.engine.records.counts import count_statistics, first_difference, tokens_per_second
from bh_studio.engine.records.terms import (
    SIDE_NAMES,
    Conversation,
    FinishReason,
    GenerationParameters,
    ModelInfo,
    Turn,
)
from bh_studio.engine.rules.parameters import RuleParameters

SCHEMA_VERSION = 3
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
    """

    prompt_token_ids: tuple[int, ...]
    text: str
    token_ids: tuple[int, ...]
    token_texts: tuple[str, ...]
    expert_counts: np.ndarray
    raw_counts: np.ndarray
    prompt_expert_counts: np.ndarray
    prompt_raw_counts: np.ndarray
    token_seconds: np.ndarray
    finish_reason: FinishReason

    @property
    def tokens_per_second(self) -> float | None:
        return tokens_per_second(self.token_seconds)

    @property
    def time_to_first_token_s(self) -> float | None:
        return float(self.token_seconds[0]) if len(self.token_seconds) else None

    def statistics(self) -> dict[str, Any]:
        """Counts of the answer and of the prompt, apart."""
        return {
            "answer": count_statistics(self.expert_counts, self.raw_counts).to_dict(),
            "prompt": count_statistics(self.prompt_expert_counts, self.prompt_raw_counts).to_dict(),
        }

    def to_json(self) -> dict[str, Any]:
        """The record under the names of `session.json`."""
        return {
            "prompt_token_ids": list(self.prompt_token_ids),
            "text": self.text,
            "token_ids": list(self.token_ids),
            "token_texts": list(self.token_texts),
            "expert_counts": self.expert_counts.tolist(),
            "tokens_per_second": self.tokens_per_second,
            "time_to_first_token_s": self.time_to_first_token_s,
            "finish_reason": self.finish_reason.value,
            "statistics": self.statistics(),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """One comparison. started_at, finished_at: ISO 8601 with time zone.

    sides: the model's own routing, None, and the rule that was compared with it. records: what each
    side read and produced.
    conversation: what preceded the prompt; None if it was plain text that both sides continued.
    environment: versions of everything, machine, device and threads.
    """

    model: ModelInfo
    sides: tuple[RuleParameters | None, ...]
    generation: GenerationParameters
    prompt: str
    conversation: Conversation | None
    records: tuple[SideRecord, ...]
    environment: dict[str, Any]
    started_at: str
    finished_at: str

    @property
    def rule(self) -> RuleParameters:
        """The rule that is compared with the model's own routing."""
        (rule,) = (side for side in self.sides if side is not None)
        return rule

    @property
    def first_difference(self) -> int | None:
        """Index of the first token in which the answers differ; None if they do not."""
        return first_difference(*(record.token_ids for record in self.records))

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
            "parameters": {"rule": asdict(self.rule), "generation": asdict(self.generation)},
            "prompt": self.prompt,
            "conversation": _conversation_json(self.conversation),
            "sides": {
                name: record.to_json()
                for name, record in zip(SIDE_NAMES, self.records, strict=True)
            },
            "first_difference": self.first_difference,
            "environment": self.environment,
        }


def _conversation_json(conversation: Conversation | None) -> dict[str, Any] | None:
    if conversation is None:
        return None
    turns = [
        {"prompt": turn.prompt, **dict(zip(SIDE_NAMES, turn.answers, strict=True))}
        for turn in conversation.turns
    ]
    return {"system": conversation.system, "turns": turns}
