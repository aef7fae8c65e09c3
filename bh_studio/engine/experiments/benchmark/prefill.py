"""Reading a long prompt: time and memory of our expert computation and of stock's, in turns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bh_studio.engine.experiments.benchmark.contenders import Contender
from bh_studio.engine.experiments.benchmark.peak_memory import PeakMemory
from bh_studio.engine.records.benchmark.result import PrefillResult


class PrefillClock:
    """Two contenders that read `prompt`, (1, position), up to the first token after it."""

    def __init__(self, stock: Contender, ours: Contender, prompt: Tensor) -> None:
        self._contenders = (stock, ours)
        self._prompt = prompt
        self._growth: tuple[int, ...] = ()

    def warm_up(self, devices: tuple[torch.device, ...]) -> None:
        """Read the prompt once each, and note how far the memory of `devices` grows."""
        growth = []
        for contender in self._contenders:
            contender.answer(self._prompt, 1)
            # Not on the first reading, which also brings in libraries; nor on the timed ones, which
            # looking at the memory would slow down.
            with PeakMemory(devices) as peak:
                contender.answer(self._prompt, 1)
            growth.append(peak.growth)
        self._growth = tuple(growth)

    def measure(self, number: int) -> tuple[float, float]:
        """Seconds of each, in an order of turns that changes with the `number` of the round."""
        seconds = [0.0, 0.0]
        for place in (0, 1) if number % 2 == 0 else (1, 0):
            seconds[place] = self._contenders[place].answer(self._prompt, 1).token_seconds[0]
        stock, ours = seconds
        return stock, ours

    def result(self, rounds: Sequence[tuple[float, float]]) -> PrefillResult:
        """What `measure` gave in `rounds`, at least one."""
        stock, ours = zip(*rounds, strict=True)
        stock_bytes, our_bytes = self._growth
        return PrefillResult(self._prompt.shape[1], stock, ours, stock_bytes, our_bytes)
