"""What is known of a load before any weight is read: files, device, number format, memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig

from bh_studio.engine.architectures import Architecture, architecture_of
from bh_studio.engine.errors import EngineError
from bh_studio.engine.models.checkpoint import (
    Checkpoint,
    StoredTensor,
    find_checkpoint,
    parameter_count,
)
from bh_studio.engine.models.configuration import read_config
from bh_studio.engine.models.devices import (
    ALL_GPUS,
    AUTO,
    CPU,
    TORCH_DTYPES,
    can_spread,
    check_device,
    check_dtype,
    gpus,
)
from bh_studio.engine.models.memory import memory_needs, shortage
from bh_studio.engine.protocol.events import ModelInspected
from bh_studio.engine.protocol.requests import InspectModel
from bh_studio.engine.records.terms import MemoryNeed

# Below this size the weights stay in the processor's caches, where float32 products are the faster
# ones. Above it memory traffic decides.
SMALL_MODEL_PARAMETERS = 100_000_000


class MemoryShortageError(EngineError):
    """A model needs more memory than is free. needs: one entry a device."""

    def __init__(self, message: str, advice: str, needs: tuple[MemoryNeed, ...]) -> None:
        super().__init__(message, advice)
        self.needs = needs


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What will be loaded. devices: where its layers will lie, spread evenly over them."""

    checkpoint: Checkpoint
    config: PreTrainedConfig
    architecture: Architecture
    tensors: dict[str, StoredTensor]
    dtype: torch.dtype
    devices: tuple[str, ...]
    needs: tuple[MemoryNeed, ...]

    @property
    def is_small(self) -> bool:
        return parameter_count(self.tensors) <= SMALL_MODEL_PARAMETERS

    def check_memory(self) -> None:
        """Raise MemoryShortageError if the model does not fit."""
        message = shortage(self.checkpoint.name, self.needs)
        if message:
            raise MemoryShortageError(
                message,
                "Close other programs, choose another device or a smaller number format, or load "
                "it anyway.",
                self.needs,
            )


def plan_load(
    source: str, device: str = AUTO, dtype: str = AUTO, reusable: dict[str, int] | None = None
) -> LoadPlan:
    """The plan for LoadModel's values of these names.

    reusable: bytes by device that the model loaded now would give back. Raises EngineError for a
    model, a device or a number format that cannot be used.
    """
    check_dtype(dtype)
    device = check_device(device)
    checkpoint = find_checkpoint(source)
    checkpoint.check()
    tensors = checkpoint.tensors()
    config = read_config(checkpoint, tensors)
    architecture = architecture_of(config)
    if architecture is None:
        raise AssertionError("A checked configuration has an entry.")
    parameters = parameter_count(tensors)

    def needs(devices: tuple[str, ...]) -> tuple[MemoryNeed, ...]:
        chosen = _dtype(dtype, config, devices, parameters)
        return memory_needs(devices, parameters, config, chosen, reusable or {})

    candidates = [(device,)] if device not in (AUTO, ALL_GPUS) else _candidates(device)
    # The first that fits; where none does, the one that comes nearest.
    fitting = [c for c in candidates if all(need.fits for need in needs(c))]
    devices = fitting[0] if fitting else max(candidates, key=lambda c: _room(needs(c)))
    chosen = _dtype(dtype, config, devices, parameters)
    return LoadPlan(checkpoint, config, architecture, tensors, chosen, devices, needs(devices))


def inspect_model(request: InspectModel, reusable: dict[str, int]) -> ModelInspected:
    """The answer to `request`; what makes the model unusable is part of it, not an error."""
    try:
        plan = plan_load(request.source, request.device, request.dtype, reusable)
    except EngineError as error:
        return ModelInspected(request, "", "", (), 0, 0, str(error))
    return ModelInspected(
        request,
        device=", ".join(plan.devices),
        dtype=str(plan.dtype).removeprefix("torch."),
        needs=plan.needs,
        parameter_count=parameter_count(plan.tensors),
        context_length=int(plan.config.max_position_embeddings),
    )


def _candidates(device: str) -> list[tuple[str, ...]]:
    spread = [tuple(gpus())]
    if device == ALL_GPUS:
        return spread
    single = [(gpu,) for gpu in gpus()]
    return [*single, *(spread if can_spread() else []), (CPU,)]


def _dtype(
    dtype: str, config: PreTrainedConfig, devices: tuple[str, ...], parameters: int
) -> torch.dtype:
    if dtype != AUTO:
        return TORCH_DTYPES[dtype]
    if devices == (CPU,) and parameters <= SMALL_MODEL_PARAMETERS:
        return torch.float32
    stored: Any = config.dtype
    return stored if stored in TORCH_DTYPES.values() else torch.bfloat16


def _room(needs: tuple[MemoryNeed, ...]) -> float:
    return min(need.free / need.total for need in needs)
