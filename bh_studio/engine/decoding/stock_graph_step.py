"""The decode step through transformers' own forward, captured in a CUDA graph.

For models and machines that the kernels of gpu_step do not serve. Captured anew for each answer,
for it holds the rule's operations as they are. Knows no layers.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, StaticCache
from transformers.cache_utils import StaticLayer

from bh_studio.engine.decoding.gpu_queue import GpuQueue, QueuedStep
from bh_studio.engine.decoding.pass_record import PassRecord
from bh_studio.engine.decoding.pass_recorder import PassRecorder
from bh_studio.engine.decoding.rotary_rows import CHANGING_ROTATIONS
from bh_studio.engine.decoding.step import Choose, hook_problem
from bh_studio.engine.moe import experts_cuda
from bh_studio.engine.moe.experts import NAME as SELECTED_EXPERTS
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.moe.routers import find_routers, router_shape


def problem(model: PreTrainedModel) -> str:
    """Why the forward of `model`, on a CUDA device, is not captured; empty if it can be."""
    chosen = model.config._experts_implementation
    if chosen != SELECTED_EXPERTS:
        return f"the experts are computed by {chosen}"
    if model.training:
        return "the model is in training mode"
    if getattr(model.base_model.rotary_emb, "rope_type", "") in CHANGING_ROTATIONS:
        return "the rotary embedding changes with the length of the text"
    if any(type(layer) is not StaticLayer for layer in StaticCache(model.config, 1).layers):
        return "some layers look at the nearest tokens only"
    # What a hook does on the host would be done once, and never again.
    return hook_problem(model) or experts_cuda.capture_problem(model)


class StockGraphStep(QueuedStep):
    """A DecodeStep for a model that has no `problem`.

    integration: whose rule routes; None for the model as it is. choose: None takes the most
    probable token. recorder: what records the routers; None for no record.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        integration: RoutingIntegration | None,
        choose: Choose | None,
        recorder: PassRecorder | None = None,
    ) -> None:
        super().__init__()
        self._model = model
        self._integration = integration
        self._choose = choose
        self._recorder = recorder

    def start(self, cache: DynamicCache, token: Tensor, room: int) -> None:
        """See DecodeStep; keys and values are copied once, here."""
        with torch.cuda.device(self._model.device):
            recorder = self._recorder
            graph = StockGraph(self._model, self._integration, cache, token, room, recorder)
            slots = None if recorder is None else recorder.slots
            self._queue = GpuQueue(graph, self._integration, self._choose, slots)

    def close(self) -> None:
        """See DecodeStep."""
        self._queue = None


class StockGraph:
    """A TokenGraph of `model` on a StaticCache.

    cache: keys and values of a prompt, copied. token: (1, 1) int64, the next one to read. room:
    tokens that can be read from here on. recorder: what records the routers; None for no record.
    logits exist once a pass was queued.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        integration: RoutingIntegration | None,
        cache: DynamicCache,
        token: Tensor,
        room: int,
        recorder: PassRecorder | None = None,
    ) -> None:
        self._model, self._integration, self._recorder = model, integration, recorder
        length = int(cache.get_seq_length())
        self._cache = _static(model, cache, length + room)
        self.token = token.clone()
        self.position = torch.full_like(token, length)
        shape = router_shape(find_routers(model))
        self.record = PassRecord(shape.layers, shape.experts, model.dtype, token.device)
        self.logits = torch.empty(0, device=token.device)
        self._graph: torch.cuda.CUDAGraph | None = None

    def replay(self) -> None:
        """See TokenGraph; the first time it is captured."""
        if self._graph is None:
            self._graph = self._captured()
        self._graph.replay()

    def _captured(self) -> torch.cuda.CUDAGraph:
        # A first pass, which captures nothing, lets libraries and rules make what they keep. Keys
        # and values that it writes are written again by the captured pass.
        token, position = self.token.clone(), self.position.clone()
        lengths = [layer.cumulative_length.clone() for layer in self._cache.layers]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self.queue()
        torch.cuda.current_stream().wait_stream(side)
        self.token.copy_(token)
        self.position.copy_(position)
        for layer, before in zip(self._cache.layers, lengths, strict=True):
            layer.cumulative_length.copy_(before)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.queue()
        return graph

    def queue(self) -> None:
        """Queue one pass, operation by operation."""
        if self._integration is None:
            self.logits = self._forward()
        else:
            with self._integration.uncounted() as raw_counts:
                self.logits = self._forward()
                for layer, count in enumerate(raw_counts):
                    self.record.outcome[1 + layer].copy_(torch.as_tensor(count)[0])
        self.token.copy_(self.logits.argmax(dim=-1, keepdim=True))
        self.record.outcome[:1].copy_(self.token[0])
        self.position.add_(1)

    def _forward(self) -> Tensor:
        with self._recorder or nullcontext():
            logits: Tensor = self._model(
                self.token,
                position_ids=self.position,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
        if self._recorder is not None:
            self.record.put_down(self._recorder.outputs)
        return logits


def _static(model: PreTrainedModel, cache: DynamicCache, capacity: int) -> StaticCache:
    """A StaticCache with room for `capacity` tokens and the content of `cache`."""
    static = StaticCache(model.config, capacity)
    for layer, filled in zip(static.layers, cache.layers, strict=True):
        layer.lazy_initialization(filled.keys, filled.values)
        length = filled.keys.shape[2]
        layer.keys[:, :, :length] = filled.keys
        layer.values[:, :, :length] = filled.values
        layer.cumulative_length.fill_(length)
    return static
