"""The files beside a checkpoint's weights, checked before a weight is read: what they are worth.

transformers reads them, and believes what they say. Here their values are looked at first, and
sizes are compared with what the weights' own headers hold. Knows no device and no memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from bh_studio.engine.errors import DAMAGE, EngineError, reason
from bh_studio.engine.files.plain_json import JsonError, convert
from bh_studio.engine.hub.files import CONFIG
from bh_studio.engine.models.checkpoint import Checkpoint, StoredTensor, parameter_count
from bh_studio.engine.models.layout import empty_model

GENERATION, TOKENIZER = "generation_config.json", "tokenizer.json"
_OF_SPECIAL_TOKENS = ("tokenizer_config.json", "special_tokens_map.json")
_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token",
                   "mask_token", "additional_special_tokens", "extra_special_tokens")  # fmt: skip
_COMPLETE = "Check that all files of the checkpoint are there and complete."
# Numbers that every configuration has, after transformers has filled in what is left out.
_SIZES = ("hidden_size", "num_attention_heads", "num_key_value_heads", "vocab_size",
          "intermediate_size", "num_experts", "num_experts_per_tok")  # fmt: skip
# Longer contexts than any model has take memory before a token is read.
_MOST_CONTEXT = 2**24
_LONGEST_TOKEN = 1000
_FIELD = re.compile(r"[Ff]ield '(\w+)'")


def read_config(checkpoint: Checkpoint, tensors: Mapping[str, StoredTensor]) -> PreTrainedConfig:
    """The configuration, of a model that can be as large as it says with such `tensors`.

    Raises EngineError.
    """
    try:
        config = AutoConfig.from_pretrained(
            checkpoint.folder, local_files_only=True, trust_remote_code=False
        )
    # Values of wrong types surface as whatever the configuration's own checks raise.
    except Exception as error:
        field = _FIELD.search(str(error))
        problem = f"{field[1]} is not what it should be" if field else "a value is of another kind"
        raise _unusable(checkpoint, problem) from error
    most = parameter_count(tensors)
    wanted = {name: most for name in _SIZES if getattr(config, name, None) is not None}
    wanted |= {"num_hidden_layers": len(tensors), "max_position_embeddings": _MOST_CONTEXT}
    if getattr(config, "head_dim", None) is not None:
        wanted["head_dim"] = most
    for name, largest in wanted.items():
        value = getattr(config, name, None)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
            shown = reason(ValueError(repr(value)[:60]))
            raise _unusable(checkpoint, f"{name} is {shown}, not 1 to {largest}")
    return config


def empty_model_of(
    checkpoint: Checkpoint, config: PreTrainedConfig, dtype: torch.dtype
) -> PreTrainedModel:
    """The model without its weights. Raises EngineError for a configuration that none can have."""
    try:
        return empty_model(config, dtype)
    except Exception as error:  # whatever the parts of a model stumble over
        raise _unusable(checkpoint, "no model can be made of its values") from error


def read_generation(checkpoint: Checkpoint, config: PreTrainedConfig) -> GenerationConfig | None:
    """What ends a text and the like, if the checkpoint says so. Raises EngineError."""
    values = checkpoint.json(GENERATION)
    if values is None:
        return None
    try:
        end = values.get("eos_token_id")
        ends = end if isinstance(end, list) else [] if end is None else [end]
        for token_id in convert(list[int], ends, "eos_token_id"):
            if not 0 <= token_id < config.vocab_size:
                raise JsonError(f"eos_token_id is none of the {config.vocab_size} tokens.")
        return GenerationConfig.from_pretrained(checkpoint.folder, local_files_only=True)
    except JsonError as error:
        raise _damaged(checkpoint, GENERATION, str(error)) from error
    except (OSError, *DAMAGE) as error:
        raise _damaged(checkpoint, GENERATION, "a value is not what it should be.") from error


def read_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """The tokenizer, which can read a text and write one. Raises EngineError."""
    checkpoint.json(TOKENIZER)
    for name in _OF_SPECIAL_TOKENS:
        _check_special_tokens(checkpoint, name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            checkpoint.folder, local_files_only=True, trust_remote_code=False
        )
        # Values of wrong types are noticed when it is used.
        token_ids = convert(list[int], tokenizer("Once", verbose=False).input_ids)
        if not token_ids:
            raise ValueError("it makes no token of a text")
        convert(str, tokenizer.decode(token_ids))
    # The tokenizers library raises bare exceptions for files it cannot read.
    except Exception as error:
        is_ours = isinstance(error, DAMAGE) and not isinstance(error, ValueError)
        why = "a value is not what it should be" if is_ours else reason(error).rstrip(".")
        raise EngineError(
            f"The tokenizer in {checkpoint.folder} could not be read: {why}.", _COMPLETE
        ) from error
    return tokenizer


def _check_special_tokens(checkpoint: Checkpoint, name: str) -> None:
    """Raise EngineError for a special token that is no text."""
    values = checkpoint.json(name) or {}
    for key in _SPECIAL_TOKENS:
        value = values.get(key)
        tokens = value if isinstance(value, list) else [value]
        if key == "extra_special_tokens" and isinstance(value, dict):
            # By the names under which a tokenizer has them.
            tokens = list(value.values())
        if not all(token is None or _is_token(token) for token in tokens):
            raise _damaged(checkpoint, name, f"{key} is no token.")


def _is_token(token: Any) -> bool:
    content = token.get("content") if isinstance(token, dict) else token
    # Each becomes a part of a pattern, which takes a hundred times its length.
    return isinstance(content, str) and len(content) <= _LONGEST_TOKEN


def _unusable(checkpoint: Checkpoint, problem: str) -> EngineError:
    return EngineError(
        f"The model in {checkpoint.folder} could not be read: {problem}.",
        f"Its {CONFIG} is damaged, of another model, or for another version of transformers.",
    )


def _damaged(checkpoint: Checkpoint, name: str, problem: str) -> EngineError:
    return EngineError(
        f"The model in {checkpoint.folder} could not be read: {name}: {problem}", _COMPLETE
    )
