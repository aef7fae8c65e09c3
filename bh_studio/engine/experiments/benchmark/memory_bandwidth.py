"""How fast a device reads its own memory: what decoding one token after another cannot exceed.

Knows no model. A token needs most weights once, and nothing is computed with them but one product
each, so their bytes over this bandwidth are the shortest time that it can take.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from bh_studio.engine.models.memory import free_bytes

# Many times what caches hold, and so much that starting a reading does not count.
_BUFFER_BYTES = {"cpu": 2**30, "cuda": 2**32}
_LEAST_BYTES = 2**28
# A share of what is free that a measurement may take.
_FREE_SHARE = 4
_TRIES = 3


class ReadBandwidth:
    """A buffer on `device`, and the fastest of a few ways to read it.

    The processor reads with as many threads as torch has when `measure` is called. device_bytes:
    the size of the buffer.

    Raises MemoryError where there is no room for one that is larger than caches.
    """

    def __init__(self, device: torch.device) -> None:
        size = min(_BUFFER_BYTES.get(device.type, 2**30), free_bytes(str(device)) // _FREE_SHARE)
        if size < _LEAST_BYTES:
            raise MemoryError(f"no room for {_LEAST_BYTES >> 20} MiB on {device} to read")
        self._device = device
        # Written once, for memory that was never written is not there.
        self._buffer = torch.full((size // 4,), 1, dtype=torch.int32, device=device)
        self.buffer_bytes = self._buffer.nbytes
        self.way, self._read = max(_ways(self._buffer).items(), key=lambda w: self._tried(w[1]))

    def measure(self) -> float:
        """Bytes a second of one reading."""
        synchronize(self._device)
        start = time.perf_counter()
        self._read()
        synchronize(self._device)
        return self.buffer_bytes / (time.perf_counter() - start)

    def _tried(self, read: Callable[[], Tensor]) -> float:
        self._read = read
        self.measure()  # the first reading is slower
        return max(self.measure() for _ in range(_TRIES))


def synchronize(device: torch.device) -> None:
    """Wait until `device` has done everything it was given; the processor always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _ways(buffer: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Readings of the whole buffer that keep one number of it, by name."""
    numbers = buffer.view(torch.float32)
    return {
        "largest of int32": buffer.amax,
        "sum of float32": numbers.sum,
        "product of float32 with itself": lambda: torch.dot(numbers, numbers),
        "largest of each row of bfloat16": lambda: (
            buffer.view(torch.bfloat16).view(-1, 4096).amax(dim=1)
        ),
    }
