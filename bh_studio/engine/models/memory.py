"""What memory a model takes, what is free, and giving memory back."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Sequence
from typing import Any

import psutil
import torch

from bh_studio.engine.records.terms import MemoryNeed
from bh_studio.engine.units import format_bytes

# Prompt and answer of a side that an estimate reckons with; longer ones take more.
CACHE_TOKENS = 2048
# Beside weights and cache, once the libraries are there: first calibration, activations of prompts.
# Full-size OLMoE used less in whole runs (benchmarks/results/full_size_cpu.json and _h200.json).
_HEADROOM = {"cpu": 0.75e9, "cuda": 1.5e9, "mps": 1.0e9}
# A model of a few megabytes needs no such reserve.
_MOST_HEADROOM_SHARE = 8


def free_bytes(device: str) -> int:
    """Memory of `device` that a model could take now, in bytes."""
    if device.startswith("cuda"):
        free, _total = torch.cuda.mem_get_info(torch.device(device))
        # What PyTorch keeps for itself but does not use is free to us.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + kept)
    return int(psutil.virtual_memory().available)


def cache_bytes(config: Any, dtype: torch.dtype) -> tuple[int, int]:
    """Bytes of the keys and values of both sides, and the tokens a side that they are for."""
    tokens = min(CACHE_TOKENS, int(config.max_position_embeddings))
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    a_token = 2 * config.num_hidden_layers * kv_heads * width * dtype.itemsize
    return 2 * tokens * a_token, tokens


def memory_needs(
    devices: Sequence[str],
    parameters: int,
    config: Any,
    dtype: torch.dtype,
    reusable: dict[str, int],
) -> tuple[MemoryNeed, ...]:
    """What a model takes on each of `devices`, over which it is spread evenly.

    reusable: bytes by device that the model loaded now would give back.
    """
    weights = -(-parameters * dtype.itemsize // len(devices))
    # decoding/key_value_buffer.py keeps them in float32 on the CPU.
    kept = torch.float32 if tuple(devices) == ("cpu",) else dtype
    cache, tokens = cache_bytes(config, kept)
    return tuple(
        MemoryNeed(
            device=device,
            weights=weights,
            cache=-(-cache // len(devices)),
            cache_tokens=tokens,
            headroom=int(min(_HEADROOM[device.partition(":")[0]], _MOST_HEADROOM_SHARE * weights)),
            free=free_bytes(device) + reusable.get(device, 0),
        )
        for device in devices
    )


def shortage(name: str, needs: Sequence[MemoryNeed]) -> str:
    """What does not fit, in numbers, one sentence a device; empty if everything does."""
    return " ".join(
        f"{name} needs {format_bytes(need.total)} on {need.device}: {format_bytes(need.weights)} "
        f"for its weights, {format_bytes(need.cache)} to remember {need.cache_tokens} tokens a "
        f"side, {format_bytes(need.headroom)} for the rest. {format_bytes(need.free)} are free."
        for need in needs
        if not need.fits
    )


def bytes_by_device(model: torch.nn.Module) -> dict[str, int]:
    """Bytes of the parameters of `model` on each device."""
    sizes: dict[str, int] = {}
    for parameter in model.parameters():
        device = str(parameter.device)
        sizes[device] = sizes.get(device, 0) + parameter.nbytes
    return sizes


def release_memory() -> None:
    """Give what is no longer referred to back to the system."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        except (OSError, AttributeError):
            return  # another C library, which has no such habit
