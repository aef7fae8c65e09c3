"""How far memory grows while something runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import psutil
import torch

from bh_studio.engine.models.memory import release_memory

_SAMPLE_S = 0.002


class PeakMemory:
    """In a `with` block, watches the memory of `devices`, one kind of them.

    growth: bytes above what was in use when the block began, at the highest; known once it is over.
    On GPUs that is what PyTorch has handed out, exactly; elsewhere resident memory of the process,
    looked at every few milliseconds, so that a shorter peak is missed.
    """

    def __init__(self, devices: tuple[torch.device, ...]) -> None:
        self._gpus = [device for device in devices if device.type == "cuda"]
        self._process = psutil.Process()
        self._is_over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="memory sampler", daemon=True)
        self._before = self._peak = 0
        self.growth = 0

    def __enter__(self) -> Self:
        release_memory()
        for gpu in self._gpus:
            torch.cuda.reset_peak_memory_stats(gpu)
        self._before = self._peak = self._in_use(torch.cuda.memory_allocated)
        if not self._gpus:
            self._sampler.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._gpus:
            self._peak = self._in_use(torch.cuda.max_memory_allocated)
        else:
            self._is_over.set()
            self._sampler.join()
            self._peak = max(self._peak, self._in_use(torch.cuda.memory_allocated))
        self.growth = self._peak - self._before

    def _sample(self) -> None:
        while not self._is_over.wait(_SAMPLE_S):
            self._peak = max(self._peak, int(self._process.memory_info().rss))

    def _in_use(self, of_gpu: Callable[[torch.device], int]) -> int:
        if self._gpus:
            return sum(of_gpu(gpu) for gpu in self._gpus)
        return int(self._process.memory_info().rss)
