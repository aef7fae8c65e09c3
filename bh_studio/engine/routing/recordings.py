"""Router logits recorded over a calibration text, which every null is fitted on, and their files.

What is kept is the logits themselves: another null, temperature or score needs no second pass
through the model, and any rule can be replayed on them. Files come from anyone: sizes are checked
before anything is unpacked, and nothing pickled is ever read. Knows no model and no rule.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from bh_studio.engine.files.arrays import (
    Archive,
    ArchiveError,
    MissingMemberError,
    NotAnArchiveError,
    WrongTypeError,
)
from bh_studio.engine.files.atomic import write_atomically
from bh_studio.engine.files.plain_json import JsonError, convert, parsed
from bh_studio.engine.rules.parameters import ScoreName

_FORMAT_VERSION = 2
_MOST_DERIVED = 4
# 16 layers of 64 experts take 4 KB a token in float32: half a million tokens.
_MAX_BYTES = 2 * 2**30
_MAX_LAYERS = 1024
# Counts of experts are bytes.
_MAX_EXPERTS = 255
_NOT_FINITE = "its numbers are not finite float32."
_T = TypeVar("_T")


class RecordingError(ValueError):
    """A recording could not be read or is not of this model; the message says why."""


@dataclass(frozen=True, slots=True)
class RecordingOrigin:
    """Where a recording comes from.

    model_fingerprint: of the model whose routers were recorded, dtype included.
    text_sha256: of the calibration text. tokens: recorded positions in a layer.
    skipped_positions: positions left out at the start of every window.
    """

    model_fingerprint: str
    text_sha256: str
    tokens: int
    skipped_positions: int
    window: int
    top_k: int


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

    @property
    def layers(self) -> int:
        return self.logits.shape[0]

    @property
    def samples(self) -> int:
        """Discarded scores in one layer; their smallest p-value is 1 / (samples + 1)."""
        _, tokens, experts = self.logits.shape
        return int(tokens * (experts - self.origin.top_k))

    @property
    def sha256(self) -> str:
        """Hash of what was recorded and of where it comes from."""
        digest = hashlib.sha256(json.dumps(asdict(self.origin), sort_keys=True).encode())
        for name, array in _arrays(self).items():
            digest.update(name.encode() + array.astype("<f4").tobytes())
        return digest.hexdigest()

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
    write_atomically(path, packed(recording))


def packed(recording: Recording) -> bytes:
    """`recording` as an .npz file without pickled objects."""
    file = io.BytesIO()
    header = json.dumps({"format_version": _FORMAT_VERSION, **asdict(recording.origin)})
    np.savez(file, allow_pickle=False, header=np.array(header), **_arrays(recording))
    return file.getvalue()


def load_recording(path: Path) -> Recording:
    """Read what save_recording wrote.

    Raises RecordingError if the file is damaged, OSError if it cannot be opened."""
    try:
        with Archive(path) as archive:
            held = _member_sizes(archive, path)
            origin = _origin(archive.text("header"), path)
            logits = archive.array("logits", (np.float32,))
            factors = {
                name: archive.array(name, (np.float32,))
                for name in ScoreName
                if f"{name}.npy" in held
            }
    except (NotAnArchiveError, MissingMemberError, JsonError) as error:
        raise RecordingError(f"{path.name} is not a recording of BH Studio: {error}") from error
    except WrongTypeError as error:
        raise RecordingError(f"{path.name} is damaged: {_NOT_FINITE}") from error
    except ArchiveError as error:
        raise RecordingError(f"{path.name} is damaged: {error}") from error
    if not all(np.isfinite(array).all() for array in (logits, *factors.values())):
        raise RecordingError(f"{path.name} is damaged: {_NOT_FINITE}")
    if (
        logits.ndim != 3
        or any(factor.shape != logits.shape[::2] for factor in factors.values())
        or logits.shape[1] != origin.tokens
        or not 0 < origin.top_k < logits.shape[2]
    ):
        raise RecordingError(f"{path.name} is damaged: its header does not fit its router logits.")
    measured = {name: torch.from_numpy(factor) for name, factor in factors.items()}
    return Recording(torch.from_numpy(logits), origin, measured)


def _origin(header: str, path: Path) -> RecordingOrigin:
    """What the header of a recording says. Raises JsonError, RecordingError."""
    values = parsed(header, "its header")
    if not isinstance(values, dict) or "format_version" not in values:
        raise JsonError("its header names no version.")
    if values.pop("format_version") != _FORMAT_VERSION:
        raise RecordingError(f"{path.name} was written by another version of BH Studio.")
    return convert(RecordingOrigin, values)


def _member_sizes(archive: Archive, path: Path) -> dict[str, int]:
    """Unpacked bytes of each member of an archive, before any is unpacked.

    Raises RecordingError if together they would not fit into memory.
    """
    sizes = archive.sizes
    if sum(sizes.values()) > _MAX_BYTES:
        raise RecordingError(f"{path.name} would unpack to more than {_MAX_BYTES >> 30} GiB.")
    return sizes


def _arrays(recording: Recording) -> dict[str, np.ndarray]:
    """What a recording's file holds beside its header."""
    factors = {name.value: factor.numpy() for name, factor in sorted(recording.factors.items())}
    return {"logits": recording.logits.numpy(), **factors}


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
    try:
        with Archive(path) as archive:
            sizes = _member_sizes(archive, path)
            if "header.npy" not in sizes:
                return RouterLogits(checked_logits(_bare_logits(archive, sizes, path)), None)
    except NotAnArchiveError:
        raise ValueError(f"{path.name} is not an .npz file of router logits.") from None
    except ArchiveError as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error
    recording = load_recording(path)
    return RouterLogits(checked_logits(recording.logits), recording)


def _bare_logits(archive: Archive, sizes: Mapping[str, int], path: Path) -> np.ndarray:
    """The array "logits". Raises ArchiveError; ValueError if there is none, or one of no use."""
    try:
        return archive.array("logits", (np.float32, np.float64))
    except MissingMemberError:
        found = ", ".join(sorted(name.removesuffix(".npy") for name in sizes)[:8]) or "nothing"
        raise ValueError(f'{path.name} holds no array "logits"; it holds {found}.') from None
    except WrongTypeError as error:
        raise ValueError(
            f"{path.name} must hold float32 or float64 router logits; it holds {error.dtype}."
        ) from error


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
