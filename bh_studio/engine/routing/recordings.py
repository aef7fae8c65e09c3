"""Recordings as tensors, for the nulls that are fitted on them and the rules that are replayed.

Their files, and what may be in them, are those of `records.recording`. Knows no model and no rule.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from bh_studio.engine.files.atomic import write_atomically
from bh_studio.engine.records import recording as recorded
from bh_studio.engine.records.recording import RecordedLogits, RecordingOrigin
from bh_studio.engine.rules.parameters import ScoreName

_MOST_DERIVED = 4
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """Recorded router logits, and what was derived from them last.

    logits: (layer, token, expert) float32 on the CPU. factors: what scores multiply probabilities
    with, as far as it was measured: (layer, expert) float32 on the CPU.
    """

    logits: Tensor
    origin: RecordingOrigin
    factors: Mapping[ScoreName, Tensor] = field(default_factory=dict)
    _derived: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, arrays: RecordedLogits) -> Self:
        """The recording in `arrays`, whose origin is known; shares their memory."""
        assert arrays.origin is not None
        factors = {name: torch.from_numpy(factor) for name, factor in arrays.factors.items()}
        return cls(torch.from_numpy(arrays.logits), arrays.origin, factors)

    @property
    def arrays(self) -> RecordedLogits:
        """The same without torch; shares its memory."""
        factors = {name: factor.numpy() for name, factor in self.factors.items()}
        return RecordedLogits(self.logits.numpy(), self.origin, factors)

    @property
    def layers(self) -> int:
        return self.logits.shape[0]

    @property
    def samples(self) -> int:
        """Discarded scores in one layer; their smallest p-value is 1 / (samples + 1)."""
        return self.arrays.samples

    @property
    def sha256(self) -> str:
        """Hash of what was recorded and of where it comes from."""
        return self.arrays.sha256

    def derived(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """What `make` gives, kept for the next time while it is among the few newest: sorting takes
        a good part of a second, and a person changes alpha far more often than the null."""
        if key not in self._derived:
            if len(self._derived) == _MOST_DERIVED:
                del self._derived[next(iter(self._derived))]
            self._derived[key] = make()
        return cast(_T, self._derived[key])


def save_recording(recording: Recording, path: Path) -> None:
    """Write `recording` to an .npz file, at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, recording.arrays.packed())


def load_recording(path: Path) -> Recording:
    """Read what save_recording wrote.

    Raises RecordingError if the file is damaged, OSError if it cannot be opened."""
    return Recording.of(recorded.read_recording(path))


@dataclass(frozen=True, slots=True, eq=False)
class RouterLogits:
    """logits: (layer, token, expert) float32 on the CPU. recording: what the file is if BH
    Studio wrote it, with the logits as its own; None for a bare array."""

    logits: Tensor
    recording: Recording | None


def load_router_logits(path: Path) -> RouterLogits:
    """Read a recording, or an .npz file with an array "logits" (layer, token, expert).

    The array is float32 or float64; rules compare in float32. Raises ValueError with a sentence
    that says what is wrong with the file, OSError if it cannot be opened.
    """
    return router_logits(recorded.read_router_logits(path))


def router_logits(found: RecordedLogits) -> RouterLogits:
    """`found` as tensors, for rules."""
    if found.origin is None:
        return RouterLogits(torch.from_numpy(np.ascontiguousarray(found.logits, np.float32)), None)
    recording = Recording.of(found)
    return RouterLogits(recording.logits.contiguous(), recording)


def checked_logits(logits: np.ndarray | Tensor) -> Tensor:
    """`logits` as (layer, token, expert) float32 on the CPU, which is what rules compare.

    Raises ValueError for another shape, another kind of number, or one that is not finite.
    """
    if isinstance(logits, Tensor):
        # numpy has no bfloat16.
        dtype = torch.float32 if logits.is_floating_point() else logits.dtype
        logits = logits.detach().to("cpu", dtype).numpy()
    return torch.from_numpy(recorded.checked_logits(logits))
