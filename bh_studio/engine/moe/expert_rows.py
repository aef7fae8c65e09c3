"""Counting the work that experts really do, whatever computation runs them."""

from __future__ import annotations

from typing import Any, Self, cast

from torch import Tensor, nn
from transformers import PreTrainedModel

from bh_studio.engine.moe.expert_weights import find_experts


class ExpertRows:
    """Inside a `with` block, counts the rows that go through the experts of each layer.

    A row is one token in one expert: each sends one row through the activation of the expert's
    gate. Slots that a computation runs with weight 0 are counted, since they cost as much.

    rows: (layer,), since the block began.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._experts = find_experts(model)
        self.rows = [0] * len(self._experts)
        self._hooks: list[Any] = []

    def __enter__(self) -> Self:
        self._hooks = [
            cast(nn.Module, experts.act_fn).register_forward_pre_hook(self._counting(layer))
            for layer, experts in enumerate(self._experts)
        ]
        return self

    def __exit__(self, *_error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _counting(self, layer: int) -> Any:
        def count(_module: nn.Module, inputs: tuple[Tensor]) -> None:
            gate = inputs[0]
            self.rows[layer] += gate.numel() // gate.shape[-1]

        return count
