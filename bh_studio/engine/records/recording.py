"""Recorded router logits as arrays, and their files: what every null is fitted on.

What is kept is the logits themselves: another null, temperature or score needs no second pass
through the model, and any rule can be replayed on them. Files come from anyone: sizes are checked
before anything is unpacked, and nothing pickled is ever read. Knows no torch, no model and no rule.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from bh_studio.engine.architectures import MOST_EXPERTS, MOST_LAYERS
from bh_studio.engine.files.arrays import (
    Archive,
    ArchiveError,
    CheckShape,
    MissingMemberError,
    NotAnArchiveError,
    WrongTypeError,
)
from bh_studio.engine.files.plain_json import JsonError, convert, parsed
from bh_studio.engine.rules.parameters import ScoreName

_FORMAT_VERSION = 2
# 16 layers of 64 experts take 4 KB a token in float32: half a million tokens.
_MAX_BYTES = 2 * 2**30
_NOT_FINITE = "its numbers are not finite float32."


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
class RecordedLogits:
    """Router logits as they were recorded.

    logits: (layer, token, expert) float32; a bare array of another program may be float64.
    origin: where they come from; None if BH Studio has not recorded them. factors: what scores
    multiply probabilities with, as far as it was measured: (layer, expert) float32.
    """

    logits: np.ndarray
    origin: RecordingOrigin | None = None
    factors: Mapping[ScoreName, np.ndarray] = field(default_factory=dict)

    @property
    def layers(self) -> int:
        return self.logits.shape[0]

    @property
    def samples(self) -> int:
        """Scores that the model's own router discarded in one layer; its origin must be known."""
        assert self.origin is not None
        _, tokens, experts = self.logits.shape
        return int(tokens * (experts - self.origin.top_k))

    @property
    def sha256(self) -> str:
        """Hash of what was recorded and of where it comes from."""
        origin = None if self.origin is None else asdict(self.origin)
        digest = hashlib.sha256(json.dumps(origin, sort_keys=True).encode())
        for name, array in self._arrays().items():
            digest.update(name.encode() + array.astype("<f4").tobytes())
        return digest.hexdigest()

    def packed(self) -> bytes:
        """The recording as an .npz file without pickled objects; its origin must be known."""
        assert self.origin is not None
        file = io.BytesIO()
        header = json.dumps({"format_version": _FORMAT_VERSION, **asdict(self.origin)})
        np.savez(file, allow_pickle=False, header=np.array(header), **self._arrays())
        return file.getvalue()

    def _arrays(self) -> dict[str, np.ndarray]:
        """What its file holds beside the header."""
        factors = {name.value: factor for name, factor in sorted(self.factors.items())}
        return {"logits": self.logits, **factors}


def read_recording(path: Path) -> RecordedLogits:
    """Read what BH Studio recorded; its origin is known.

    Raises RecordingError if the file is damaged, OSError if it cannot be opened."""
    return _recording(path, path.name)


def _recording(file: Path | bytes, name: str) -> RecordedLogits:
    """What BH Studio recorded, in `file` of that `name`. Raises RecordingError, OSError."""
    try:
        with Archive(file) as archive:
            held = _member_sizes(archive, name)
            origin = _origin(archive.text("header"), name)
            logits = archive.array("logits", (np.float32,), _fitting(origin))
            factors = {
                score: archive.array(score, (np.float32,), logits.shape[::2])
                for score in ScoreName
                if f"{score}.npy" in held
            }
    except (NotAnArchiveError, MissingMemberError, JsonError) as error:
        raise RecordingError(f"{name} is not a recording of BH Studio: {error}") from error
    except WrongTypeError as error:
        raise RecordingError(f"{name} is damaged: {_NOT_FINITE}") from error
    except ArchiveError as error:
        raise RecordingError(f"{name} is damaged: {error}") from error
    if not all(np.isfinite(array).all() for array in (logits, *factors.values())):
        raise RecordingError(f"{name} is damaged: {_NOT_FINITE}")
    return RecordedLogits(logits, origin, factors)


def read_router_logits(path: Path) -> RecordedLogits:
    """Read a recording, or an .npz file with an array "logits" (layer, token, expert).

    The array is float32 or float64, and stays what it is. Raises ValueError with a sentence that
    says what is wrong with the file, OSError if it cannot be opened.
    """
    return _router_logits(path, path.name)


