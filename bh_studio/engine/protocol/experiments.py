"""What can be run with a model, as frozen values: definitions of experiments.

A definition holds all that decides its rows, and nothing of where it runs or who keeps what it
gives. So it can be saved, compared and sent. Knows neither Qt nor torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from bh_studio.engine.errors import EngineError
from bh_studio.engine.protocol.logits_files import LogitsFile
from bh_studio.engine.protocol.texts import DEFAULT_WINDOW, Text
from bh_studio.engine.records.rows import PROMPTS_FIELD, FilePrompt, SkippedRow
from bh_studio.engine.records.terms import Conversation, GenerationParameters, Keep, ModelInfo
from bh_studio.engine.rules import RuleParameters, ScoreName, format_rule
from bh_studio.engine.rules.sides import check_sides

# Tokens that are read together unless a number of windows is given. It decides how sums are
# rounded, so it may not depend on the machine.
_BATCH_TOKENS = 4096
# Of OLMoE; router logits alone do not say what their model's is.
DEFAULT_TOP_K = 8
# Answers are listed before the first is made.
_MOST_SEEDS = 1_000_000


class _Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What all definitions have that answer prompts."""

    sides: tuple[RuleParameters | None, ...]
    generation: GenerationParameters
    conversation: Conversation | UnsetType | None = UNSET

    def check_model(self, model: ModelInfo) -> None:
        """Raise ValueError or EngineError for what does not fit `model`."""
        _check_rules(model, self.sides)
        if conversation_of(self, model) is not None:
            model.check_chat_template()


class Comparison(_Answers, frozen=True, kw_only=True, tag="comparison", tag_field="kind"):
    """Answer `prompt` with each of `sides`, which take turns token by token.

    sides: one to four, each the model's own routing, None, or a rule, no two alike. The others are
    compared with the first. conversation: see conversation_of. keep: what is kept of each position
    beside the counts. prove: whether it is checked afterwards how far the comparison can be
    believed.

    Raises ValueError for other sides, and for earlier turns that other sides have answered.
    """

    prompt: str
    keep: Keep = Keep.LOGITS
    prove: bool = False

    def __post_init__(self) -> None:
        check_sides(self.sides)
        _check_turns(self.sides, self.conversation)

    def settings(self) -> dict[str, Any]:
        """All that decides the session, but for the model and what is left open to it."""
        return {
            "prompt": self.prompt,
            "sides": _side_texts(self.sides),
            "generation": msgspec.to_builtins(self.generation),
            "keep": self.keep.value,
            "prove": self.prove,
            **_precedes(self.conversation),
        }


class Sweep(_Answers, frozen=True, kw_only=True, tag="sweep", tag_field="kind"):
    """Answer each of `prompts` with each of `sides`, one answer after the other.

    sides: the model's own routing, None, and then rules, no two alike. seeds: how often each is
    answered, with the seed of `generation` and those after it. conversation: see conversation_of.

    Raises ValueError for no prompts, other sides, seeds outside their ranges, and for earlier turns
    that other sides have answered.
    """

    prompts: tuple[str, ...]
    seeds: int = 1

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ValueError("A sweep needs a prompt.")
        rules = [rule for rule in self.sides if rule is not None]
        if not rules or self.sides != (None, *rules):
            raise ValueError("A sweep compares rules with the model's own routing, its first side.")
        _check_all_differ(rules)
        if self.seeds < 1:
            raise ValueError(f"seeds must be at least 1; got {self.seeds}.")
        if self.seeds > _MOST_SEEDS:
            raise ValueError(f"seeds must be at most {_MOST_SEEDS:,}; got {self.seeds}.")
        # The last one, which GenerationParameters would refuse after all others are answered.
        dataclasses.replace(self.generation, seed=self.generation.seed + self.seeds - 1)
        _check_turns(self.sides, self.conversation)

    def settings(self) -> dict[str, Any]:
        """All that decides the rows, but for the model and what is left open to it."""
        return {
            "prompts": list(self.prompts),
            "rules": _rule_texts(self.sides),
            "generation": msgspec.to_builtins(self.generation),
            "seeds": self.seeds,
            **_precedes(self.conversation),
        }


