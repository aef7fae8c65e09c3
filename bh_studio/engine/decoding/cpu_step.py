"""One token of an OLMoE on the CPU: a forward of our own in few operations, written in plain torch.

The layers of the embedded model are so small that transformers' forward spends most of a token's
time between operations. This one makes the same operations and nothing else: in float32 the tokens
are the same; in 16 bits norms are rounded once instead of twice and attention is computed in
float32. It reads the weights where they lie and never copies them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from bh_studio.engine.decoding.decided import Decided, choice_of
from bh_studio.engine.decoding.key_value_buffer import KeyValueBuffer, Place
from bh_studio.engine.decoding.olmoe_layers import Layer, Norm, read_layers, read_norm
from bh_studio.engine.decoding.rotary_rows import RotaryRows, half_swap, turned
from bh_studio.engine.decoding.step import Choose, DecodedToken
from bh_studio.engine.moe.experts import selected_experts_forward
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.moe.row_products import fastest_row_product
from bh_studio.engine.records.decisions.routed_experts import NO_EXPERT
from bh_studio.engine.routing.selection import RoutingRule
from bh_studio.engine.rules.parameters import Mode

_UNUSED = bytes([NO_EXPERT])
# (layer number, layer, row) to router logits (1, expert), mixing weights and indices (1, slot), and
# the rule's raw count.
Route = Callable[[int, Layer, Tensor], tuple[Tensor, Tensor, Tensor, int]]


@dataclass(frozen=True, slots=True, eq=False)
class _ReadyToken:
    """A token that is there; it enters the statistics when it is taken."""

    token: DecodedToken
    integration: RoutingIntegration | None

    def wait(self) -> DecodedToken:
        if self.integration is not None and self.token.raw_counts is not None:
            self.integration.add_decode_pass(self.token.raw_counts)
        return self.token


class CpuStep:
    """A DecodeStep for an OlmoeForCausalLM on the CPU that has no olmoe_layers.layout_problem.

    integration: whose rule routes; None for the model's own routers. choose: None takes the most
    probable token. slots: experts that a token can have at most, where what is decided is recorded;
    None for no record. What is done to the model's modules later, hooks among them, has no effect.
    """

    runs_ahead = False

    def __init__(
        self,
        model: PreTrainedModel,
        integration: RoutingIntegration | None,
        choose: Choose | None,
        slots: int | None = None,
    ) -> None:
        decoder: Any = model.base_model
        attention = decoder.layers[0].self_attn
        self._layers = read_layers(model)
        self._last_norm = read_norm(decoder.norm)
        self._embedding: Tensor = model.get_input_embeddings().weight
        self._vocabulary: Tensor = model.get_output_embeddings().weight
        self._linear_product = fastest_row_product(self._layers[0].query)
        self._linear = self._linear_product.linear
        self._clip: float | None = model.config.clip_qkv
        self._scaling: float = attention.scaling
        heads = self._layers[0].query.shape[0] // attention.head_dim
        kv_heads = self._layers[0].key.shape[0] // attention.head_dim
        self._heads, self._is_grouped = heads, kv_heads < heads
        # Queries and keys one below the other, for what is done to both alike: (head, width).
        self._both = self._embedding.new_empty(heads + kv_heads, attention.head_dim)
        self._query = self._both[:heads].view(1, -1)
        self._key = self._both[heads:].view(1, -1)
        self._rotary = RotaryRows(decoder.rotary_emb, self._embedding.dtype)
        self._swap = half_swap(attention.head_dim)
        self._integration = integration
        self._route = _own_route if integration is None else _rule_route(integration.rule)
        self._choose = choose
        self._slots = slots
        self._routed: list[tuple[Tensor, Tensor, Tensor]] = []
        self._token_id = 0
        self._buffer: KeyValueBuffer | None = None

    def start(self, cache: DynamicCache, token: Tensor, room: int) -> None:
        """See DecodeStep."""
        self._buffer = KeyValueBuffer(cache, room)
        self._token_id = int(token)

    def submit(self) -> _ReadyToken:
        """See DecodeStep; the token is there when this returns."""
        start = time.perf_counter()
        with torch.inference_mode(), self._linear_product.in_force():
            logits, raw_counts = self._read(self._token_id)
            chosen = logits.argmax() if self._choose is None else self._choose(logits)
            self._token_id = int(chosen)
            decided = None if self._slots is None else self._decided(logits, self._slots)
        seconds = time.perf_counter() - start
        token = DecodedToken(self._token_id, raw_counts, seconds, decided)
        return _ReadyToken(token, self._integration)

    def close(self) -> None:
        """See DecodeStep."""
        self._buffer = None

    def _read(self, token_id: int) -> tuple[Tensor, np.ndarray | None]:
        """Logits after `token_id`, (1, vocabulary), and what the rule selected."""
        if self._buffer is None:
            raise RuntimeError("This step was not started, or was closed.")
        hidden = self._embedding[token_id : token_id + 1]
        rotation = self._rotary.at(self._buffer.length)
        raw_counts: list[int] = []
        routed = self._routed = []
        places = self._buffer.add_row()
        for number, (layer, place) in enumerate(zip(self._layers, places, strict=True)):
            hidden = hidden + self._attend(layer, hidden, place, rotation)
            row = _normed(hidden, layer.experts_norm)
            router_logits, weights, indices, raw_count = self._route(number, layer, row)
            raw_counts.append(raw_count)
            routed.append((router_logits, weights, indices))
            hidden = hidden + selected_experts_forward(layer.experts, row, indices, weights)
        logits = self._linear(_normed(hidden, self._last_norm), self._vocabulary)
        if self._integration is None:
            return logits, None
        return logits, np.array([raw_counts], dtype=np.uint8)

    def _decided(self, logits: Tensor, slots: int) -> Decided:
        """What was decided in the last pass, the token that was chosen included."""
        router_logits, weights, indices = zip(*self._routed, strict=True)
        shares = torch.cat(weights, dim=1).tolist()[0]
        numbers = torch.cat(indices, dim=1).tolist()[0]
        ran = bytearray()
        end = 0
        # Plain Python: for so few numbers an array operation costs more than it saves.
        for taken in indices:
            start, end = end, end + taken.shape[1]
            of_layer = numbers[start:end]
            if 0.0 in shares[start:end]:
                # A weight that vanished in rounding: its expert did not run.
                of_layer = list(compress(of_layer, shares[start:end]))
            ran += bytes(of_layer).ljust(slots, _UNUSED)
        experts = np.frombuffer(ran, np.uint8).reshape(1, len(indices), slots)
        return Decided(
            torch.cat(router_logits).float().numpy()[None],
            experts,
            choice_of(logits, self._token_id),
        )

    def _attend(
        self, layer: Layer, hidden: Tensor, place: Place, rotation: tuple[Tensor, Tensor]
    ) -> Tensor:
        row = _normed(hidden, layer.input_norm)
        _normed(self._linear(row, layer.query), layer.query_norm, self._query)
        _normed(self._linear(row, layer.key), layer.key_norm, self._key)
        value = self._linear(row, layer.value)
        if self._clip is not None:
            self._both.clamp_(-self._clip, self._clip)
            value.clamp_(-self._clip, self._clip)
        both = turned(self._both, *rotation, self._swap)
        new_key, new_value, all_keys, all_values = place
        new_key.copy_(both[self._heads :])
        new_value.copy_(value.view_as(new_value))
        attended = F.scaled_dot_product_attention(
            both[: self._heads].float()[None, :, None],
            all_keys,
            all_values,
            scale=self._scaling,
            enable_gqa=self._is_grouped,
        )
        return self._linear(attended.view(1, -1).to(hidden.dtype), layer.output)


def _normed(row: Tensor, norm: Norm, out: Tensor | None = None) -> Tensor:
    """OlmoeRMSNorm of one row, (1, width), in float32 and rounded once. out: where it goes."""
    wide = row.float().view(-1)
    mean_square = torch.dot(wide, wide).item() / len(wide)
    scale = (mean_square + norm.epsilon) ** -0.5
    # One operation for both factors; adding zero is what torch offers it for.
    return torch.addcmul(norm.zeros, row, norm.weight, value=scale, out=out)


def _own_route(_number: int, layer: Layer, row: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    # As it is now: another rule may be in force in the model.
    logits, weights, indices = layer.router.forward(row)
    return logits, weights, indices, 0


def _rule_route(rule: RoutingRule) -> Route:
    def analyze(number: int, layer: Layer, row: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
        logits, weights, indices = layer.router.forward(row)
        return logits, weights, indices, rule.count_one(number, logits)

    def patch(number: int, layer: Layer, row: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
        logits = F.linear(row, layer.router_weight)
        indices, weights, raw_count = rule.select_one(number, logits)
        return logits, weights.to(row.dtype), indices, raw_count

    return analyze if rule.parameters.mode is Mode.ANALYZE else patch
