"""A model of a configuration whose parameters have no memory yet, and where they are to lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from bh_studio.engine.models.memory import free_bytes


@dataclass(frozen=True, slots=True)
class Layout:
    """device_of: the device of a parameter, by name. finish: to be called on the filled model."""

    device_of: Callable[[str], torch.device]
    finish: Callable[[PreTrainedModel], PreTrainedModel]


def empty_model(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """A model with parameters on the meta device and buffers, which no checkpoint holds, on the
    CPU."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    for name, module in list(model.named_modules()):
        if any(
            buffer is not None and buffer.is_meta for buffer in vars(module)["_buffers"].values()
        ):
            # Rotary embeddings are all that has buffers in the architectures there are; they follow
            # from the configuration.
            model.set_submodule(name, type(module)(model.config))
    return model.eval()


def layout(model: PreTrainedModel, devices: tuple[str, ...], dtype: torch.dtype) -> Layout:
    """One device for all of `model`, or its layers spread evenly over several."""
    if len(devices) == 1:
        device = torch.device(devices[0])
        return Layout(lambda name: device, lambda filled: filled.to(device))
    from accelerate import dispatch_model, infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    whole = list(model._no_split_modules or ())
    limits = {torch.device(name).index: free_bytes(name) for name in devices}
    balanced = get_balanced_memory(
        model, max_memory=limits, no_split_module_classes=whole, dtype=dtype
    )
    device_map: dict[str, Any] = infer_auto_device_map(
        model, max_memory=balanced, no_split_module_classes=whole, dtype=dtype
    )

    def device_of(name: str) -> torch.device:
        while name not in device_map:
            name = name.rpartition(".")[0]
        return torch.device("cuda", device_map[name])

    return Layout(device_of, lambda filled: dispatch_model(filled, device_map))
