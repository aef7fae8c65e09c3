"""What a benchmark is asked for, and what it says while it runs. Knows no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bh_studio.engine.errors import EngineError
from bh_studio.engine.messages import CancelToken


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """tokens: of each answer. rounds: that are measured. prompt_tokens: of the prompt that all
    continue. prefill_tokens: of another prompt that is only read; 0 leaves that out.

    Raises ValueError for values outside their ranges.
    """

    tokens: int = 64
    rounds: int = 5
    prompt_tokens: int = 32
    prefill_tokens: int = 0
    cancel: CancelToken = field(default_factory=CancelToken)

    def __post_init__(self) -> None:
        if self.tokens < 2:
            raise ValueError(f"A speed of decoding takes at least 2 tokens; got {self.tokens}.")
        for name, value, least in (
            ("rounds", self.rounds, 1),
            ("prompt_tokens", self.prompt_tokens, 1),
            ("prefill_tokens", self.prefill_tokens, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}; got {value}.")

    def check_context(self, context_length: int) -> None:
        """Raise EngineError for what a model with room for `context_length` tokens cannot hold."""
        room = f"this model has room for {context_length} tokens in all."
        if self.prompt_tokens + self.tokens > context_length:
            raise EngineError(
                f"A prompt of {self.prompt_tokens} tokens and {self.tokens} new ones are too long: "
                f"{room}",
                "Choose fewer --tokens or --prompt-tokens.",
            )
        if self.prefill_tokens >= context_length:
            raise EngineError(
                f"A prompt of {self.prefill_tokens} tokens and an answer are too long: {room}",
                "Choose fewer --prefill-tokens.",
            )


@dataclass(frozen=True, slots=True)
class BenchProgress:
    """What is going on, and how many of the rounds are done."""

    stage: str
    rounds: int


Report = Callable[[BenchProgress], None]
