"""What choosing experts costs: a router's own call against one with BH, for one row."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from bh_studio.engine.experiments.benchmark.memory_bandwidth import synchronize
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.moe.replacement import Replacement
from bh_studio.engine.moe.routers import find_routers
from bh_studio.engine.records.benchmark.result import RouterTimes
from bh_studio.engine.rules.parameters import RuleParameters

# Passes through all routers that are timed as one, so that reading the clock does not count.
_PASSES = 20


class RouterClock:
    """Times a pass through all routers of a model, as eager calls of the modules, three ways.

    A pass is one of the decoder with everything but the routers taken out, since statistics are
    kept a pass: each router reads the hidden state that the last token of `prompt`, (1, position),
    brought it.
    """

    def __init__(self, loaded: LoadedModel, parameters: RuleParameters, prompt: Tensor) -> None:
        self._loaded = loaded
        self._routers = find_routers(loaded.model)
        self._token = prompt[:, -1:].to(loaded.model.device)
        with torch.inference_mode():
            self._rows = _last_rows(loaded, self._routers, prompt)
        bh, with_statistics = (
            RoutingIntegration(
                loaded.model, parameters, collect_stats=collect_stats, recording=loaded.recording
            )
            for collect_stats in (False, True)
        )
        self._ways: tuple[RoutingIntegration | None, ...] = (None, bh, with_statistics)
        for way in self._ways:  # first calls are slow
            self._block(way)

    def measure(self, blocks: int) -> RouterTimes:
        """Time each way `blocks` times, in turns; the order rotates."""
        seconds: tuple[list[float], ...] = ([], [], [])
        for block in range(blocks):
            first = block % len(self._ways)
            for place in (*range(first, len(self._ways)), *range(first)):
                seconds[place].append(self._block(self._ways[place]))
        return RouterTimes(*map(tuple, seconds))

    def _block(self, integration: RoutingIntegration | None) -> float:
        """Seconds of one router call, the mean over _PASSES passes."""
        decoder = self._loaded.model.base_model
        replacement = Replacement(decoder, self._route)
        replacement.apply()
        try:
            with torch.inference_mode(), integration or nullcontext():
                synchronize(self._token.device)
                start = time.perf_counter()
                for _ in range(_PASSES):
                    decoder(input_ids=self._token)
                synchronize(self._token.device)
                seconds = time.perf_counter() - start
        finally:
            replacement.undo()
        return seconds / (_PASSES * len(self._routers))

    def _route(self, _forward: Callable[..., Any], **_inputs: Tensor) -> None:
        for router, row in zip(self._routers, self._rows, strict=True):
            router(row)


def _last_rows(loaded: LoadedModel, routers: list[nn.Module], prompt: Tensor) -> list[Tensor]:
    """What the last position of `prompt` brings to each router, (1, hidden) each."""
    rows: list[Tensor] = []

    def take(_router: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows.append(inputs[0].reshape(-1, inputs[0].shape[-1])[-1:].clone())

    hooks = [router.register_forward_pre_hook(take) for router in routers]
    try:
        loaded.model.base_model(prompt.to(loaded.model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return rows
