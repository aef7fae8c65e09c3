"""Finding the routers of a model. Knows which router classes follow the seam that rules replace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from torch import Tensor, nn
from transformers.models.olmoe.modeling_olmoe import OlmoeTopKRouter

# What a router must look like for the rules to take its place.
ROUTER_CLASSES: tuple[type[nn.Module], ...] = (OlmoeTopKRouter,)

RouterForward = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


class Router(Protocol):
    """The seam of a router.

    forward: hidden states to (logits, mixing weights, expert indices), one row a token.
    weight: (expert, hidden). top_k, num_experts: int. norm_topk_prob: whether the kept weights are
    scaled to sum 1.
    """

    weight: Tensor
    top_k: int
    num_experts: int
    norm_topk_prob: bool
    forward: RouterForward


@dataclass(frozen=True, slots=True)
class RouterShape:
    """What all routers of a model share."""

    layers: int
    experts: int
    top_k: int
    norm_topk_prob: bool


def find_routers(model: nn.Module) -> list[Router]:
    """The routers of `model` in layer order.

    Raises RuntimeError if there are none.
    """
    routers = [module for module in model.modules() if isinstance(module, ROUTER_CLASSES)]
    if not routers:
        raise RuntimeError(
            f"No OlmoeTopKRouter modules found in {type(model).__name__}: BH routing needs an "
            "OLMoE model from transformers 5.17 or later."
        )
    return cast(list[Router], routers)


def router_shape(routers: list[Router]) -> RouterShape:
    """The shape that all `routers` share. Raises RuntimeError if they differ."""
    shapes = {RouterShape(len(routers), r.num_experts, r.top_k, r.norm_topk_prob) for r in routers}
    if len(shapes) != 1:
        raise RuntimeError(f"The routers of this model differ from layer to layer: {shapes}.")
    return shapes.pop()
