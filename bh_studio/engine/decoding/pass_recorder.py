"""Records what is decided while the model's own modules read tokens."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bh_studio.engine.decoding.decided import Decided, choice_of, experts_that_ran, of_layers
from bh_studio.engine.moe.router_capture import RouterCapture


class PassRecorder(RouterCapture):
    """To be entered around a pass of `model`, inside the routing that is in force.

    slots: experts that a position can have at most.
    """

    def __init__(self, model: nn.Module, slots: int) -> None:
        super().__init__(model)
        self.slots = slots

    def decided(self, logits: Tensor, token_id: int) -> Decided:
        """What was decided in the last pass. logits: (1, vocabulary), of which `token_id` is."""
        return Decided(*self.decision(), choice_of(logits, token_id))

    def decision(self) -> tuple[np.ndarray, np.ndarray]:
        """What the routers decided in the last pass: router_logits and experts of Decided."""
        router_logits, weights, indices = zip(*self.outputs, strict=True)
        ran = experts_that_ran(
            _of_rows(indices, torch.int64), _of_rows(weights, torch.float32), self.slots
        )
        return of_layers(router_logits, torch.float32), ran


def _of_rows(tensors: tuple[Tensor, ...], dtype: torch.dtype) -> np.ndarray:
    """(row, layer, slot), with as many slots as the widest layer, filled with 0."""
    widest = max(tensor.shape[-1] for tensor in tensors)
    padded = [torch.nn.functional.pad(t, (0, widest - t.shape[-1])) for t in tensors]
    return of_layers(padded, dtype)