def unpacked_router_logits(content: bytes, name: str) -> RecordedLogits:
    """The same from the `content` of a file of that `name`. Raises ValueError."""
    return _router_logits(content, name)


def _router_logits(file: Path | bytes, name: str) -> RecordedLogits:
    try:
        with Archive(file) as archive:
            sizes = _member_sizes(archive, name)
            if "header.npy" not in sizes:
                logits = _bare_logits(archive, sizes, name)
                checked_logits(logits)
                return RecordedLogits(logits)
    except NotAnArchiveError:
        raise ValueError(f"{name} is not an .npz file of router logits.") from None
    except ArchiveError as error:
        raise ValueError(f"{name} is damaged: {error}") from error
    recorded = _recording(file, name)
    checked_logits(recorded.logits)
    return recorded


def checked_logits(logits: np.ndarray) -> np.ndarray:
    """`logits` as (layer, token, expert) float32, which is what rules compare; not copied if it is.

    Raises ValueError for another shape, another kind of number, or one that is not finite.
    """
    if logits.ndim != 3 or not np.issubdtype(logits.dtype, np.floating):
        raise ValueError(
            "Router logits must be floating-point numbers with the axes (layer, token, expert); "
            f"got {logits.dtype} {logits.shape}."
        )
    if problem := _shape_problem(logits.shape):
        raise ValueError(problem)
    # What is too large becomes infinite, which is said below.
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(logits, np.float32)
    bad = ~np.isfinite(values)
    if bad.any():
        layer, token, expert = np.argwhere(bad)[0].tolist()
        raise ValueError(
            f"{int(bad.sum())} router logits are not finite in float32, the first in layer "
            f"{layer}, token {token}, expert {expert}."
        )
    return values


def _check_size(shape: tuple[int, ...]) -> None:
    """Raise ArchiveError for router logits larger than any; other axes are looked at later."""
    if len(shape) == 3 and (problem := _shape_problem(shape)):
        raise ArchiveError(problem)


def _fitting(origin: RecordingOrigin) -> CheckShape:
    """Says whether router logits have the shape that `origin` tells of; raises ArchiveError."""

    def check(shape: tuple[int, ...]) -> None:
        if len(shape) != 3 or shape[1] != origin.tokens or not 0 < origin.top_k < shape[2]:
            raise ArchiveError("its header does not fit its router logits.")
        if problem := _shape_problem(shape):
            raise ArchiveError(problem)

    return check


def _shape_problem(shape: tuple[int, ...]) -> str:
    """Why no model has router logits of this shape, (layer, token, expert); empty if one may."""
    layers, tokens, experts = shape
    if 1 <= layers <= MOST_LAYERS and tokens >= 1 and 2 <= experts <= MOST_EXPERTS:
        return ""
    return (
        f"Router logits need 1 to {MOST_LAYERS} layers, at least one token, and 2 to "
        f"{MOST_EXPERTS} experts; got {layers}, {tokens} and {experts}."
    )


def _origin(header: str, name: str) -> RecordingOrigin:
    """What the header of a recording says. Raises JsonError, RecordingError."""
    values = parsed(header, "its header")
    if not isinstance(values, dict) or "format_version" not in values:
        raise JsonError("its header names no version.")
    if values.pop("format_version") != _FORMAT_VERSION:
        raise RecordingError(f"{name} was written by another version of BH Studio.")
    return convert(RecordingOrigin, values)


def _member_sizes(archive: Archive, name: str) -> dict[str, int]:
    """Unpacked bytes of each member of an archive, before any is unpacked.

    Raises RecordingError if together they would not fit into memory.
    """
    sizes = archive.sizes
    if sum(sizes.values()) > _MAX_BYTES:
        raise RecordingError(f"{name} would unpack to more than {_MAX_BYTES >> 30} GiB.")
    return sizes


def _bare_logits(archive: Archive, sizes: Mapping[str, int], name: str) -> np.ndarray:
    """The array "logits". Raises ArchiveError; ValueError if there is none, or one of no use."""
    try:
        return archive.array("logits", (np.float32, np.float64), _check_size)
    except MissingMemberError:
        found = ", ".join(sorted(name.removesuffix(".npy") for name in sizes)[:8]) or "nothing"
        raise ValueError(f'{name} holds no array "logits"; it holds {found}.') from None
    except WrongTypeError as error:
        raise ValueError(
            f"{name} must hold float32 or float64 router logits; it holds {error.dtype}."
        ) from error
