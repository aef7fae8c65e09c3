"""Triton kernels on whatever machine there is: compiled on a GPU, interpreted on the CPU.

Knows which modules hold kernels, neither models nor rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction

from bh_studio.engine.decoding import gpu_graph
from bh_studio.engine.kernels import (
    choice_kernels,
    decoder_kernels,
    expert_kernels,
    selection_kernels,
    trial_kernels,
)
from bh_studio.engine.kernels.triton_support import triton_problem

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")

_WITH_KERNELS = (
    tl, tl.standard, choice_kernels, decoder_kernels, expert_kernels, selection_kernels,
    trial_kernels,
)  # fmt: skip
# That of 3.6 fails with NumPy 2.4.
_OLDEST_INTERPRETER = (3, 7)
# The interpreter takes some milliseconds a program, so fewer of them do more work each; keys are
# shared among so few that a short prompt gives each of them several blocks.
_MULTIPROCESSORS, _SPLITS, _ROWS = 1, 2, 8


@contextmanager
def kernels_run() -> Iterator[None]:
    """In this block kernels take tensors on DEVICE; skips the test where none can."""
    if ON_GPU:
        if triton_problem(DEVICE):
            pytest.skip(triton_problem(DEVICE))
        yield
        return
    if tuple(map(int, triton.__version__.split(".")[:2])) < _OLDEST_INTERPRETER:
        pytest.skip("the interpreter of this Triton does not run with this NumPy")
    with pytest.MonkeyPatch.context() as patch:
        _interpret(patch)
        properties = SimpleNamespace(multi_processor_count=_MULTIPROCESSORS)
        patch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 0))
        patch.setattr(torch.cuda, "get_device_properties", lambda _device: properties)
        patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        patch.setattr(gpu_graph, "_SPLITS", _SPLITS)
        patch.setattr(gpu_graph, "_ROWS", dict.fromkeys(gpu_graph._ROWS, _ROWS))
        triton_problem.cache_clear()
        yield
    triton_problem.cache_clear()


def _interpret(patch: pytest.MonkeyPatch) -> None:
    # Triton asks for this variable where a kernel is defined. transformers imports Triton before
    # any test could set it, so what was defined is replaced, Triton's own functions included.
    patch.setenv("TRITON_INTERPRET", "1")
    for module in _WITH_KERNELS:
        for name, value in list(vars(module).items()):
            if isinstance(value, triton.JITFunction):
                patch.setattr(module, name, InterpretedFunction(value.fn))
