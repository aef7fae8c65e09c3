"""Tensors of the layers of a model, on whatever devices the layers lie. Knows no model."""

from __future__ import annotations

import torch
from torch import Tensor


class LayerTensors:
    """One tensor a layer, copied once to each device that it is asked for on.

    The layers of a model may lie on several devices, and what a layer's rule compares with must lie
    where its logits are.

    tensors: (layer, ...). Layers that share their memory, as after `expand`, share their copies.
    """

    def __init__(self, tensors: Tensor) -> None:
        self._tensors = tensors.unbind(0)
        self._placed = {(tensors.device, n): tensor for n, tensor in enumerate(self._tensors)}
        self._copies: dict[tuple[torch.device, int], Tensor] = {}

    def on(self, device: torch.device, layer: int) -> Tensor:
        """The tensor of `layer` on `device`."""
        key = device, layer
        if key not in self._placed:
            self._placed[key] = self._copy(device, self._tensors[layer])
        return self._placed[key]

    def _copy(self, device: torch.device, tensor: Tensor) -> Tensor:
        key = device, tensor.data_ptr()
        if key not in self._copies:
            # It serves later too, outside of the inference mode that may be in force now.
            with torch.inference_mode(False):
                self._copies[key] = tensor.to(device)
        return self._copies[key]
