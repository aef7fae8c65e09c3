"""Whether a model's forward is what its classes say. Changes nothing; knows no architecture."""

from __future__ import annotations

from torch import nn
from torch.nn.modules import module as torch_modules


def hook_problem(model: nn.Module) -> str:
    """What runs besides, or instead of, the forwards of the modules of `model`; empty if nothing.

    A way to decode that does not call them one by one would leave it out.
    """
    if torch_modules._has_any_global_hook():
        return "PyTorch calls a hook in every module"
    for name, module in model.named_modules():
        called, attributes = name or "the model", vars(module)
        if "forward" in attributes or attributes.get("_compiled_call_impl") is not None:
            return f"the forward of {called} was replaced"
        if attributes["_forward_hooks"] or attributes["_forward_pre_hooks"]:
            return f"{called} has a forward hook"
    return ""
