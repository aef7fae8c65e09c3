"""Reads a checkpoint's weights straight into a model's own memory.

transformers reads each expert's tensors, stacks them and joins them: for a moment the weights are
there twice, and every byte is copied three times. Here the fused tensors are made first, and each
expert is read from the file into its place in them. Knows no router and no rule.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bh_studio.engine.architectures import Architecture
from bh_studio.engine.errors import EngineError
from bh_studio.engine.models.checkpoint import StoredTensor

_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
# More threads than this wait for memory, not for work.
_MOST_THREADS = 4
# Large enough that Python's part is small, small enough that progress moves and cancelling is soon.
_PIECE_BYTES = 32 * 2**20

DeviceOf = Callable[[str], torch.device]


@dataclass(frozen=True, slots=True)
class _Read:
    """One stored tensor and the part of a parameter that it fills."""

    stored: StoredTensor
    target: Tensor


def materialize(model: nn.Module, dtype: torch.dtype, device_of: DeviceOf) -> None:
    """Give every parameter of a model made on the meta device memory of its own, not filled yet.

    Parameters that are one, such as tied embeddings, stay one. device_of: by parameter name.
    """
    made: dict[int, nn.Parameter] = {}
    for name, former in list(model.named_parameters(remove_duplicate=False)):
        if id(former) not in made:
            empty = torch.empty(former.shape, dtype=dtype, device=device_of(name))
            made[id(former)] = nn.Parameter(empty, requires_grad=former.requires_grad)
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, made[id(former)])


def check_weights(
    model: nn.Module, tensors: Mapping[str, StoredTensor], architecture: Architecture
) -> None:
    """Raise EngineError if `tensors` lack a weight of `model`, on any device, or its shape."""
    _planned(model, tensors, architecture)


def read_weights(
    model: nn.Module,
    tensors: Mapping[str, StoredTensor],
    architecture: Architecture,
) -> Generator[float, None, None]:
    """Fill the parameters of `model` from `tensors`; on the way the share that was read, 0 to 1.

    Closing it ends the reading. Raises EngineError for weights that are missing, of another shape,
    or shorter than their header says.
    """
    reads = _planned(model, tensors, architecture)
    reads.sort(key=lambda read: (read.stored.file, read.stored.start))
    total = sum(read.stored.size for read in reads) or 1
    done = 0
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, thread_name_prefix="weights") as pool:
        pieces = _pieces(reads)
        running: set[Future[int]] = set()
        try:
            # No more than are needed to keep the threads busy, so that the end is never far.
            for piece in pieces:
                running.add(pool.submit(_fill, piece))
                if len(running) > threads:
                    finished, running = wait(running, return_when=FIRST_COMPLETED)
                    done += sum(future.result() for future in finished)
                    yield done / total
            for future in running:
                done += future.result()
                yield done / total
        finally:
            for future in running:
                future.cancel()


def _planned(
    model: nn.Module, tensors: Mapping[str, StoredTensor], architecture: Architecture
) -> list[_Read]:
    """Which stored tensor fills which part of which parameter. Raises EngineError."""
    reads: list[_Read] = []
    missing: list[str] = []
    targets = dict(_targets(model, tensors, architecture))
    for name, target in targets.items():
        stored = tensors.get(name)
        if stored is None:
            missing.append(name)
        elif stored.shape != tuple(target.shape):
            raise EngineError(
                f"{name} has the shape {list(stored.shape)} in {stored.file.name}; the "
                f"configuration asks for {list(target.shape)}.",
                "The configuration and the weights belong to different models.",
            )
        else:
            reads.append(_Read(stored, target))
    if missing:
        raise EngineError(
            f"The checkpoint lacks {len(missing)} weights, {sorted(missing)[0]} among them.",
            "Check that all files of the checkpoint are there and complete.",
        )
    return reads


def _targets(
    model: nn.Module, tensors: Mapping[str, StoredTensor], architecture: Architecture
) -> Iterator[tuple[str, Tensor]]:
    """Names in checkpoints and the memory that belongs to them."""
    pattern = architecture.expert_tensor
    prefix = pattern.partition("{expert}")[0]
    gate, up, down = architecture.projections
    for name, parameter in model.named_parameters():
        owner, _, attribute = name.rpartition(".")
        layer = next((part for part in name.split(".") if part.isdigit()), "")
        is_expert = owner + "." == prefix.format(layer=layer) and name not in tensors
        if not is_expert:
            yield name, parameter.data
            continue
        for expert, block in enumerate(parameter.data):
            if attribute == "down_proj":
                parts: tuple[tuple[str, Tensor], ...] = ((down, block),)
            else:
                width = block.shape[0] // 2
                parts = ((gate, block[:width]), (up, block[width:]))
            for projection, part in parts:
                yield pattern.format(layer=layer, expert=expert, projection=projection), part


def _pieces(reads: list[_Read]) -> Iterator[list[_Read]]:
    """`reads` in groups of one file and about _PIECE_BYTES."""
    piece: list[_Read] = []
    size = 0
    for read in reads:
        if piece and (size >= _PIECE_BYTES or read.stored.file != piece[0].stored.file):
            yield piece
            piece, size = [], 0
        piece.append(read)
        size += read.stored.size
    if piece:
        yield piece


def _fill(piece: list[_Read]) -> int:
    """Read the tensors of `piece` into their places; how many bytes."""
    path = piece[0].stored.file
    try:
        with path.open("rb", buffering=0) as file:
            for read in piece:
                _fill_one(file, read)
    except OSError as error:
        raise EngineError(
            f"{path.name} could not be read: {error.strerror or error}.",
            "Check the disk, and that all files of the checkpoint are there and complete.",
        ) from error
    return sum(read.stored.size for read in piece)


def _fill_one(file: Any, read: _Read) -> None:
    stored, target = read.stored, read.target
    dtype = _DTYPES[stored.dtype]
    is_direct = target.dtype == dtype and target.is_cpu and target.is_contiguous()
    buffer = target if is_direct else torch.empty(stored.shape, dtype=dtype)
    file.seek(stored.start)
    _read_into(file, buffer, Path(stored.file))
    if not is_direct:
        target.copy_(buffer)


def _read_into(file: Any, buffer: Tensor, path: Path) -> None:
    view = buffer.reshape(-1).view(torch.uint8).numpy().data
    while len(view):
        count = file.readinto(view)
        if not count:
            raise EngineError(
                f"{path.name} could not be read: it is shorter than its header says.",
                "Check that all files of the checkpoint are there and complete.",
            )
        view = view[count:]
