"""Which tensors a random OLMoE checkpoint has, how large and how spread. Knows no file format.

Routers are scaled layer by layer so that they decide about as the real ones do. After RMSNorm a
hidden state has unit RMS, so a router whose weights have the standard deviation s gives logits
with the standard deviation s * sqrt(hidden size). s is chosen such that Gaussian logits have the
mean top-8 softmax mass of the real model's logits in that layer. Token 0 is left out: the first
position is an attention sink with logits unlike all others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

BYTES_A_VALUE = 2  # bfloat16
EMBEDDING_STD = 0.02
# Relative to 1/sqrt(fan in): with these, what attention and experts add to the residual stream
# in a layer is about as large as a token's embedding, so none of the three drowns the others.
ATTENTION_OUTPUT_SCALE, EXPERT_OUTPUT_SCALE = 0.02, 0.2


class CheckpointError(Exception):
    """A sentence for the person at the command line: what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """A tensor to be written: normal values with this standard deviation, or ones for None."""

    name: str
    shape: tuple[int, ...]
    std: float | None

    @property
    def values(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return self.values * BYTES_A_VALUE


def real_top_masses(path: Path, top_k: int) -> list[float]:
    """Mean softmax mass of the `top_k` largest logits in each layer; token 0 is left out.

    Raises CheckpointError when the file holds no such logits.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            logits = torch.from_numpy(file["logits"]).float()
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} holds no array `logits` ({error}). Name a .npz file with router logits."
        ) from error
    if logits.ndim != 3 or logits.shape[1] < 2 or logits.shape[2] < top_k:
        raise CheckpointError(
            f"`logits` in {path} has the shape {tuple(logits.shape)}: it must be (layer, token, "
            f"expert) with at least 2 tokens and {top_k} experts."
        )
    return [top_mass(layer, top_k) for layer in logits[:, 1:]]


def top_mass(logits: torch.Tensor, top_k: int) -> float:
    """Mean softmax mass of the `top_k` largest of logits (token, expert)."""
    return logits.softmax(-1).topk(top_k).values.sum(-1).mean().item()


def router_std(mass: float, experts: int, top_k: int, hidden: int) -> float:
    """Standard deviation of router weights whose logits have that mean top-k mass."""
    if not top_k / experts < mass < 1:
        raise CheckpointError(
            f"A top-{top_k} mass of {mass:.3f} is out of reach for {experts} experts: it lies "
            f"between {top_k / experts:.3f} and 1. Check the logits."
        )
    unit = torch.randn(8192, experts, generator=torch.Generator().manual_seed(0))
    low, high = 0.0, 64.0
    for _ in range(30):  # the mass grows with the spread of the logits
        middle = (low + high) / 2
        if top_mass(unit * middle, top_k) < mass:
            low = middle
        else:
            high = middle
    return high / math.sqrt(hidden)


def layer_plan(config: Mapping[str, Any], layer: int, mass: float) -> Iterator[TensorPlan]:
    """The tensors of one layer, one by one for each expert, as the hub stores them."""
    hidden, width = config["hidden_size"], config["intermediate_size"]
    head = hidden // config["num_attention_heads"]
    keys = head * config["num_key_value_heads"]
    inward = 1 / math.sqrt(hidden)
    prefix = f"model.layers.{layer}"
    yield TensorPlan(f"{prefix}.input_layernorm.weight", (hidden,), None)
    yield TensorPlan(f"{prefix}.self_attn.q_proj.weight", (hidden, hidden), inward)
    yield TensorPlan(f"{prefix}.self_attn.k_proj.weight", (keys, hidden), inward)
    yield TensorPlan(f"{prefix}.self_attn.v_proj.weight", (keys, hidden), inward)
    outward = ATTENTION_OUTPUT_SCALE * inward
    yield TensorPlan(f"{prefix}.self_attn.o_proj.weight", (hidden, hidden), outward)
    yield TensorPlan(f"{prefix}.self_attn.q_norm.weight", (hidden,), None)
    yield TensorPlan(f"{prefix}.self_attn.k_norm.weight", (keys,), None)
    yield TensorPlan(f"{prefix}.post_attention_layernorm.weight", (hidden,), None)
    experts = config["num_experts"]
    spread = router_std(mass, experts, config["num_experts_per_tok"], hidden)
    yield TensorPlan(f"{prefix}.mlp.gate.weight", (experts, hidden), spread)
    outward = EXPERT_OUTPUT_SCALE / math.sqrt(width)
    for expert in range(experts):
        name = f"{prefix}.mlp.experts.{expert}"
        yield TensorPlan(f"{name}.gate_proj.weight", (width, hidden), inward)
        yield TensorPlan(f"{name}.up_proj.weight", (width, hidden), inward)
        yield TensorPlan(f"{name}.down_proj.weight", (hidden, width), outward)


def checkpoint_plan(config: Mapping[str, Any], masses: Sequence[float]) -> list[TensorPlan]:
    """All tensors in file order; `masses` is the wanted top-k mass, a layer each."""
    layers = config["num_hidden_layers"]
    if not 1 <= layers <= len(masses):
        raise CheckpointError(
            f"{layers} layers are asked for, and the router logits have {len(masses)}. "
            f"Ask for 1 to {len(masses)}."
        )
    vocabulary = (config["vocab_size"], config["hidden_size"])
    return [
        TensorPlan("model.embed_tokens.weight", vocabulary, EMBEDDING_STD),
        *(plan for layer in range(layers) for plan in layer_plan(config, layer, masses[layer])),
        TensorPlan("model.norm.weight", (config["hidden_size"],), None),
        TensorPlan("lm_head.weight", vocabulary, EMBEDDING_STD),
    ]


def split_into_shards(plans: Sequence[TensorPlan], shard_bytes: int) -> list[list[TensorPlan]]:
    """The tensors in order, as many in each shard as fit; a larger tensor has its own."""
    shards: list[list[TensorPlan]] = [[]]
    size = 0
    for plan in plans:
        if shards[-1] and size + plan.bytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(plan)
        size += plan.bytes
    return shards
