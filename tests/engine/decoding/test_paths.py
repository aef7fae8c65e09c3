"""Which way a model decodes, and why not a faster one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers import OlmoeForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from bh_studio.engine.decoding.cpu_step import CpuStep
from bh_studio.engine.decoding.paths import CPU, STOCK, decode_path, open_step
from bh_studio.engine.decoding.stock_step import StockStep
from bh_studio.engine.moe.experts import use_selected_experts
from bh_studio.engine.notebook import BHRoutingIntegration
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.rules.parameters import RouterShape
from tests.tiny_olmoe import EXPERTS, LAYERS, TOP_K, tiny_model

SHAPE = RouterShape(LAYERS, EXPERTS, TOP_K, norm_topk_prob=False)


@pytest.fixture
def model() -> OlmoeForCausalLM:
    model = tiny_model()
    use_selected_experts(model)
    return model


def test_an_olmoe_on_the_cpu_takes_the_step_of_our_own(model: OlmoeForCausalLM) -> None:
    path = decode_path(model)
    assert (path.name, path.reason, str(path)) == (CPU, "", CPU)
    assert isinstance(open_step(model, SHAPE, None, None), CpuStep)


class Adapted(nn.Module):
    """A projection with something beside it, as adapters are."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


def replace_experts(model: OlmoeForCausalLM) -> None:
    model.set_experts_implementation("grouped_mm")


def replace_attention(model: OlmoeForCausalLM) -> None:
    model.config._attn_implementation = "another"


def adapt(model: OlmoeForCausalLM) -> None:
    attention = model.model.layers[1].self_attn
    attention.v_proj = Adapted(attention.v_proj)


def subclass(model: OlmoeForCausalLM) -> None:
    model.model.norm.__class__ = type("OtherNorm", (type(model.model.norm),), {})


def hook(model: OlmoeForCausalLM) -> None:
    model.model.layers[0].register_forward_hook(lambda *_: None)


def pre_hook(model: OlmoeForCausalLM) -> None:
    model.model.layers[2].self_attn.k_proj.register_forward_pre_hook(lambda *_: None)


def replace_forward(model: OlmoeForCausalLM) -> None:
    mlp = model.model.layers[0].mlp
    mlp.forward = mlp.forward


def add_bias(model: OlmoeForCausalLM) -> None:
    model.model.layers[0].self_attn.q_proj.bias = nn.Parameter(torch.zeros(32))


def train(model: OlmoeForCausalLM) -> None:
    model.model.layers[1].train()


def mix_dtypes(model: OlmoeForCausalLM) -> None:
    model.model.norm.double()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (replace_experts, "the experts are computed by grouped_mm"),
        (replace_attention, "attention is computed by another"),
        (adapt, "model.layers.1.self_attn.v_proj is a Adapted"),
        (subclass, "model.norm is a OtherNorm"),
        (hook, "model.layers.0 has a forward hook"),
        (pre_hook, "model.layers.2.self_attn.k_proj has a forward hook"),
        (replace_forward, "the forward of model.layers.0.mlp was replaced"),
        (add_bias, "model.layers.0.self_attn.q_proj has a bias"),
        (train, "model.layers.1 is in training mode"),
        (mix_dtypes, "the weights have several dtypes"),
    ],
)
def test_a_model_that_is_not_as_it_was_made_takes_its_own_forward(
    change: Callable[[OlmoeForCausalLM], None], reason: str, model: OlmoeForCausalLM
) -> None:
    change(model)
    path = decode_path(model)
    assert (path.name, path.reason) == (STOCK, reason)
    assert str(path) == f"{STOCK} ({reason})"
    assert isinstance(open_step(model, SHAPE, None, None), StockStep)


def test_a_hook_in_every_module_is_seen(model: OlmoeForCausalLM) -> None:
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert decode_path(model).reason == "PyTorch calls a hook in every module"
    handle.remove()
    assert decode_path(model).name == CPU


def test_a_patched_model_takes_the_patched_forward(
    model: OlmoeForCausalLM, recording: Recording
) -> None:
    with BHRoutingIntegration(model, max_k=TOP_K, recording=recording):
        assert decode_path(model).reason == "the forward of model was replaced"
    assert decode_path(model).name == CPU


def test_other_architectures_take_their_own_forward() -> None:
    model = Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            vocab_size=16, hidden_size=8, intermediate_size=8, moe_intermediate_size=8,
            num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, num_experts=4,
        )
    )  # fmt: skip
    reason = "the layers of Qwen3MoeForCausalLM are not those of OlmoeForCausalLM"
    assert decode_path(model.eval()).reason == reason


def test_layers_on_several_devices_and_on_others_take_their_own_forward(
    model: OlmoeForCausalLM,
) -> None:
    model.model.layers[1].to("meta")
    assert decode_path(model).reason == "the layers lie on several devices"
    assert decode_path(model.to("meta")).reason == "the model is on meta"
