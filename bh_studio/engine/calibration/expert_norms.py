"""The usual size of each expert's output, measured while a model reads a calibration text."""

from __future__ import annotations

from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bh_studio.engine.moe.expert_weights import Experts, find_experts
from bh_studio.engine.moe.experts import expert_output


class OutputNorms:
    """Inside a `with` block, measures what every forward pass of `model` asks of its experts.

    skipped: rows left out at the start of each pass, which reads one window. The outputs are
    computed once more here: only their weighted sum can be seen from outside.
    """

    def __init__(self, model: PreTrainedModel, skipped: int) -> None:
        self._skipped = skipped
        self._experts = find_experts(model)
        sizes = (len(self._experts), self._experts[0].down_proj.shape[0])
        self._sums = torch.zeros(sizes, dtype=torch.float64, device="cpu")
        self._tokens = torch.zeros(sizes, dtype=torch.float64, device="cpu")
        self._hooks: list[Any] = []

    def __enter__(self) -> Self:
        self._hooks = [
            cast(nn.Module, experts).register_forward_pre_hook(self._measuring(layer))
            for layer, experts in enumerate(self._experts)
        ]
        return self

    def __exit__(self, *_error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def means(self) -> Tensor:
        """Mean Euclidean norm over the tokens that selected an expert: (layer, expert) float32.

        An expert that no token selected gets the mean of its layer.
        """
        of_layer = self._sums.sum(1, keepdim=True) / self._tokens.sum(1, keepdim=True).clamp(min=1)
        means = self._sums / self._tokens.clamp(min=1)
        return torch.where(self._tokens > 0, means, of_layer).float()

    def _measuring(self, layer: int) -> Any:
        def measure(experts: nn.Module, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
            rows, indices, weights = inputs
            chosen = weights > 0
            chosen[: self._skipped] = False
            for index in indices[chosen].unique().tolist():
                own = ((indices == index) & chosen).any(-1)
                output = expert_output(cast(Experts, experts), rows[own], index)
                self._sums[layer, index] += output.float().norm(dim=-1).double().sum().cpu()
                self._tokens[layer, index] += len(output)

        return measure
