"""Finding the routers of a model and reading their shape, whatever architecture they belong to."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from bh_studio.engine.architectures import (
    ARCHITECTURES,
    MOST_EXPERTS,
    Architecture,
    known_routers,
    mentions_experts,
    without_experts,
)
from bh_studio.engine.rules.parameters import RouterShape

# Hidden states to logits, mixing weights and expert indices, one row a token.
RouterForward = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


def find_routers(model: nn.Module) -> list[nn.Module]:
    """The routers of `model` in layer order, subclasses of the known classes among them.

    Raises RuntimeError if there are none, or if a subclass computes something of its own.
    """
    routers = [module for module in model.modules() if _router_class(module) is not None]
    if not routers:
        raise RuntimeError(f"No {ARCHITECTURES[0].router} modules found: {_why_none(model)}")
    for router in routers:
        known = _router_class(router)
        if known is not None and type(router).forward is not known.forward:
            raise RuntimeError(
                f"{type(router).__name__} has a forward of its own, so no rule can stand in for "
                f"it; BH routing knows that of {known.__name__}."
            )
    return routers


def architecture_of_router(router: nn.Module) -> Architecture:
    """The entry that says how `router`, one that find_routers gave, is written."""
    known = _router_class(router)
    assert known is not None
    return _ENTRIES[known.__module__, known.__qualname__]


def router_weight(router: nn.Module) -> Tensor:
    """The matrix of `router` that makes logits of hidden states: (expert, hidden)."""
    weight: Tensor = getattr(router, architecture_of_router(router).weight)
    return weight


def router_shape(routers: list[nn.Module]) -> RouterShape:
    """The shape that all `routers` share.

    Raises RuntimeError if they differ, or have more experts than can be counted.
    """
    shapes = {_shape(router, len(routers)) for router in routers}
    if len(shapes) != 1:
        raise RuntimeError(f"The routers of this model differ from layer to layer: {shapes}.")
    shape = shapes.pop()
    if shape.experts > MOST_EXPERTS:
        raise RuntimeError(
            f"This model has {shape.experts} experts in a layer; BH Studio counts up to "
            f"{MOST_EXPERTS}."
        )
    return shape


_ENTRIES = {(entry.module, entry.router): entry for entry in ARCHITECTURES}


def _router_class(module: nn.Module) -> type[nn.Module] | None:
    """The known class that `module` is an instance of; None for any other module."""
    # By name: the module of a class that is in use was imported, and no other needs to be.
    for cls in type(module).__mro__:
        if (cls.__module__, cls.__qualname__) in _ENTRIES:
            return cls
    return None


def _shape(router: nn.Module, layers: int) -> RouterShape:
    entry = architecture_of_router(router)
    normalizes = entry.normalizes
    if isinstance(normalizes, str):
        normalizes = bool(getattr(router, normalizes))
    return RouterShape(
        layers, int(getattr(router, entry.experts)), int(getattr(router, entry.top_k)), normalizes
    )


def _why_none(model: nn.Module) -> str:
    name = type(model).__name__
    found = sorted({type(m).__name__ for m in model.modules() if "Router" in type(m).__name__})
    config = getattr(model, "config", None)
    if found:
        return f"{name} has {', '.join(found)}, and BH routing knows {known_routers()}."
    if config is not None and mentions_experts(config.to_dict()):
        return f"{name} routes in another way, and BH routing knows {known_routers()}."
    return without_experts(name)