class Batch(_Answers, frozen=True, kw_only=True, tag="batch", tag_field="kind"):
    """Answer each of `prompts` with each of `sides`, which take turns token by token.

    sides: as Comparison has them. prompts_sha256, prompts_name: of the file that the prompts are
    from. prompts_field: where in it they stand. unusable: rows of it that hold no prompt; nothing
    is asked there. conversation: see conversation_of.

    Raises ValueError for no prompts, a line that has more than one row, other sides, and for
    earlier turns that other sides have answered.
    """

    prompts: tuple[FilePrompt, ...]
    prompts_sha256: str
    prompts_name: str = ""
    prompts_field: str = PROMPTS_FIELD
    unusable: tuple[SkippedRow, ...] = ()

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ValueError("A batch needs a prompt.")
        # Rows are known by their lines.
        lines = [asked.line for asked in self.prompts] + [row.line for row in self.unusable]
        line, rows = Counter(lines).most_common(1)[0]
        if rows > 1:
            raise ValueError(f"Line {line} has more than one row.")
        check_sides(self.sides)
        _check_turns(self.sides, self.conversation)

    def settings(self) -> dict[str, Any]:
        """All that decides the rows, but for the model and what is left open to it."""
        return {
            "prompts_sha256": self.prompts_sha256,
            "prompts_field": self.prompts_field,
            "sides": _side_texts(self.sides),
            "generation": msgspec.to_builtins(self.generation),
            **_precedes(self.conversation),
        }


