"""One captured forward pass of one token of an OLMoE, with the buffers it reads and writes.

Knows the layout of OlmoeForCausalLM; neither sides nor runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from bh_studio.engine.decoding.pass_record import PassRecord
from bh_studio.engine.kernels import decoder_kernels, expert_kernels, selection_kernels
from bh_studio.engine.routing.selection import Selection, SelectionTables

# Rows of a matrix that a program multiplies at once, and warps of a program, by kernel: the fastest
# of those tried on an H200 with full-size OLMoE in bfloat16.
_ROWS = {"qkv": 4, "out": 4, "route": 2, "gate_up": 4, "down": 4, "predict": 4}
_WARPS = {"qkv": 4, "attend": 2, "out": 4, "route": 8, "gate_up": 4, "down": 2, "predict": 8}
_PROGRAMS_A_MULTIPROCESSOR = 8
# Slots that a program of the down projection multiplies at once.
_SLOTS_AT_ONCE = 2
# Keys that a program of the attention looks at together, and programs that share the keys.
_KEYS_AT_ONCE, _SPLITS = 16, 16

# (layer, logits (1, expert)) to raw counts, (1,), or to all of a selection.
CountLayer = Callable[[int, Tensor], Tensor]
SelectLayer = Callable[[int, Tensor], Selection]


class GpuGraph:
    """Reads `token` at `position`; writes the logits of the next token, and the most probable one.

    model: an OlmoeForCausalLM on one CUDA device, see gpu_step.problem. capacity: tokens that keys
    and values have room for. count, select: what makes the raw counts, or all of the selection,
    where tables cannot; they may not wait for the device.

    token, position: (1,) int64. logits: (1, vocabulary). record: see gpu_queue.TokenGraph.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        capacity: int,
        count: CountLayer | None = None,
        select: SelectLayer | None = None,
    ) -> None:
        self.capacity = capacity
        self._addresses = _addresses(model)
        self._count, self._select = count, select
        self._decoder: Any = model.base_model
        self._head: Tensor = model.get_output_embeddings().weight
        self._config: Any = model.config
        config, attention = self._config, self._decoder.layers[0].self_attn
        self._width: int = attention.head_dim
        self._queries: int = attention.q_proj.weight.shape[0]
        self._keys_width: int = attention.k_proj.weight.shape[0]
        device = self._head.device
        properties = torch.cuda.get_device_properties(device)
        self._programs = _PROGRAMS_A_MULTIPROCESSOR * properties.multi_processor_count
        # Kernels that start while the former one ends came with this generation.
        dependent = torch.cuda.get_device_capability(device) >= (9, 0)
        self._launch = {"DEPENDENT": dependent, "launch_pdl": dependent}
        self._graph: torch.cuda.CUDAGraph | None = None
        self._make_buffers(config.num_hidden_layers, config.num_experts, device)

    def _make_buffers(self, layers: int, experts: int, device: torch.device) -> None:
        dtype, width = self._head.dtype, self._width
        heads, kv_heads = self._queries // width, self._keys_width // width

        def new(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.token = new(1, dtype=torch.int64)
        self.position = new(1, dtype=torch.int64)
        self.logits = new(1, self._head.shape[0])
        self.record = PassRecord(layers, experts, dtype, device)
        self._best = new(1, dtype=torch.int64).fill_(decoder_kernels.NO_TOKEN.value)
        self._keys = new(layers, kv_heads, self.capacity, width)
        self._values = new(layers, kv_heads, self.capacity, width)
        places = torch.arange(self.capacity, device=device)[None]
        cosines, sines = self._decoder.rotary_emb(self.logits, places)
        self._cosines, self._sines = cosines[0].contiguous(), sines[0].contiguous()
        self._state = new(self._head.shape[1])
        self._normed = new(self._head.shape[1])
        self._projected = new(self._queries + 2 * self._keys_width)
        self._attended = new(self._queries)
        self._parts = new(heads, _SPLITS, width + 2, dtype=torch.float32)
        self._arrived = new(heads + 1, dtype=torch.int32)
        self._thresholds = new(layers, experts, dtype=torch.float32)
        self._used_of_raw = new(layers, experts + 1, dtype=torch.int32)
        self._settings = new(3, dtype=torch.float32)
        self._weights = new(experts, dtype=torch.float32)
        self._raw_counts = new(layers, dtype=torch.int32)
        self._activated = new(experts, self._decoder.layers[0].mlp.experts.down_proj.shape[-1])

    def reads_from(self, model: PreTrainedModel) -> bool:
        """Whether the weights of `model` lie where they lay when this graph was made."""
        return self._addresses == _addresses(model)

    def set_rule(self, tables: SelectionTables) -> None:
        """What the routers select from now on; nothing is captured anew."""
        self._thresholds.copy_(tables.thresholds)
        self._used_of_raw.copy_(tables.used_of_raw)
        self._settings.copy_(tables.settings)

    def set_prompt(self, cache: DynamicCache, token: Tensor) -> None:
        """Take over the keys and values of what was read, and the token to read next.

        token: (1, 1) int64. Raises ValueError if the prompt is longer than `capacity`.
        """
        length = int(cache.get_seq_length())
        if length > self.capacity:
            raise ValueError(f"{length} tokens do not fit into {self.capacity}.")
        for layer, states in enumerate(cache.layers):
            self._keys[layer, :, :length] = states.keys[0]
            self._values[layer, :, :length] = states.values[0]
        self.token.copy_(token.view(1))
        self.position.fill_(length)

    def replay(self) -> None:
        """Read the token, in the order of the current stream; waits for nothing once captured."""
        if self._graph is None:
            self._graph = self._captured()
        self._graph.replay()

    def _captured(self) -> torch.cuda.CUDAGraph:
        # A first pass, which captures nothing, compiles kernels and lets rules move their tensors.
        # It overwrites keys and values at one position only, which the captured pass writes anew.
        kept = self.token.clone(), self.position.clone()
        self.queue()
        torch.cuda.synchronize(self.token.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.queue()
        self.token.copy_(kept[0])
        self.position.copy_(kept[1])
        return graph

    def queue(self) -> None:
        """Queue the kernels of one pass one by one."""
        config, size = self._config, self._head.shape[1]
        padded = triton.next_power_of_2(size)
        embedding = self._decoder.embed_tokens.weight
        decoder_kernels.embed[(1,)](
            self.token, embedding, self._state, SIZE=size, PADDED=padded, **self._launch
        )
        for number, layer in enumerate(self._decoder.layers):
            self._queue_attention(number, layer, size, padded)
            self._queue_experts(number, layer, size, padded)
        rows = _ROWS["predict"]
        decoder_kernels.predict[(self._shared(config.vocab_size, rows),)](
            self._state, self._decoder.norm.weight, self._head, self.logits, self._best,
            EPSILON=config.rms_norm_eps, SIZE=size, PADDED=padded, VOCABULARY=config.vocab_size,
            BLOCK=rows, num_warps=_WARPS["predict"], **self._launch,
        )  # fmt: skip
        layers = config.num_hidden_layers
        decoder_kernels.finish[(1,)](
            self._best, self.token, self.position, self._raw_counts, self.record.outcome,
            LAYERS=layers, PADDED_LAYERS=triton.next_power_of_2(layers),
            num_warps=1, **self._launch,
        )  # fmt: skip

    def _queue_attention(self, number: int, layer: Any, size: int, padded: int) -> None:
        attention, epsilon = layer.self_attn, self._config.rms_norm_eps
        queries, keys, rows = self._queries, self._keys_width, _ROWS["qkv"]
        decoder_kernels.project_qkv[(self._shared(queries + 2 * keys, rows),)](
            self._state, layer.input_layernorm.weight,
            attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight,
            self._projected,
            EPSILON=epsilon, SIZE=size, PADDED=padded, QUERIES=queries, KEYS=keys, BLOCK=rows,
            num_warps=_WARPS["qkv"], **self._launch,
        )  # fmt: skip
        decoder_kernels.attend[(queries // self._width, _SPLITS)](
            self._projected, attention.q_norm.weight, attention.k_norm.weight,
            self._cosines, self._sines, self.position, self._keys[number], self._values[number],
            self.capacity, self._parts, self._arrived, self._attended,
            CLIP=self._config.clip_qkv or 0.0, EPSILON=epsilon, SCALE=attention.scaling,
            QUERIES=queries, PADDED_QUERIES=triton.next_power_of_2(queries),
            KEYS=keys, PADDED_KEYS=triton.next_power_of_2(keys),
            WIDTH=self._width, HALF=self._width // 2, GROUP=queries // keys, SPLITS=_SPLITS,
            BLOCK=_KEYS_AT_ONCE, num_warps=_WARPS["attend"], **self._launch,
        )  # fmt: skip
        rows = _ROWS["out"]
        decoder_kernels.project_out[(triton.cdiv(size, rows),)](
            self._attended, attention.o_proj.weight, self._state,
            ROWS=size, SIZE=queries, PADDED=triton.next_power_of_2(queries), BLOCK=rows,
            num_warps=_WARPS["out"], **self._launch,
        )  # fmt: skip

    def _queue_experts(self, number: int, layer: Any, size: int, padded: int) -> None:
        gate, experts = layer.mlp.gate, layer.mlp.experts
        count, width, rows = gate.weight.shape[0], experts.down_proj.shape[-1], _ROWS["route"]
        logits, indices, used = self._routed(number)
        decoder_kernels.route[(triton.cdiv(count, rows),)](
            self._state, layer.post_attention_layernorm.weight, gate.weight, self._normed,
            logits, self._arrived[-1:],
            self._thresholds, self._used_of_raw, self._settings, number,
            indices, self._weights, used, self._raw_counts,
            TOP_K=gate.top_k, EPSILON=self._config.rms_norm_eps, SIZE=size, PADDED=padded,
            EXPERTS=count, PADDED_EXPERTS=triton.next_power_of_2(count), BLOCK=rows,
            SELECT=self._count is None and self._select is None,
            num_warps=_WARPS["route"], **self._launch,
        )  # fmt: skip
        self._queue_rule(number, gate.top_k, count)
        expert_kernels.gate_up[(self._programs,)](
            self._normed, indices, self._weights, used, experts.gate_up_proj,
            self._activated, count,
            SLOTS=count, SIZE=size, PADDED=padded, WIDTH=width, BLOCK=_ROWS["gate_up"],
            ONE_ROW=True, num_warps=_WARPS["gate_up"], **self._launch,
        )  # fmt: skip
        rows = _ROWS["down"]
        expert_kernels.down[(triton.cdiv(size, rows), 1)](
            self._activated, indices, self._weights, used, experts.down_proj,
            self._state, count,
            SLOTS=count, SIZE=size, WIDTH=width, PADDED=triton.next_power_of_2(width), BLOCK=rows,
            SLOT_BLOCK=_SLOTS_AT_ONCE, ONE_ROW=True, num_warps=_WARPS["down"], **self._launch,
        )  # fmt: skip

    def _queue_rule(self, number: int, top_k: int, experts: int) -> None:
        """What a rule without tables does, after `route` has made the logits."""
        raw_count = self._raw_counts[number : number + 1]
        logits, indices, used = self._routed(number)
        if self._select is not None:
            selection = self._select(number, logits)
            slots = selection.indices.shape[1]
            indices[:slots].copy_(selection.indices[0])
            # To the dtype of the model and back: mixing weights are rounded like the router's own.
            self._weights[:slots].copy_(selection.weights[0].to(self.logits.dtype))
            used.copy_(selection.counts)
            raw_count.copy_(selection.raw_counts)
        elif self._count is not None:
            raw_count.copy_(self._count(number, logits))
            selection_kernels.select_counted[(1,)](
                logits, self._used_of_raw[number], self._settings,
                indices, self._weights, used, raw_count,
                TOP_K=top_k, EXPERTS=experts, PADDED=triton.next_power_of_2(experts),
            )  # fmt: skip

    def _routed(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Where the router of a layer writes: logits (1, expert), indices (expert,), used (1,)."""
        layer = slice(number, number + 1)
        record = self.record
        return record.router_logits[layer], record.indices[number], record.used[layer]

    def _shared(self, rows: int, at_once: int) -> int:
        """Programs that share a product of so many rows."""
        return min(self._programs, triton.cdiv(rows, at_once))


def _addresses(model: PreTrainedModel) -> tuple[int, ...]:
    return tuple(parameter.data_ptr() for parameter in model.parameters())
