"""A tiny OLMoE with random weights and a byte-level tokenizer, made in a moment, for tests."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import OlmoeConfig, OlmoeForCausalLM, PreTrainedTokenizerFast

LAYERS, EXPERTS, TOP_K, HIDDEN, CONTEXT = 3, 16, 4, 32, 128
END_OF_TEXT = "<|endoftext|>"


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and the end of text as token 256."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END_OF_TEXT)


def tiny_model(
    seed: int = 0, dtype: torch.dtype = torch.float32, top_k: int = TOP_K, **config: object
) -> OlmoeForCausalLM:
    """Random weights with routers spread enough that their decisions differ from token to token."""
    settings = {
        "vocab_size": 257,
        "hidden_size": HIDDEN,
        "intermediate_size": 16,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "num_experts": EXPERTS,
        "num_experts_per_tok": top_k,
        "max_position_embeddings": CONTEXT,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": 256,
        **config,
    }
    torch.manual_seed(seed)
    model = OlmoeForCausalLM(OlmoeConfig(**settings))
    for layer in model.model.layers:
        layer.mlp.gate.weight.data.normal_(0, 0.2)
        layer.mlp.experts.gate_up_proj.data.normal_(0, 0.2)
        layer.mlp.experts.down_proj.data.normal_(0, 0.2)
    model.lm_head.weight.data.normal_(0, 0.3)
    return model.to(dtype).eval()


def save_tiny_checkpoint(folder: Path) -> Path:
    """Write a tiny model in bfloat16 and its tokenizer to `folder`, and return it."""
    tiny_model(dtype=torch.bfloat16).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
