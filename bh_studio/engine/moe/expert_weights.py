"""The experts of a layer as their weights, wherever they are computed. Knows no router."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

from torch import Tensor
from transformers import PreTrainedModel


class Experts(Protocol):
    """The experts of one layer: gate_up_proj (expert, 2 * width, hidden), down_proj (expert,
    hidden, width), act_fn the activation of the gate."""

    gate_up_proj: Tensor
    down_proj: Tensor
    act_fn: Callable[[Tensor], Tensor]


def find_experts(model: PreTrainedModel) -> list[Experts]:
    """The experts modules of `model` in layer order."""
    found = [
        m for m in model.modules() if {"gate_up_proj", "down_proj"} <= vars(m)["_parameters"].keys()
    ]
    return cast(list[Experts], found)


def gated(experts: Experts, projected: Tensor) -> Tensor:
    """The activation of the gate times the other half: (row, 2 * width) to (row, width)."""
    gate, up = projected.chunk(2, dim=-1)
    return experts.act_fn(gate) * up
