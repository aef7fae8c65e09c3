"""Tokens that a CUDA graph makes one after another, and bringing them to the host without a stall.

Knows neither models nor what is in the graph.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from bh_studio.engine.decoding.pass_record import PassRecord
from bh_studio.engine.decoding.step import Choose, DecodedToken
from bh_studio.engine.moe.integration import RoutingIntegration


class TokenGraph(Protocol):
    """Reads `token` and writes what comes next; on one CUDA device.

    token: int64, one number. logits: (1, vocabulary). record: the most probable token, which is in
    `token` too, the raw count of each layer, and what the routers decided; no choice.
    """

    token: Tensor
    logits: Tensor
    record: PassRecord

    def replay(self) -> None:
        """Queue one pass on the current stream."""


class GpuQueue:
    """Queues passes of one side's graph; at most two may be pending.

    integration: which counts the tokens that are waited for; None for the baseline. choose: None
    takes the most probable token, found in the graph. slots: experts that a token can have at most,
    where what is decided is recorded; None for no record.
    """

    def __init__(
        self,
        graph: TokenGraph,
        integration: RoutingIntegration | None,
        choose: Choose | None,
        slots: int | None = None,
    ) -> None:
        self._graph = graph
        self._integration = integration
        self._choose = choose
        self._slots = slots
        # The next pass may be queued before the result of the former one was looked at.
        self._results = [graph.record.on_host() for _ in "ab"]

    def submit(self) -> PendingGpuToken:
        """Queue one pass, and a copy of its outcome to the host."""
        graph, result = self._graph, self._results[0]
        record = graph.record
        self._results.reverse()
        with torch.inference_mode(), torch.cuda.device(graph.token.device):
            # `blocking`: to wait takes no processor time, which the window can use.
            start, end = (torch.cuda.Event(enable_timing=True, blocking=True) for _ in range(2))
            start.record()
            graph.replay()
            if self._choose is not None:
                token = self._choose(graph.logits)
                graph.token.copy_(token.view_as(graph.token))
                record.outcome[:1].copy_(token.view(1))
            if self._slots is None:
                result.outcome.copy_(record.outcome, non_blocking=True)
            else:
                record.write_choice(graph.logits)
                result.take(record)
            end.record()
        return PendingGpuToken(result, start, end, self._integration, self._slots)


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
    """A token whose pass is queued between two events. result: on the host."""

    def __init__(
        self,
        result: PassRecord,
        start: torch.cuda.Event,
        end: torch.cuda.Event,
        integration: RoutingIntegration | None,
        slots: int | None,
    ) -> None:
        self._result, self._slots = result, slots
        self._start, self._end = start, end
        self._integration = integration

    def wait(self) -> DecodedToken:
        """See PendingToken; the seconds are the device's own."""
        self._end.synchronize()
        token_id, *counts = self._result.outcome.tolist()
        seconds = self._start.elapsed_time(self._end) / 1000
        decided = None if self._slots is None else self._result.decided(self._slots)
        if self._integration is None:
            return DecodedToken(token_id, None, seconds, decided)
        raw_counts = np.array([counts], dtype=np.uint8)
        self._integration.add_decode_pass(raw_counts)
        return DecodedToken(token_id, raw_counts, seconds, decided)