class Evaluation(msgspec.Struct, frozen=True, kw_only=True, tag="evaluation", tag_field="kind"):
    """Evaluate `rules` on `texts`, with or without controls for each.

    window: most tokens that the model sees at once, at most what it can. stride: scored tokens of a
    window, so that each sees at least window - stride before it; None: half. tokens: about how many
    to score, in windows spread evenly over the texts; None: all. batch: windows that are read
    together, which rounds sums in its own way; None: as many as make 4,096 tokens.
    with_temperatures: judge each contender with a temperature of its own too.

    Raises ValueError for values outside their ranges.
    """

    texts: tuple[Text, ...]
    rules: tuple[RuleParameters, ...]
    with_controls: bool = False
    window: int = DEFAULT_WINDOW
    stride: int | None = None
    tokens: int | None = None
    batch: int | None = None
    with_temperatures: bool = False

    def __post_init__(self) -> None:
        for name in ("window", "stride", "tokens", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}.")

    def windows_at_once(self, window: int) -> int:
        """How many windows of `window` tokens make a batch."""
        return self.batch or max(1, _BATCH_TOKENS // window)

    def check_model(self, model: ModelInfo) -> None:
        """Raise ValueError for rules that do not fit `model`."""
        _check_rules(model, self.rules)

    def settings(self) -> dict[str, Any]:
        """All that decides the rows, but for the model."""
        return {
            "texts": [text.sha256 for text in self.texts],
            "rules": _rule_texts(self.rules),
            "with_controls": self.with_controls,
            "window": self.window,
            "stride": self.stride,
            "tokens": self.tokens,
            "batch": self.batch,
            # Left out where it is off: results begun before there was such a thing go on.
            **({"with_temperatures": True} if self.with_temperatures else {}),
        }


class SameText(msgspec.Struct, frozen=True, kw_only=True, tag="same-text", tag_field="kind"):
    """Have each of `sides` read the whole of `text`, and say how it predicts each token.

    sides: one to four, no two alike, each the model's own routing, None, or a rule; the others are
    compared with the first.

    Raises ValueError for other sides.
    """

    text: Text
    sides: tuple[RuleParameters | None, ...]

    def __post_init__(self) -> None:
        check_sides(self.sides)

    def check_model(self, model: ModelInfo) -> None:
        """Raise ValueError for rules that do not fit `model`."""
        _check_rules(model, self.sides)

    def settings(self) -> dict[str, Any]:
        """All that decides the rows, but for the model."""
        return {
            "text": self.text.sha256,
            "sides": _side_texts(self.sides),
        }


class Budget(msgspec.Struct, frozen=True, kw_only=True, tag="budget", tag_field="kind"):
    """Find the level of `rule` at which a token uses `target` experts in a layer on average.

    rule: its own level plays no part. fit, check: texts to find the level on and to check it on;
    without the latter nothing is checked. by_layer: also share the experts out over the layers.
    tokens: about how many of each to read, spread evenly; None: all.

    Raises ValueError for a rule that has no level to look for, or values outside their ranges.
    """

    target: float
    rule: RuleParameters
    fit: tuple[Text, ...]
    check: tuple[Text, ...] = ()
    by_layer: bool = False
    tokens: int | None = None

    def __post_init__(self) -> None:
        self.rule.check_searchable()
        if not 1 <= self.target < math.inf:
            raise ValueError(f"target must be a number of experts from 1; got {self.target}.")
        if self.tokens is not None and self.tokens < 1:
            raise ValueError(f"tokens must be at least 1; got {self.tokens}.")

    def check_model(self, model: ModelInfo) -> None:
        """Raise ValueError if the rule does not fit `model`."""
        _check_rules(model, (self.rule,))

    def settings(self) -> dict[str, Any]:
        """All that decides the rows, but for the model."""
        return {
            "target": self.target,
            "rule": format_rule(self.rule),
            "fit": [text.sha256 for text in self.fit],
            "check": [text.sha256 for text in self.check],
            "by_layer": self.by_layer,
            "tokens": self.tokens,
        }


class Calibration(msgspec.Struct, frozen=True, kw_only=True, tag="calibration", tag_field="kind"):
    """Record the router logits of a model over `texts`, which are read apart.

    factors: scores whose factors of each expert are measured too.
    """

    texts: tuple[Text, ...]
    factors: tuple[ScoreName, ...] = ()

    def check_model(self, model: ModelInfo) -> None:
        """Any model can be recorded."""

    def settings(self) -> dict[str, Any]:
        """All that decides the rows, but for the model."""
        return {
            "texts": [text.sha256 for text in self.texts],
            "factors": [factor.value for factor in self.factors],
        }


class Benchmark(msgspec.Struct, frozen=True, kw_only=True, tag="bench", tag_field="kind"):
    """Measure how fast a model decodes on this machine.

    tokens: of each answer. rounds: that are measured. prompt_tokens: of the prompt that all
    continue. prefill_tokens: of another prompt that is only read; 0 leaves that out.

    Raises ValueError for values outside their ranges.
    """

    tokens: int = 64
    rounds: int = 5
    prompt_tokens: int = 32
    prefill_tokens: int = 0

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

    def check_model(self, model: ModelInfo) -> None:
        """Raise EngineError for what does not fit `model`."""
        self.check_context(model.context_length)

    def settings(self) -> dict[str, Any]:
        """All that decides the rows, but for the model and the machine."""
        return {
            "tokens": self.tokens,
            "rounds": self.rounds,
            "prompt_tokens": self.prompt_tokens,
            "prefill_tokens": self.prefill_tokens,
        }


class NullSource(StrEnum):
    """Where the nulls of a replay come from, if from no other file.

    OWN: the file with the router logits, if it is a recording; with another one there are none.
    LEAVE_ONE_OUT: for each token, all others; for few tokens.
    """

    OWN = "own"
    LEAVE_ONE_OUT = "leave-one-out"


class Replay(msgspec.Struct, frozen=True, kw_only=True, tag="replay", tag_field="kind"):
    """Recompute what `rules` select from recorded router logits; takes no model.

    logits: a recording, or an array "logits" (layer, token, expert). null: a recording of the same
    model that nulls are fitted on, or where else they come from. skip: positions left out at the
    start. top_k: experts that the model's own router keeps; None: what the recording says that
    nulls are fitted on, else DEFAULT_TOP_K. rules: no two alike; none: a choice of all.

    Raises ValueError for a rule that is given twice, or values outside their ranges.
    """

    logits: LogitsFile
    null: LogitsFile | NullSource = NullSource.OWN
    skip: int = 0
    top_k: int | None = None
    rules: tuple[RuleParameters, ...] = ()

    def __post_init__(self) -> None:
        _check_all_differ(self.rules)
        if self.skip < 0:
            raise ValueError(f"skip must be at least 0; got {self.skip}.")

    def check_model(self, model: ModelInfo) -> None:
        """It takes no model, so any will do."""

    def settings(self) -> dict[str, Any]:
        """All that decides the rows."""
        null = self.null
        return {
            "logits": self.logits.sha256,
            "null": null.sha256 if isinstance(null, LogitsFile) else null.value,
            "skip": self.skip,
            "top_k": self.top_k,
            "rules": _rule_texts(self.rules),
        }


ModelExperiment = (
    Comparison | Sweep | Batch | SameText | Evaluation | Budget | Calibration | Benchmark
)
Experiment = ModelExperiment | Replay


def kind_of(definition: Experiment) -> str:
    """The name of what `definition` runs, as results and saved definitions bear it."""
    kind = definition.__struct_config__.tag
    assert isinstance(kind, str)
    return kind


def _check_rules(model: ModelInfo, rules: Sequence[RuleParameters | None]) -> None:
    for rule in rules:
        if rule is not None:
            rule.check_shape(model.layers, model.experts)


def _check_turns(
    sides: tuple[RuleParameters | None, ...], conversation: Conversation | UnsetType | None
) -> None:
    turns = conversation.turns if isinstance(conversation, Conversation) else ()
    if any(len(turn.answers) != len(sides) for turn in turns):
        raise ValueError(f"Each earlier turn needs the answers of {len(sides)} sides.")


def conversation_of(definition: _Answers, model: ModelInfo) -> Conversation | None:
    """What precedes each prompt to `model`; None continues it as plain text.

    What the definition leaves open, the model says: a prompt is a message to one that has a chat
    template.
    """
    if definition.conversation is not UNSET:
        return definition.conversation
    return Conversation() if model.has_chat_template else None


def settled(definition: Experiment, model: ModelInfo) -> Experiment:
    """`definition` with what it leaves open as it is with `model`: all its settings are known."""
    if not isinstance(definition, Comparison | Sweep | Batch):
        return definition
    conversation = conversation_of(definition, model)
    return msgspec.structs.replace(definition, conversation=conversation)


def _check_all_differ(rules: Sequence[RuleParameters]) -> None:
    for number, rule in enumerate(rules):
        if rule in rules[:number]:
            raise ValueError(f"The rule {format_rule(rule)} is given twice; give each once.")


def _rule_texts(sides: tuple[RuleParameters | None, ...]) -> list[str]:
    return [format_rule(rule) for rule in sides if rule is not None]


def _side_texts(sides: tuple[RuleParameters | None, ...]) -> list[str | None]:
    return [None if rule is None else format_rule(rule) for rule in sides]


def _precedes(conversation: Conversation | UnsetType | None) -> dict[str, Any]:
    """What precedes every prompt, in words that can be told apart in a sentence; if it is known."""
    if conversation is UNSET:
        return {}
    if conversation is None:
        return {"prompt_format": "plain text"}
    said = {"prompt_format": "chat", "system_prompt": conversation.system}
    turns = msgspec.to_builtins(conversation.turns)
    return {**said, "turns": turns} if turns else said
