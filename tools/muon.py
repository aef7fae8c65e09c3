"""Muon: momentum whose every update is orthogonalised, for the matrices inside the layers.

After K. Jordan and others, "Muon: an optimizer for hidden layers in neural networks" (2024). Knows
tensors only.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def orthogonalize(matrices: Tensor) -> Tensor:
    """The nearest matrices whose singular values are all about 1, by Newton-Schulz iteration.

    matrices: (batch, rows, columns). The coefficients of the quintic are those of K. Jordan's Muon
    (2024): steepest at zero, so five steps are enough, at the price of values between 0.7 and 1.2.
    """
    x: Tensor = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised a matrix at a time, for all weights of one shape at once.

    An expert tensor (experts, rows, columns) is a batch of matrices, and gate and up are two.
    The update has AdamW's usual size, so both optimizers share one learning rate.
    """

    def __init__(
        self, shapes: dict[tuple[int, int], list[Tensor]], lr: Tensor, weight_decay: float
    ) -> None:
        groups = [{"params": params, "matrix": shape} for shape, params in shapes.items()]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})
        self.orthogonalize = orthogonalize
        if lr.is_cuda:
            self.orthogonalize = torch.compile(orthogonalize, dynamic=False)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params, (rows, columns) = group["params"], group["matrix"]
            gradient = torch.cat([p.grad.view(-1, rows, columns) for p in params])
            if "momentum" not in group:
                group["momentum"] = torch.zeros_like(gradient)
            momentum = group["momentum"].lerp_(gradient, 0.05)
            update = self.orthogonalize(gradient.lerp(momentum, 0.95)).float()
            update *= group["lr"] * (-0.2 * math.sqrt(max(rows, columns)))
            updates = [u.view_as(p) for u, p in zip(update.chunk(len(params)), params, strict=True)]
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(params, updates)
