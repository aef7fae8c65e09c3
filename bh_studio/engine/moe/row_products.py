"""The product of one row with a weight on the CPU: the ways to make it, and the fastest here.

Decoding reads every weight for one row, so it is as fast as its products read memory, and
libraries differ in that by a factor of two. Knows neither models nor experts.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

log = logging.getLogger(__name__)

# Smaller weights lie in the processor's caches, and calling a product takes as long as making it.
SMALL_BYTES = 2**20
_ROUNDS = 5
# Another product has to be clearly faster than PyTorch's own choice, so that noise in the timings
# does not make one run round its sums otherwise than the next.
_CLEARLY = 0.9
_fastest: dict[tuple[torch.dtype, int], RowProduct] = {}


@dataclass(frozen=True, slots=True, eq=False)
class RowProduct:
    """One way to multiply one row with a weight.

    name: for people. linear: row (1, in) and weight (out, in) to (1, out), in their dtype; the
    weight is read where it lies. with_onednn: False if the product is only meant with PyTorch's
    use of oneDNN switched off; `linear` does not do that itself, see `in_force`.
    """

    name: str
    linear: Callable[[Tensor, Tensor], Tensor]
    with_onednn: bool = True

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Inside the block PyTorch's settings are those that `linear` needs.

        They hold for the whole process: products of many rows are slow meanwhile. Blocks may be
        nested, and an error leaves no setting behind.
        """
        if self.with_onednn:
            yield
            return
        # torch.backends.mkldnn.flags sets TF32 modes besides, and warns of that.
        before = torch._C._get_mkldnn_enabled()
        torch._C._set_mkldnn_enabled(False)
        try:
            yield
        finally:
            torch._C._set_mkldnn_enabled(before)


def _sliced(row: Tensor, weight: Tensor) -> Tensor:
    """One slice of the outputs a thread: MKL gives one row's float32 product to one thread only."""
    slices = torch.get_num_threads()
    if weight.shape[0] % slices:
        return F.linear(row, weight)
    parts = weight.unflatten(0, (slices, -1)).transpose(1, 2)
    return torch.bmm(row.expand(slices, 1, -1), parts).view(1, -1)


LINEAR = RowProduct("PyTorch's choice", F.linear)
PLAIN = RowProduct("without oneDNN", F.linear, with_onednn=False)
SLICED = RowProduct("in slices", _sliced)


def fastest_row_product(weight: Tensor) -> RowProduct:
    """The fastest product of one row with `weight`, (out, in), or with each of (expert, out, in).

    Measured with the first large weight of a dtype, which takes some milliseconds, and again if the
    number of threads changes. Small weights, and those not on the CPU, get LINEAR.
    """
    if not weight.is_cpu or _bytes_of_one(weight) < SMALL_BYTES:
        return LINEAR
    key = (weight.dtype, torch.get_num_threads())
    if key not in _fastest:
        _fastest[key] = _measured(weight.detach().reshape(-1, *weight.shape[-2:]))
        log.info("Products of one row in %s: %s", weight.dtype, _fastest[key].name)
    return _fastest[key]


def chosen() -> dict[str, str]:
    """The products in use with the present number of threads: their names by that of the dtype."""
    threads = torch.get_num_threads()
    return {
        str(dtype).removeprefix("torch."): product.name
        for (dtype, number), product in _fastest.items()
        if number == threads
    }


def choose(dtype: str, name: str) -> None:
    """Use the product `name` for large weights in `dtype`, whichever is the fastest here.

    Raises ValueError if this machine has no such product.
    """
    kind = getattr(torch, dtype, None)
    if isinstance(kind, torch.dtype):
        for product in candidates(kind):
            if product.name == name:
                _fastest[kind, torch.get_num_threads()] = product
                return
    raise ValueError(f"This machine has no product of one row in {dtype} called {name!r}.")


def candidates(dtype: torch.dtype) -> list[RowProduct]:
    """The products that may be the fastest in `dtype` on this machine; LINEAR comes first."""
    found = [LINEAR]
    if torch.backends.mkldnn.is_available():
        found.append(PLAIN)
    # In other dtypes batched products of one row are many times slower than the others.
    if dtype == torch.float32 and torch.get_num_threads() > 1:
        found.append(SLICED)
    return found


def is_accurate(product: RowProduct, row: Tensor, weight: Tensor) -> bool:
    """Whether `product` adds up in float32 at least and rounds once: compared in float64.

    row: (1, in). weight: (out, in), of which every eighth output is looked at.
    """
    with product.in_force():
        found = product.linear(row, weight)[:, ::8].double()
    expected = F.linear(row.double(), weight[::8].double())
    rounding = torch.finfo(row.dtype).eps
    sums = torch.finfo(torch.float32).eps * row.shape[1] ** 0.5
    return bool((found - expected).abs().max() <= (rounding + sums) * expected.abs().max())


def _bytes_of_one(weight: Tensor) -> int:
    return weight.shape[-2] * weight.shape[-1] * weight.itemsize


@torch.inference_mode()
def _measured(weights: Tensor) -> RowProduct:
    """The fastest product for `weights`, (weight, out, in)."""
    generator = torch.Generator().manual_seed(0)
    row = torch.randn(1, weights.shape[-1], generator=generator).to(weights.dtype)
    # Looking at LINEAR too makes its first call, which is slow, before the clock runs.
    accurate = [p for p in candidates(weights.dtype) if is_accurate(p, row, weights[0])]
    possible = [LINEAR, *(p for p in accurate if p is not LINEAR)]
    # Another weight each time, as in decoding, where none is in a cache.
    next_weight = itertools.cycle(weights).__next__
    best = dict.fromkeys(possible, float("inf"))
    for _ in range(_ROUNDS):
        for product in possible:
            best[product] = min(best[product], _seconds(product, row, next_weight()))
    fastest = min(possible, key=best.__getitem__)
    return fastest if best[fastest] < _CLEARLY * best[LINEAR] else LINEAR


def _seconds(product: RowProduct, row: Tensor, weight: Tensor) -> float:
    with product.in_force():
        start = time.perf_counter()
        product.linear(row, weight)
        return time.perf_counter() - start
