"""Keys and values of one answer, written in place: no copy of what is there for a new token.

Knows shapes only, no model.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import DynamicCache

# Tokens that the first allocation leaves room for; each further one doubles the room.
_FIRST_ROOM = 256

# Where a layer's key and value of a row go, (head, width) each, and then all its keys and values,
# (1, head, position, width) each.
Place = tuple[Tensor, Tensor, Tensor, Tensor]


class KeyValueBuffer:
    """What attention reads on the CPU, in float32 whatever the dtype of the model.

    PyTorch's attention of one row reads float32 several times as fast as 16-bit numbers on the
    CPU, and a number of 16 bits is kept as it is.

    cache: keys and values of the prompt; it is empty afterwards. room: rows that may be added.
    """

    def __init__(self, cache: DynamicCache, room: int) -> None:
        first = cache.layers[0].keys
        self.length = int(first.shape[2])
        self._limit = self.length + room
        heads, width = first.shape[1], first.shape[3]
        capacity = min(self._limit, self.length + _FIRST_ROOM)
        # (keys and values, layer, 1, head, position, width)
        self._data = _empty(len(cache.layers), heads, capacity, width)
        for layer in range(len(cache.layers)):
            # One layer after the other, so that the prompt is never held twice as a whole.
            prompt = cache.layers.pop(0)
            self._data[0, layer, :, :, : self.length] = prompt.keys
            self._data[1, layer, :, :, : self.length] = prompt.values

    def add_row(self) -> Iterator[Place]:
        """Make room for one position more, and say for each layer where it lies."""
        if self.length == self._data.shape[4]:
            self._grow()
        new = self._data[:, :, 0, :, self.length]
        self.length += 1
        read = self._data.narrow(4, 0, self.length)
        return zip(
            new[0].unbind(0), new[1].unbind(0), read[0].unbind(0), read[1].unbind(0), strict=True
        )

    def _grow(self) -> None:
        _, layers, _, heads, capacity, width = self._data.shape
        larger = _empty(layers, heads, min(self._limit, 2 * capacity), width)
        larger[:, :, :, :, :capacity] = self._data
        self._data = larger


def _empty(layers: int, heads: int, capacity: int, width: int) -> Tensor:
    return torch.empty(2, layers, 1, heads, capacity, width, dtype=torch.float32, device="cpu")
