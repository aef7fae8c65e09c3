"""The usual size of each expert's output, measured while a model reads a calibration text."""

from __future__ import annotations

from typing import Any, Self, cast

import numpy as np
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

    def sums(self) -> np.ndarray:
        """Sums of Euclidean norms, and the tokens behind them: (2, layer, expert) float64."""
        return torch.stack([self._sums, self._tokens]).numpy()

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


def mean_norms(sums: Tensor) -> Tensor:
    """Mean norm over the tokens that selected an expert, from sums of OutputNorms added up.

    sums: (2, layer, expert) float64. Returns (layer, expert) float32; an expert that no token
    selected gets the mean of its layer.
    """
    norms, tokens = sums
    of_layer = norms.sum(1, keepdim=True) / tokens.sum(1, keepdim=True).clamp(min=1)
    return torch.where(tokens > 0, norms / tokens.clamp(min=1), of_layer).float()
