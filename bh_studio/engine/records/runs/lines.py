"""What the folder of a run holds: a header, and a line for each thing that happened.

`run.json` is there before the first token and says what was asked and of which model. Each line of
`events.jsonl` is one thing that happened: a prompt was read, a token came, a side ended, the run
ended. A run whose program was killed is there as far as it came; it lacks its last line. While a
run is written the lock of `events.jsonl` is held. Router logits that are kept lie beside it, those
of each side in a file of their own: (position, layer, expert) in little-endian float32, each
position before the line that speaks of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from bh_studio.engine.records.decisions.drift import Drift
from bh_studio.engine.records.proofs.proof import Proof
from bh_studio.engine.records.session import Session, SideRecord
from bh_studio.engine.records.terms import (
    Conversation,
    FinishReason,
    GenerationParameters,
    ModelInfo,
)
from bh_studio.engine.rules.parameters import RuleParameters

FORMAT = 1
HEADER, EVENTS = "run.json", "events.jsonl"


class RunEnd(StrEnum):
    """How a run ended. CUT_OFF: its program did, before it could say so."""

    COMPLETE = "complete"
    STOPPED = "stopped"
    FAILED = "failed"
    CUT_OFF = "cut_off"


@dataclass(frozen=True, slots=True)
class RunHeader:
    """What was asked, of which model, before anything was answered.

    started_at: ISO 8601 with time zone. prompt_token_ids: what each side reads. The rest: as
    Session has it.
    """

    model: ModelInfo
    sides: tuple[RuleParameters | None, ...]
    generation: GenerationParameters
    prompt: str
    conversation: Conversation | None
    prompt_token_ids: tuple[tuple[int, ...], ...]
    environment: dict[str, Any]
    started_at: str

    def session(self, records: tuple[SideRecord, ...], finished_at: str) -> Session:
        """The session that came of it. finished_at: ISO 8601."""
        return Session(
            model=self.model,
            sides=self.sides,
            generation=self.generation,
            prompt=self.prompt,
            conversation=self.conversation,
            records=records,
            environment=self.environment,
            started_at=self.started_at,
            finished_at=finished_at,
        )


class PromptLine(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="event", tag="prompt"):
    """A side has read its prompt; the names are those of SideRecord.

    experts: (prompt token, layer, slot) uint8 as bytes, as Decision has them; None where they are
    not kept.
    """

    side: int
    prompt_expert_counts: list[list[int]]
    prompt_raw_counts: list[list[int]]
    experts: bytes | None = None


class ChoiceLine(msgspec.Struct, frozen=True):
    """How probable a token was: see TokenChoice."""

    log_probability: float
    rank: int
    top_ids: list[int]
    top_log_probabilities: list[float]


class TokenLine(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="event", tag="token"):
    """A side has produced a token. seconds: of this side's own computing so far.

    experts: (layer, slot) uint8 as bytes, of the position that predicted it; None, as choice is,
    where they are not kept.
    """

    side: int
    token_id: int
    text: str
    expert_counts: list[int]
    raw_counts: list[int]
    seconds: float
    experts: bytes | None = None
    choice: ChoiceLine | None = None


class SideLine(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="event", tag="side_ended"
):
    """A side has ended. text_tail: characters that were held back. drift: as SideRecord has it."""

    side: int
    text_tail: str
    finish_reason: FinishReason
    drift: Drift | None = None


class NoticeLine(msgspec.Struct, frozen=True, tag_field="event", tag="notice"):
    """A fact of the run that a person should know."""

    text: str


class EndLine(msgspec.Struct, frozen=True, tag_field="event", tag="ended"):
    """The run has ended. at: ISO 8601. message: why it failed. proof: as Session has it, if so."""

    how: RunEnd
    at: str
    message: str = ""
    proof: Proof | UnsetType = UNSET


Line = PromptLine | TokenLine | SideLine | NoticeLine | EndLine
