"""A tiny OLMoE with random weights and a byte-level tokenizer, made in a moment, for tests."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import OlmoeConfig, OlmoeForCausalLM, PreTrainedTokenizerFast

LAYERS, EXPERTS, TOP_K, HIDDEN, CONTEXT = 3, 16, 4, 32, 128
END_OF_TEXT = "<|endoftext|>"
TURN_MARKS = ("<|im_start|>", "<|im_end|>")
CHAT_CONTEXT = 512
# OLMoE's own manner: roles are words like others, the end of text ends a turn.
ROLES_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    r"{{ '<|' + message.role + '|>\n' + message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}"
    r"{{ '\n' }}{% endfor %}"
    r"{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
# Turns between two special tokens of their own.
MARKS_TEMPLATE = (
    "{% for message in messages %}"
    r"{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
    r"{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and the end of text as token 256."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END_OF_TEXT)


def with_added(tokenizer: PreTrainedTokenizerFast, *names: str) -> PreTrainedTokenizerFast:
    """`tokenizer` with more tokens, of the kind that is added and yet not special."""
    tokenizer.add_tokens(list(names))
    return tokenizer


def tiny_chat_tokenizer(template: str = ROLES_TEMPLATE) -> PreTrainedTokenizerFast:
    """The same with a chat template, and the two marks of turns as tokens 257 and 258."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(TURN_MARKS)})
    tokenizer.bos_token = END_OF_TEXT
    if template == MARKS_TEMPLATE:
        tokenizer.eos_token = TURN_MARKS[1]
    tokenizer.chat_template = template
    return tokenizer


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


def save_tiny_chat_checkpoint(folder: Path, template: str = ROLES_TEMPLATE) -> Path:
    """Write a tiny instruct model, which speaks as at random, to `folder`, and return it."""
    model = tiny_model(dtype=torch.bfloat16, vocab_size=259, max_position_embeddings=CHAT_CONTEXT)
    model.save_pretrained(folder)
    tiny_chat_tokenizer(template).save_pretrained(folder)
    return folder
