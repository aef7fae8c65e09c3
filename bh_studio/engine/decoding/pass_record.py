"""What a pass on a GPU leaves for the host, one behind the other: a single copy brings it.

Knows neither models nor graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

from bh_studio.engine.decoding.decided import Decided, check_finite, experts_that_ran
from bh_studio.engine.kernels.triton_support import triton_problem
from bh_studio.engine.records.decisions.routed_experts import NO_EXPERT
from bh_studio.engine.records.decisions.token_choices import ALTERNATIVES, TokenChoice

if TYPE_CHECKING:
    from bh_studio.engine.kernels.choice_kernels import ChoiceWriter


class PassRecord:
    """The results of one pass of one token, views of one buffer.

    outcome: (1 + layer,) int64, the token and the raw count of each layer. used: (layer,) int32,
    and indices: (layer, expert) int32, of which so many slots ran; NO_EXPERT in one that did not.
    router_logits: (layer, expert). log_probabilities, ids: (1 + ALTERNATIVES,) float32 and int32,
    the log-probability and the rank of the token, then the most probable ones.
    """

    def __init__(
        self, layers: int, experts: int, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        self._shape = layers, experts, dtype
        self._writer: ChoiceWriter | None = None
        self._choosing: torch.cuda.CUDAGraph | None = None
        parts = {
            "outcome": ((1 + layers,), torch.int64),
            "log_probabilities": ((1 + ALTERNATIVES,), torch.float32),
            "ids": ((1 + ALTERNATIVES,), torch.int32),
            "used": ((layers,), torch.int32),
            "indices": ((layers, experts), torch.int32),
            "router_logits": ((layers, experts), dtype),
        }
        sizes = [_padded(int(np.prod(shape)) * kind.itemsize) for shape, kind in parts.values()]
        self._buffer = torch.zeros(sum(sizes), dtype=torch.uint8, device=device)
        if self._buffer.is_cpu and torch.cuda.is_available():
            self._buffer = self._buffer.pin_memory()
        views, start = {}, 0
        for (name, (shape, kind)), size in zip(parts.items(), sizes, strict=True):
            length = int(np.prod(shape)) * kind.itemsize
            views[name] = self._buffer[start : start + length].view(kind).view(shape)
            start += size
        self.outcome = views["outcome"]
        self.log_probabilities, self.ids = views["log_probabilities"], views["ids"]
        self.used, self.indices = views["used"], views["indices"]
        self.router_logits = views["router_logits"]

    def on_host(self) -> Self:
        """Another of the same shape, in memory that copies do not wait for."""
        return type(self)(*self._shape, "cpu")

    def take(self, other: PassRecord) -> None:
        """Queue a copy of all of `other`."""
        self._buffer.copy_(other._buffer, non_blocking=True)

    def put_down(self, outputs: Sequence[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Queue taking over what routers put out: logits, weights and indices of each layer."""
        for layer, (logits, weights, indices) in enumerate(outputs):
            slots = indices.shape[-1]
            self.router_logits[layer].copy_(logits[0])
            ran = torch.where(weights[0] != 0, indices[0], NO_EXPERT)
            self.indices[layer, :slots].copy_(ran)
            self.used[layer].fill_(slots)

    def write_choice(self, logits: Tensor) -> None:
        """Queue what `logits`, (1, vocabulary) and always the same, say of the token.

        It is captured once, for to launch its kernels one by one takes the host as long as they do.
        """
        if self._choosing is None:
            self._queue_choice(logits)
            self._choosing = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._choosing):
                self._queue_choice(logits)
        self._choosing.replay()

    def _queue_choice(self, logits: Tensor) -> None:
        if self._writer is None and not triton_problem(logits.device):
            from bh_studio.engine.kernels.choice_kernels import ChoiceWriter

            self._writer = ChoiceWriter(logits.shape[1], ALTERNATIVES, logits.device)
        if self._writer is not None:
            self._writer(logits, self.outcome, self.log_probabilities, self.ids)
            return
        row = logits[0].float()
        top = row.topk(ALTERNATIVES)
        chosen = row[self.outcome[:1]]
        of_all = row.logsumexp(-1)
        self.log_probabilities[:1].copy_(chosen - of_all)
        self.log_probabilities[1:].copy_(top.values - of_all)
        self.ids[:1].copy_((row > chosen).sum() + 1)
        self.ids[1:].copy_(top.indices)

    def decided(self, slots: int) -> Decided:
        """What is here, on the host, in arrays of their own. slots: experts of a position at most.

        Raises EngineError for logits that were not finite.
        """
        log_probability, *top = self.log_probabilities.tolist()
        check_finite(log_probability)
        rank, *top_ids = self.ids.tolist()
        indices, used = self.indices.numpy(), self.used.numpy()
        ran = (np.arange(indices.shape[1]) < used[:, None]) & (indices != NO_EXPERT)
        return Decided(
            self.router_logits.to(torch.float32, copy=True).numpy()[None],
            experts_that_ran(indices[None], ran[None], slots),
            TokenChoice(
                log_probability, rank, np.array(top_ids, np.int32), np.array(top, np.float32)
            ),
        )


def _padded(size: int) -> int:
    """So many bytes that what follows begins where kernels read fastest."""
    return -(-size // 16) * 16
