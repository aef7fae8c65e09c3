"""Whether kernels written in Triton can run. Imports Triton only to try."""

from __future__ import annotations

import functools
import importlib.util
import logging
from contextlib import AbstractContextManager, nullcontext

import torch

log = logging.getLogger(__name__)

# The first generation of GPUs with bfloat16.
_OLDEST = (8, 0)
# A program holds rows of a matrix up to this length at once.
LONGEST_ROW = 4096


@functools.cache
def triton_problem(device: torch.device) -> str:
    """Why no Triton kernel can run on the CUDA device `device`; empty if it can."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    capability = torch.cuda.get_device_capability(device)
    if capability < _OLDEST:
        return f"the GPU has compute capability {capability[0]}.{capability[1]}, kernels need 8.0"
    try:
        _try_a_kernel(device)
    # Whatever a compiler, a driver or a missing header may raise: the other ways do without it.
    except Exception as error:
        log.info("Triton cannot build kernels", exc_info=True)
        return f"Triton cannot build kernels here: {str(error).strip().partition(chr(10))[0]}"
    return ""


def _try_a_kernel(device: torch.device) -> None:
    from bh_studio.engine.kernels.trial_kernels import copy_number

    numbers = torch.ones(2, dtype=torch.int32, device=device)
    with launching_on(device):
        copy_number[(1,)](numbers[:1], numbers[1:], num_warps=1)


def launching_on(device: torch.device) -> AbstractContextManager[object]:
    """In this block kernels start on `device`; Triton's interpreter takes the CPU too."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(device)
