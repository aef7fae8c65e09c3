"""What can be run with a model, as frozen values. Knows neither Qt nor torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from bh_studio.engine.errors import CancelToken, EngineError
from bh_studio.engine.protocol.texts import Text
from bh_studio.engine.records.terms import Conversation, GenerationParameters
from bh_studio.engine.rules.parameters import RuleParameters


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
class BudgetRequest:
    """Find the level of `parameters` at which a token uses `target` experts in a layer on average.

    parameters: the rule; its own level plays no part. fit, check: texts to find the level on and to
    check it on; without the latter nothing is checked. by_layer: also share the experts out over
    the layers. tokens: about how many of each to read, spread evenly; None: all.
    """

    target: float
    parameters: RuleParameters
    fit: tuple[Text, ...]
    check: tuple[Text, ...] = ()
    by_layer: bool = False
    tokens: int | None = None
    cancel: CancelToken = field(default_factory=CancelToken)


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """Evaluate `rules` on `texts`, with or without controls for each.

    window: most tokens that the model sees at once; None: as many as it can, at most 2048. stride:
    scored tokens of a window, so that each sees at least window - stride before it; None: half.
    tokens: about how many to score, in windows spread evenly over the texts; None: all.
    """

    texts: tuple[Text, ...]
    rules: tuple[RuleParameters, ...]
    with_controls: bool = False
    window: int | None = None
    stride: int | None = None
    tokens: int | None = None
    cancel: CancelToken = field(default_factory=CancelToken)


@dataclass(frozen=True, slots=True)
class RunComparison:
    """Answer `prompt` with the baseline and with BH routing, taking turns token by token.

    conversation: what precedes the prompt, written with the model's chat template; None continues
    `prompt` as plain text.
    """

    run_id: int
    prompt: str
    rule: RuleParameters
    generation: GenerationParameters
    conversation: Conversation | None = None
    cancel: CancelToken = field(default_factory=CancelToken)
