"""What every session has to be like, whatever file it was read from."""

from __future__ import annotations

import numpy as np

from bh_studio.engine.architectures import MOST_EXPERTS, MOST_LAYERS
from bh_studio.engine.records.decisions.routed_experts import check_routed
from bh_studio.engine.records.session import SideRecord
from bh_studio.engine.records.terms import Conversation, GenerationParameters, ModelInfo
from bh_studio.engine.rules.sides import Sides, check_number

_MOST_TOKENS = 2**24
# What exports and the alternatives of a token are wide enough for.
_MOST_TOKEN_IDS = 2**31


def check_layers(layers: int) -> None:
    """Raise ValueError for a number of layers that no model has."""
    if not 1 <= layers <= MOST_LAYERS:
        raise ValueError(f"layers is {layers}.")


def check_ranges(model: ModelInfo, generation: GenerationParameters) -> None:
    """Raise ValueError for values that no run of this program can have had."""
    check_layers(model.layers)
    if not 1 <= model.context_length <= _MOST_TOKENS:
        raise ValueError(f"context_length is {model.context_length}.")
    if not 1 <= model.top_k <= model.experts <= MOST_EXPERTS:
        raise ValueError(f"top_k is {model.top_k} of {model.experts} experts.")
    if generation.max_new_tokens > _MOST_TOKENS:
        raise ValueError(f"max_new_tokens is {generation.max_new_tokens}.")


def check_answered(sides: Sides, conversation: Conversation | None, model: ModelInfo) -> None:
    """Raise ValueError for sides that no run with `model` has, or for earlier turns of others."""
    check_number(len(sides))
    for rule in sides:
        if rule is not None:
            rule.check_shape(model.layers, model.experts)
    turns = conversation.turns if conversation else ()
    if any(len(turn.answers) != len(sides) for turn in turns):
        raise ValueError("a turn of its conversation has not one answer for each side.")


def check_length(tokens: int, side: str, model: ModelInfo) -> None:
    """Raise ValueError for more `tokens`, of prompt and answer, than `model` can read."""
    if tokens > model.context_length:
        raise ValueError(f"{side} has more tokens than the {model.context_length} of the model.")


def prompt_rows(prompt_tokens: int, tokens: int) -> int:
    """How many positions of a prompt are counted apart from the answer.

    A side that was stopped before its first token has not read the prompt either.
    """
    return prompt_tokens - 1 if tokens else 0


def read_positions(prompt_tokens: int, tokens: int) -> int:
    """How many positions a side has read: the last token of an answer is not read any more."""
    return prompt_tokens - 1 + tokens if tokens else 0


def check_record(record: SideRecord, side: str, model: ModelInfo) -> None:
    """Raise ValueError for what no side of a run with `model` can have left.

    side: what to call it in the sentence.
    """
    tokens = len(record.token_ids)
    check_length(len(record.prompt_token_ids) + tokens, side, model)
    if not all(
        0 <= token < _MOST_TOKEN_IDS for token in (*record.prompt_token_ids, *record.token_ids)
    ):
        raise ValueError(f"{side} has a token that no model has.")
    read = prompt_rows(len(record.prompt_token_ids), tokens)
    for counts, rows in (
        (record.expert_counts, tokens),
        (record.raw_counts, tokens),
        (record.prompt_expert_counts, read),
        (record.prompt_raw_counts, read),
    ):
        if counts.shape != (rows, model.layers):
            raise ValueError(f"the counts of {side} are not those of its tokens and layers.")
        if counts.max(initial=0) > model.experts:
            raise ValueError(f"{side} counts more experts than the {model.experts} there are.")
    seconds = record.token_seconds
    if seconds.shape != (tokens,):
        raise ValueError(f"the times of {side} are not those of its tokens.")
    if not (np.isfinite(seconds).all() and (np.diff(seconds, prepend=0.0) >= 0).all()):
        raise ValueError(f"the times of {side} do not rise.")
    _check_decided(record, side, model)
    if len(record.token_texts) != tokens or "".join(record.token_texts) != record.text:
        raise ValueError(f"the token texts of {side} do not add up to its text.")


def _check_decided(record: SideRecord, side: str, model: ModelInfo) -> None:
    tokens = len(record.token_ids)
    positions = read_positions(len(record.prompt_token_ids), tokens)
    try:
        if record.routed_experts is not None:
            check_routed(record.routed_experts, positions, model.layers, model.experts)
        if record.choices is not None:
            record.choices.check(tokens)
    except ValueError as error:
        raise ValueError(f"of {side}, {error}") from error
    logits = record.router_logits
    if logits is not None and logits.shape != (positions, model.layers, model.experts):
        raise ValueError(f"the router logits of {side} are not those of its positions and layers.")
    if record.drift is not None:
        record.drift.check(model.layers)
