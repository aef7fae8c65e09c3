"""The weights of an OLMoE, layer by layer, for a forward of our own; and why a model has none.

Reads modules and changes nothing. Knows neither rules nor caches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.olmoe import modeling_olmoe as olmoe

from bh_studio.engine.decoding.step import hook_problem
from bh_studio.engine.moe.expert_weights import Experts
from bh_studio.engine.moe.experts import NAME as SELECTED_EXPERTS

_CLASSES = (
    olmoe.OlmoeForCausalLM,
    olmoe.OlmoeModel,
    olmoe.OlmoeDecoderLayer,
    olmoe.OlmoeAttention,
    olmoe.OlmoeSparseMoeBlock,
    olmoe.OlmoeExperts,
    olmoe.OlmoeTopKRouter,
    olmoe.OlmoeRMSNorm,
    olmoe.OlmoeRotaryEmbedding,
    nn.Linear,
    nn.Embedding,
    nn.ModuleList,
)
_ATTENTION = ("sdpa", "eager")


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """A root mean square norm. weight: (width,). zeros: (1, width)."""

    weight: Tensor
    zeros: Tensor
    epsilon: float


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One decoder layer. query, key, value, output: (out, in)."""

    input_norm: Norm
    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    query_norm: Norm
    key_norm: Norm
    experts_norm: Norm
    router: nn.Module
    router_weight: Tensor
    experts: Experts


def layout_problem(model: PreTrainedModel) -> str:
    """Why a forward of our own cannot stand in for that of `model`, a sentence; empty if it can.

    It can where every module is what transformers made it, in one dtype, and the experts are
    computed by experts.selected_experts_forward.
    """
    if type(model) is not olmoe.OlmoeForCausalLM:
        return f"the layers of {type(model).__name__} are not those of OlmoeForCausalLM"
    if len({parameter.dtype for parameter in model.parameters()}) > 1:
        return "the weights have several dtypes"
    return _setting_problem(model) or hook_problem(model) or _module_problem(model)


def read_layers(model: PreTrainedModel) -> list[Layer]:
    """The decoder layers of `model`, which has no layout_problem."""
    return [_layer(module) for module in model.base_model.layers]


def read_norm(module: Any) -> Norm:
    """The weights of one OlmoeRMSNorm."""
    return Norm(module.weight, torch.zeros_like(module.weight)[None], module.variance_epsilon)


def _setting_problem(model: PreTrainedModel) -> str:
    config: Any = model.config
    if config._experts_implementation != SELECTED_EXPERTS:
        return f"the experts are computed by {config._experts_implementation}"
    if config._attn_implementation not in _ATTENTION:
        return f"attention is computed by {config._attn_implementation}"
    return ""


def _module_problem(model: PreTrainedModel) -> str:
    for name, module in model.named_modules():
        attributes, called = vars(module), name or "the model"
        # The experts call their activation, whatever it is.
        if type(module) not in _CLASSES and not name.endswith(".act_fn"):
            return f"{called} is a {type(module).__name__}"
        if attributes["_parameters"].get("bias") is not None:
            return f"{called} has a bias"
        if module.training:
            return f"{called} is in training mode"
    return ""


def _layer(module: Any) -> Layer:
    attention = module.self_attn
    return Layer(
        input_norm=read_norm(module.input_layernorm),
        query=attention.q_proj.weight,
        key=attention.k_proj.weight,
        value=attention.v_proj.weight,
        output=attention.o_proj.weight,
        query_norm=read_norm(attention.q_norm),
        key_norm=read_norm(attention.k_norm),
        experts_norm=read_norm(module.post_attention_layernorm),
        router=module.mlp.gate,
        router_weight=module.mlp.gate.weight,
        experts=module.mlp.experts,
    )
