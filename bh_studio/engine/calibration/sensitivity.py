"""How much each expert's output matters to the model's answer, measured on a calibration text.

Leaving out expert i of one token changes the layer's output by P_i o_i. With g the gradient of the
log-probability of a token drawn from the model's own distribution, the second-order change of that
distribution is KL = E[(g . P_i o_i)^2] / 2, the quadratic form of the Fisher information. So

    c_i = sqrt(E[(g . o_i)^2])

makes P_i c_i a score in the unit sqrt(nat), the same in every layer: half its square estimates the
divergence that leaving out expert i alone would cause, at this and all later positions. Fisher
information for pruning: Theis et al. (2018), "Faster gaze prediction with dense networks and Fisher
pruning"; Molchanov et al. (2019), "Importance estimation for neural network pruning".
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bh_studio.engine.moe.expert_weights import Experts, find_experts
from bh_studio.engine.moe.experts import expert_output

_SEED = 0


def squared_effects(model: PreTrainedModel, ids: Tensor, number: int, skipped: int) -> Tensor:
    """Sums of (g . o_i)^2 over the tokens of a window that selected an expert, and their number.

    ids: the window, (token,). number: its place among the windows of the text, which what is drawn
    depends on. skipped: positions left out at its start. Returns (2, layer, expert) float64 on the
    CPU. Runs the model forward and backward, so it takes about three times as long as reading, and
    the memory of one window's activations.
    """
    experts = find_experts(model)
    sums = torch.zeros(2, len(experts), experts[0].down_proj.shape[0], dtype=torch.float64)
    seed = np.random.SeedSequence((_SEED, number)).generate_state(1)[0]
    generator = torch.Generator().manual_seed(int(seed))
    was_training = model.training
    model.eval()
    try:
        passes = _LayerPasses(experts)
        with passes, torch.enable_grad():
            logits = model(ids[None].to(model.device), use_cache=False).logits[0]
            passes.differentiate(_drawn_log_probability(logits, generator))
        passes.add(sums[0], sums[1], skipped)
    finally:
        model.train(was_training)
    return sums


def sensitivities(sums: Tensor) -> Tensor:
    """c_i of every expert from `squared_effects` of all windows added up, (2, layer, expert).

    Returns (layer, expert) float32. An expert that no token selected gets the root mean square of
    its layer.
    """
    squares, tokens = sums
    of_layer = squares.sum(1, keepdim=True) / tokens.sum(1, keepdim=True).clamp(min=1)
    return torch.where(tokens > 0, squares / tokens.clamp(min=1), of_layer).sqrt().float()


def _drawn_log_probability(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Sum over positions of the log-probability of one token drawn at each: a scalar."""
    log_p = logits.log_softmax(-1, torch.float32)
    # Drawn on the processor: the same tokens on every device.
    drawn = torch.multinomial(log_p.detach().exp().cpu(), 1, generator=generator)
    return log_p.gather(-1, drawn.to(logits.device)).sum()


class _LayerPasses:
    """Inside a `with` block, what goes into and comes out of the experts of each layer.

    The output is passed on with a tensor of zeros added, whose gradient is that of the output.
    """

    def __init__(self, experts: list[Experts]) -> None:
        self._experts = experts
        self._inputs: list[tuple[Tensor, ...]] = []
        self._zeros: list[Tensor] = []
        self._gradients: tuple[Tensor, ...] = ()
        self._hooks = ExitStack()

    def __enter__(self) -> None:
        for experts in self._experts:
            hook = cast(nn.Module, experts).register_forward_hook(self._keep)
            self._hooks.callback(hook.remove)

    def __exit__(self, *_error: object) -> None:
        self._hooks.close()

    def _keep(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Any:
        zeros = torch.zeros_like(output, requires_grad=True)
        self._inputs.append(tuple(tensor.detach() for tensor in inputs))
        self._zeros.append(zeros)
        return output + zeros

    def differentiate(self, value: Tensor) -> None:
        """Keep the gradient of `value` in each layer's output."""
        self._gradients = torch.autograd.grad(value, self._zeros)

    @torch.no_grad()
    def add(self, squares: Tensor, tokens: Tensor, skipped: int) -> None:
        """Add (g . o)^2 of every token and expert it selected to `squares`, and count them."""
        for layer, (rows, indices, weights) in enumerate(self._inputs):
            chosen = weights > 0
            chosen[:skipped] = False
            gradient = self._gradients[layer].float()
            for index in indices[chosen].unique().tolist():
                own = ((indices == index) & chosen).any(-1)
                output = expert_output(self._experts[layer], rows[own], index).float()
                effect = (gradient[own] * output).sum(-1)
                squares[layer, index] += effect.double().square().sum().cpu()
                tokens[layer, index] += len(effect)
