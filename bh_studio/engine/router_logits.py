"""Router logits from files that come from anyone: nulls of BH Studio, or a bare array.

Sizes are checked before anything is unpacked, and nothing pickled is ever read. Knows no model and
no rule.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from bh_studio.engine.nulls import RouterNull, load_null, member_sizes

_MAX_LAYERS = 1024
# Counts of experts are bytes.
_MAX_EXPERTS = 255
# What is raised for archives that are cut, altered, encrypted or packed in unknown ways, and for
# headers that are JSON of another shape.
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, TypeError,
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class RouterLogits:
    """logits: (layer, token, expert) float32 on the CPU. null: what the file is if BH Studio wrote
    it, with the logits as its own; None for a bare array."""

    logits: Tensor
    null: RouterNull | None


def load_router_logits(path: Path) -> RouterLogits:
    """Read a null file, or an .npz file with an array "logits" (layer, token, expert).

    The array is float32 or float64; rules compare in float32. Raises ValueError with a sentence
    that says what is wrong with the file, OSError if it cannot be opened.
    """
    try:
        sizes = member_sizes(path)
        with zipfile.ZipFile(path) as bundle:
            if "header.npy" in sizes:
                null = load_null(path)
                return RouterLogits(checked_logits(null.logits), null)
            if "logits.npy" not in sizes:
                found = ", ".join(sorted(n.removesuffix(".npy") for n in sizes)[:8]) or "nothing"
                raise ValueError(f'{path.name} holds no array "logits"; it holds {found}.')
            with bundle.open("logits.npy") as stream:
                array = _read_array(stream, sizes["logits.npy"], path.name)
    except _UNREADABLE as error:
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path.name} is not an .npz file of router logits.") from None
        raise ValueError(f"{path.name} is damaged: {error}") from error
    return RouterLogits(checked_logits(array), None)


def checked_logits(logits: np.ndarray | Tensor) -> Tensor:
    """`logits` as (layer, token, expert) float32 on the CPU, which is what rules compare.

    Raises ValueError for another shape, another kind of number, or one that is not finite.
    """
    values = torch.as_tensor(logits)
    if values.ndim != 3 or not values.is_floating_point():
        raise ValueError(
            "Router logits must be floating-point numbers with the axes (layer, token, expert); "
            f"got {str(values.dtype).removeprefix('torch.')} {tuple(values.shape)}."
        )
    layers, tokens, experts = values.shape
    if not (1 <= layers <= _MAX_LAYERS and tokens >= 1 and 2 <= experts <= _MAX_EXPERTS):
        raise ValueError(
            f"Router logits need 1 to {_MAX_LAYERS} layers, at least one token, and 2 to "
            f"{_MAX_EXPERTS} experts; got {layers}, {tokens} and {experts}."
        )
    values = values.to("cpu", torch.float32).contiguous()
    bad = ~torch.isfinite(values)
    if bad.any():
        layer, token, expert = bad.nonzero()[0].tolist()
        raise ValueError(
            f"{int(bad.sum())} router logits are not finite in float32, the first in layer "
            f"{layer}, token {token}, expert {expert}."
        )
    return values


def _read_array(stream: IO[bytes], size: int, file_name: str) -> np.ndarray:
    """The array of an .npy stream of `size` bytes; its header is checked before it is made."""
    try:
        header = _HEADERS[np.lib.format.read_magic(stream)]
        shape, fortran_order, dtype = header(stream)
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{file_name} is damaged: its array has no header that is known."
        ) from error
    if dtype.kind != "f" or dtype.itemsize not in (4, 8):
        raise ValueError(
            f"{file_name} must hold float32 or float64 router logits; it holds {dtype}."
        )
    if math.prod(shape) * dtype.itemsize != size - stream.tell():
        raise ValueError(f"{file_name} is damaged: its size does not fit the shape {shape}.")
    values = np.frombuffer(stream.read(), dtype)
    array = values.reshape(shape, order="F" if fortran_order else "C")
    return np.array(array, dtype=dtype.newbyteorder("="))


_HEADERS: dict[tuple[int, int], Callable[[IO[bytes]], tuple[tuple[int, ...], bool, Any]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
