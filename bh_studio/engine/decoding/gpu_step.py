"""The decode step of OLMoE on a CUDA GPU: Triton kernels in one CUDA graph, no Python between them.

A captured graph stays with its model and serves one side after another: token, position, thresholds
and limits of the rule are tensors that it reads. It is captured anew where keys and values need
more room, and for a rule that is not a step-up rule, whose operations hold its numbers.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from bh_studio.engine.decoding.gpu_queue import GpuQueue, QueuedStep
from bh_studio.engine.decoding.olmoe_layers import layout_problem
from bh_studio.engine.decoding.rotary_rows import CHANGING_ROTATIONS
from bh_studio.engine.decoding.step import Choose
from bh_studio.engine.kernels.triton_support import LONGEST_ROW, triton_problem
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.routing.selection import RoutingRule, own_tables
from bh_studio.engine.rules.parameters import Mode, RouterShape

if TYPE_CHECKING:
    from bh_studio.engine.decoding.gpu_graph import GpuGraph

# Tokens of room that a graph is made for at least, and by whose multiples it grows.
_ROOM = 1024

_FREE_GRAPHS: weakref.WeakKeyDictionary[PreTrainedModel, list[GpuGraph]] = (
    weakref.WeakKeyDictionary()
)


def problem(model: PreTrainedModel) -> str:
    """Why `model`, which is on a CUDA device, cannot take this step; empty if it can."""
    return triton_problem(model.device) or layout_problem(model) or _shape_problem(model)


def _shape_problem(model: PreTrainedModel) -> str:
    config = model.config
    layer = model.base_model.layers[0]
    attention, width = layer.self_attn, layer.self_attn.head_dim
    if config.hidden_act != "silu":
        return f"the experts' activation is {config.hidden_act}"
    if model.base_model.rotary_emb.rope_type in CHANGING_ROTATIONS:
        return "the rotary embedding changes with the length of the text"
    if width & (width - 1) or width < 16:
        return f"heads are {width} wide"
    rows = attention.q_proj.weight.shape[0], attention.k_proj.weight.shape[0]
    if max(config.hidden_size, config.intermediate_size, *rows) > LONGEST_ROW:
        return f"rows of the weights are longer than {LONGEST_ROW}"
    return ""


class GpuStep(QueuedStep):
    """A DecodeStep for a model that has no `problem`.

    integration: whose rule routes; None for the model's own routers. choose: None takes the most
    probable token. slots: experts that a token can have at most, where what is decided is recorded;
    None for no record. What is done to the model's modules later, hooks among them, has no effect.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        shape: RouterShape,
        integration: RoutingIntegration | None,
        choose: Choose | None,
        slots: int | None = None,
    ) -> None:
        super().__init__()
        self._graph: GpuGraph | None = None
        self._model = model
        self._integration = integration
        self._choose = choose
        self._slots = slots
        self._rule = None if integration is None else integration.rule
        self._tables = own_tables(shape)
        if self._rule is not None:
            self._tables = self._rule.tables() or self._tables

    def start(self, cache: DynamicCache, token: Tensor, room: int) -> None:
        """See DecodeStep; keys and values are copied once, here."""
        tokens = int(cache.get_seq_length()) + room
        with torch.cuda.device(self._model.device):
            self._graph = _graph(self._model, self._rule, tokens)
            self._graph.set_rule(self._tables)
            self._graph.set_prompt(cache, token)
            self._queue = GpuQueue(self._graph, self._integration, self._choose, self._slots)

    def close(self) -> None:
        """See DecodeStep; the graph waits for the next side."""
        # Work that is under way ends before what a next side queues on the same stream.
        if self._graph is not None and _serves_every_rule(self._rule):
            _FREE_GRAPHS.setdefault(self._model, []).append(self._graph)
        self._graph = self._queue = None

    def __del__(self) -> None:
        self.close()


def _serves_every_rule(rule: RoutingRule | None) -> bool:
    return rule is None or rule.is_step_up


def _graph(model: PreTrainedModel, rule: RoutingRule | None, tokens: int) -> GpuGraph:
    """A graph with room for `tokens`, an idle one if there is one."""
    from bh_studio.engine.decoding.gpu_graph import GpuGraph

    context = int(model.config.max_position_embeddings)
    capacity = max(tokens, min(context, -(-tokens // _ROOM) * _ROOM))
    if rule is not None and not rule.is_step_up:
        if rule.is_ordered_by_probability or rule.parameters.mode is Mode.ANALYZE:
            return GpuGraph(model, capacity, count=lambda layer, x: rule.counts(layer, x)[1])
        return GpuGraph(model, capacity, select=rule.select)
    # Weights that were moved since are no longer where a graph reads them.
    free = [graph for graph in _FREE_GRAPHS.pop(model, []) if graph.reads_from(model)]
    _FREE_GRAPHS[model] = free
    for graph in free:
        if graph.capacity >= tokens:
            free.remove(graph)
            return graph
    # One that is too small goes, so that its memory can serve the larger one.
    if free:
        free.pop()
    return GpuGraph(model, capacity)
