"""Tokens that a CUDA graph makes one after another, and bringing them to the host without a stall.

Knows neither models nor what is in the graph.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from bh_studio.engine.decoding.step import Choose, DecodedToken
from bh_studio.engine.moe.integration import RoutingIntegration


class TokenGraph(Protocol):
    """Reads `token` and writes what comes next; on one CUDA device.

    token: int64, one number. logits: (1, vocabulary). outcome: (1 + layer,) int64, the most
    probable token, which is in `token` too, and the raw count of each layer.
    """

    token: Tensor
    logits: Tensor
    outcome: Tensor

    def replay(self) -> None:
        """Queue one pass on the current stream."""


class GpuQueue:
    """Queues passes of one side's graph; at most two may be pending.

    integration: which counts the tokens that are waited for; None for the baseline. choose: None
    takes the most probable token, found in the graph.
    """

    def __init__(
        self,
        graph: TokenGraph,
        integration: RoutingIntegration | None,
        choose: Choose | None,
    ) -> None:
        self._graph = graph
        self._integration = integration
        self._choose = choose
        # The next pass may be queued before the result of the former one was looked at.
        self._results = [torch.empty_like(graph.outcome, device="cpu").pin_memory() for _ in "ab"]

    def submit(self) -> PendingGpuToken:
        """Queue one pass, and a copy of its outcome to the host."""
        graph, result = self._graph, self._results[0]
        self._results.reverse()
        with torch.inference_mode(), torch.cuda.device(graph.token.device):
            # `blocking`: to wait takes no processor time, which the window can use.
            start, end = (torch.cuda.Event(enable_timing=True, blocking=True) for _ in range(2))
            start.record()
            graph.replay()
            if self._choose is not None:
                token = self._choose(graph.logits)
                graph.token.copy_(token.view_as(graph.token))
                graph.outcome[:1].copy_(token.view(1))
            result.copy_(graph.outcome, non_blocking=True)
            end.record()
        return PendingGpuToken(result, start, end, self._integration)


class QueuedStep:
    """What steps that queue passes of a graph have in common; see DecodeStep.

    A subclass sets _queue when it starts, and takes it away when it is closed.
    """

    runs_ahead = True

    def __init__(self) -> None:
        self._queue: GpuQueue | None = None

    def submit(self) -> PendingGpuToken:
        """See DecodeStep. At most two tokens may be pending."""
        if self._queue is None:
            raise RuntimeError("This step was not started, or was closed.")
        return self._queue.submit()


class PendingGpuToken:
    """A token whose pass is queued between two events. result: (1 + layer,) int64, on the host."""

    def __init__(
        self,
        result: Tensor,
        start: torch.cuda.Event,
        end: torch.cuda.Event,
        integration: RoutingIntegration | None,
    ) -> None:
        self._result = result
        self._start, self._end = start, end
        self._integration = integration

    def wait(self) -> DecodedToken:
        """See PendingToken; the seconds are the device's own."""
        self._end.synchronize()
        token_id, *counts = self._result.tolist()
        seconds = self._start.elapsed_time(self._end) / 1000
        if self._integration is None:
            return DecodedToken(token_id, None, seconds)
        raw_counts = np.array([counts], dtype=np.uint8)
        self._integration.add_decode_pass(raw_counts)
        return DecodedToken(token_id, raw_counts, seconds)
