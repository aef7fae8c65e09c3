"""How probable a chosen token was, and the most probable ones, on a GPU, in Triton.

PyTorch's own topk over a vocabulary takes as long as a tenth of a decode step; this takes two short
kernels. Knows tensors, no model.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_AT_ONCE = 1024

# Arguments are grouped by kind, a line each.
# fmt: off


@triton.jit
def _largest(value, number, left: tl.constexpr):
    """The largest of `value` and its smallest `number`; and the values without it."""
    largest = tl.max(value)
    found = tl.min(tl.where(value == largest, number, 0x7FFFFFFF))
    return largest, found, tl.where(number == found, left, value)


@triton.jit
def _of_parts(
    logits, token, values, numbers, sums, above,
    VOCABULARY: tl.constexpr, BLOCK: tl.constexpr, MOST: tl.constexpr,
):
    """The MOST largest logits of each part, the sum of its exponentials, and how many exceed the
    logit of `token`. One program a part; sums are of differences from its largest logit."""
    part = tl.program_id(0)
    number = part * BLOCK + tl.arange(0, BLOCK)
    row = tl.load(logits + number, mask=number < VOCABULARY, other=float("-inf")).to(tl.float32)
    chosen = tl.load(logits + tl.load(token)).to(tl.float32)
    tl.store(above + part, tl.sum((row > chosen).to(tl.int32)))
    largest = tl.max(row)
    tl.store(sums + part, tl.sum(tl.where(row == float("-inf"), 0.0, tl.exp(row - largest))))
    for place in tl.static_range(MOST):
        value, found, row = _largest(row, number, float("-inf"))
        tl.store(values + part * MOST + place, value)
        tl.store(numbers + part * MOST + place, found)


@triton.jit
def _of_all(
    logits, token, values, numbers, sums, above, log_probabilities, ids,
    PARTS: tl.constexpr, PADDED_PARTS: tl.constexpr, PADDED: tl.constexpr, MOST: tl.constexpr,
):
    """The same of all parts. One program.

    log_probabilities: (1 + MOST,) float32, of the token, then of the most probable ones. ids:
    (1 + MOST,) int32, the rank of the token, then the most probable ones.
    """
    part = tl.arange(0, PADDED_PARTS)
    is_part = part < PARTS
    first = tl.load(values + part * MOST, mask=is_part, other=float("-inf"))
    largest = tl.max(first)
    total = tl.load(sums + part, mask=is_part, other=0.0)
    total = tl.sum(tl.where(first == float("-inf"), 0.0, total * tl.exp(first - largest)))
    of_all = tl.log(total)
    chosen = tl.load(logits + tl.load(token)).to(tl.float32)
    tl.store(log_probabilities, chosen - largest - of_all)
    tl.store(ids, 1 + tl.sum(tl.load(above + part, mask=is_part, other=0)))
    slot = tl.arange(0, PADDED)
    row = tl.load(values + slot, mask=slot < PARTS * MOST, other=float("-inf"))
    number = tl.load(numbers + slot, mask=slot < PARTS * MOST, other=0x7FFFFFFF)
    for place in tl.static_range(MOST):
        value, found, row = _largest(row, number, float("-inf"))
        tl.store(log_probabilities + 1 + place, value - largest - of_all)
        tl.store(ids + 1 + place, found)


# fmt: on


class ChoiceWriter:
    """Writes what logits say of a token. vocabulary: how many there are; on one CUDA device.

    most: how many of the most probable tokens.
    """

    def __init__(self, vocabulary: int, most: int, device: torch.device) -> None:
        self._vocabulary, self._most = vocabulary, most
        self._parts = triton.cdiv(vocabulary, _AT_ONCE)

        def new(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        self._values = new(self._parts, most, dtype=torch.float32)
        self._numbers = new(self._parts, most, dtype=torch.int32)
        self._sums = new(self._parts, dtype=torch.float32)
        self._above = new(self._parts, dtype=torch.int32)

    def __call__(
        self, logits: Tensor, token: Tensor, log_probabilities: Tensor, ids: Tensor
    ) -> None:
        """Queue it. logits: (1, vocabulary). token: int64, one number.

        log_probabilities, ids: (1 + most,) float32 and int32; of `token` the log-probability and
        the rank, then the most probable tokens, the most probable first.
        """
        parts = self._values, self._numbers, self._sums, self._above
        _of_parts[(self._parts,)](
            logits, token, *parts, VOCABULARY=self._vocabulary, BLOCK=_AT_ONCE, MOST=self._most
        )
        _of_all[(1,)](
            logits, token, *parts, log_probabilities, ids,
            PARTS=self._parts, PADDED_PARTS=triton.next_power_of_2(self._parts),
            PADDED=triton.next_power_of_2(self._parts * self._most), MOST=self._most,
        )  # fmt: skip
