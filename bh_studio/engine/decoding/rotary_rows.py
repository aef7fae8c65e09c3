"""Rotary position embedding of one row, from tables that the model's own module makes.

Knows no layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Types whose frequencies change with the position: each is asked for by itself, as transformers'
# forward does.
CHANGING_ROTATIONS = ("dynamic", "longrope")
# Positions of the others that are asked for at once.
_AT_ONCE = 256


class RotaryRows:
    """Cosines and sines of one position after another.

    rotary: the model's module. dtype: of the states that are turned.
    """

    def __init__(self, rotary: Any, dtype: torch.dtype) -> None:
        self._rotary = rotary
        self._like = torch.empty((), dtype=dtype, device="cpu")
        self._at_once = 1 if rotary.rope_type in CHANGING_ROTATIONS else _AT_ONCE
        self._first, self._cosines, self._sines = 0, self._like[None][:0], self._like[None][:0]

    def at(self, position: int) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines of `position`, (width,) each, for `turned`."""
        if not 0 <= position - self._first < len(self._cosines):
            self._ask(position)
        return self._cosines[position - self._first], self._sines[position - self._first]

    def _ask(self, position: int) -> None:
        positions = torch.arange(position, position + self._at_once, device="cpu")
        cosines, sines = self._rotary(self._like, positions[None])
        # The sign of transformers' rotate_half lies in the sines here.
        sines[..., : sines.shape[-1] // 2].neg_()
        self._first, self._cosines, self._sines = position, cosines[0], sines[0]


def half_swap(width: int) -> Tensor:
    """The order of the numbers of one head that swaps its halves, (width,) int64."""
    return torch.arange(width, device="cpu").roll(width // 2)


def turned(heads: Tensor, cosines: Tensor, sines: Tensor, swap: Tensor) -> Tensor:
    """transformers' apply_rotary_pos_emb, rounded where it rounds.

    heads: (head, width). cosines, sines: of RotaryRows.at. swap: half_swap(width).
    """
    return (heads * cosines).add_(heads.index_select(1, swap).mul_(sines))
