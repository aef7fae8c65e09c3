"""What stands above an answer: the prompt it continues, or the conversation it belongs to.

Knows no widget; how each voice looks is the view's affair.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from bh_studio.engine.records.terms import Conversation


class Voice(Enum):
    """Who says something. CONTINUED: plain text that the answer carries on, without a break."""

    CONTINUED = auto()
    SYSTEM = auto()
    PERSON = auto()
    ANSWER = auto()


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of text in one voice, with the line breaks behind it."""

    voice: Voice
    text: str


def passages(prompt: str, conversation: Conversation | None, side: int) -> tuple[Passage, ...]:
    """All that `side` has read before its answer to `prompt`, its own earlier answers included."""
    if conversation is None:
        return (Passage(Voice.CONTINUED, prompt),)
    said = []
    if conversation.system:
        said.append(Passage(Voice.SYSTEM, f"System: {conversation.system}\n\n"))
    for turn in conversation.turns:
        said.append(_asked(turn.prompt))
        said.append(Passage(Voice.ANSWER, f"{turn.answers[side].strip()}\n\n"))
    said.append(_asked(prompt))
    return tuple(said)


def _asked(prompt: str) -> Passage:
    return Passage(Voice.PERSON, f"You: {prompt}\n")
