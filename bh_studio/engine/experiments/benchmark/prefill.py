"""Reading a long prompt: time and memory of our expert computation and of stock's, in turns."""

from __future__ import annotations

import torch
from torch import Tensor

from bh_studio.engine.experiments.benchmark.contenders import Contender
from bh_studio.engine.experiments.benchmark.peak_memory import PeakMemory
from bh_studio.engine.records.benchmark_result import PrefillResult


class PrefillClock:
    """Two contenders that read `prompt`, (1, position), up to the first token after it."""

    def __init__(self, stock: Contender, ours: Contender, prompt: Tensor) -> None:
        self._contenders = (stock, ours)
        self._prompt = prompt
        self._seconds: tuple[list[float], list[float]] = ([], [])
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

    def measure(self, number: int) -> None:
        """Time both once, in an order that changes with the `number` of the round."""
        answers = [0.0, 0.0]
        for place in (0, 1) if number % 2 == 0 else (1, 0):
            answers[place] = self._contenders[place].answer(self._prompt, 1).token_seconds[0]
        for seconds, answer in zip(self._seconds, answers, strict=True):
            seconds.append(answer)

    def result(self) -> PrefillResult | None:
        """What was measured so far, if anything was."""
        if not self._seconds[0]:
            return None
        stock, ours = map(tuple, self._seconds)
        stock_bytes, our_bytes = self._growth
        return PrefillResult(self._prompt.shape[1], stock, ours, stock_bytes, our_bytes)
