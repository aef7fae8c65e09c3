"""Tiny models of other architectures than OLMoE, with random weights, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    FlexOlmoConfig,
    FlexOlmoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from tests.tiny_olmoe import CONTEXT, EXPERTS, HIDDEN, LAYERS, TOP_K, tiny_tokenizer

_CLASSES: dict[str, tuple[Any, Any]] = {
    "olmoe": (OlmoeConfig, OlmoeForCausalLM),
    "flex_olmo": (FlexOlmoConfig, FlexOlmoForCausalLM),
    "qwen3_moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM),
    "mixtral": (MixtralConfig, MixtralForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}
_SETTINGS = {
    "vocab_size": 257,
    "hidden_size": HIDDEN,
    "intermediate_size": 16,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": 256,
}
_OF_TYPE: dict[str, dict[str, Any]] = {
    "olmoe": {"num_experts": EXPERTS, "num_experts_per_tok": TOP_K},
    "flex_olmo": {"num_experts": EXPERTS, "num_experts_per_tok": TOP_K},
    "qwen3_moe": {
        "num_experts": EXPERTS,
        "num_experts_per_tok": TOP_K,
        "moe_intermediate_size": 16,
        "head_dim": 16,
    },
    "mixtral": {"num_local_experts": EXPERTS, "num_experts_per_tok": TOP_K},
    "llama": {},
}


def tiny_config(model_type: str, **config: Any) -> Any:
    """The configuration of a tiny model of `model_type`."""
    return _CLASSES[model_type][0](**{**_SETTINGS, **_OF_TYPE[model_type], **config})


def tiny_of_type(
    model_type: str, dtype: torch.dtype = torch.float32, **config: Any
) -> PreTrainedModel:
    """Random weights with routers spread enough that their decisions differ between tokens."""
    torch.manual_seed(0)
    model: PreTrainedModel = _CLASSES[model_type][1](tiny_config(model_type, **config))
    for name, parameter in model.named_parameters():
        if ".gate.weight" in name or ".experts." in name:
            parameter.data.normal_(0, 0.2)
    model.lm_head.weight.data.normal_(0, 0.3)
    return model.to(dtype).eval()


def save_tiny_of_type(model_type: str, folder: Path, **config: Any) -> Path:
    """Write such a model in bfloat16 and its tokenizer to `folder`, and return it."""
    tiny_of_type(model_type, torch.bfloat16, **config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
