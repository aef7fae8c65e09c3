"""The devices a model can lie on, and what "auto" means. Knows no model's weights."""

from __future__ import annotations

import importlib.util
import re

import torch

from bh_studio.engine.errors import EngineError
from bh_studio.engine.protocol.requests import DTYPES

AUTO, CPU, ALL_GPUS, APPLE = "auto", "cpu", "cuda:all", "mps"
TORCH_DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, name) for name in DTYPES if name != AUTO
}
_GPU = re.compile(r"cuda:(\d+)")


def gpus() -> list[str]:
    """The CUDA devices that PyTorch can use."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"cuda:{number}" for number in range(count)]


def can_spread() -> bool:
    """Whether layers can be spread over GPUs: there are two or more, and accelerate."""
    return len(gpus()) > 1 and importlib.util.find_spec("accelerate") is not None


def check_device(device: str) -> str:
    """`device` in the form this module uses. Raises EngineError if this machine lacks it."""
    device = "cuda:0" if device == "cuda" else device
    if device in (AUTO, CPU):
        return device
    if device == APPLE:
        if not torch.backends.mps.is_available():
            raise EngineError(
                "PyTorch finds no Apple GPU on this machine.", "Choose auto or cpu as the device."
            )
        return device
    found = gpus()
    if device != ALL_GPUS and not _GPU.fullmatch(device):
        raise EngineError(
            f"{device!r} is not a device.", "Choose auto, cpu, cuda:N, cuda:all or mps."
        )
    if not found:
        raise EngineError(
            "PyTorch finds no CUDA GPU on this machine.",
            "Choose auto or cpu as the device; a GPU needs PyTorch's CUDA build and a driver.",
        )
    if device == ALL_GPUS:
        if importlib.util.find_spec("accelerate") is None:
            raise EngineError(
                "Spreading a model over several GPUs needs accelerate.",
                'Install it with pip install "bh-studio[multi-gpu]", or choose one GPU.',
            )
        return device
    if device not in found:
        raise EngineError(
            f"There is no {device} on this machine; it has {', '.join(found)}.",
            "Choose one of them, or auto.",
        )
    return device


def check_dtype(dtype: str) -> None:
    """Raise EngineError for a number format that is none of ours."""
    if dtype not in DTYPES:
        raise EngineError(f"{dtype!r} is not a number format.", f"Choose {', '.join(DTYPES)}.")
