"""Router logits recorded over a calibration text, which every null is fitted on, and their files.

What is kept is the logits themselves: another null, temperature or score needs no second pass
through the model, and any rule can be replayed on them. Knows arrays and files, no model.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from bh_studio.engine.rule_parameters import ScoreName
from bh_studio.engine.session_file import write_atomically

_FORMAT_VERSION = 2
_MOST_DERIVED = 4
# 16 layers of 64 experts take 4 KB a token in float32: half a million tokens.
_MAX_BYTES = 2 * 2**30
# What is raised for files that are cut, altered, packed in unknown ways, or other than expected.
_UNREADABLE = (
    KeyError, TypeError, ValueError, AttributeError, EOFError, RecursionError, NotImplementedError,
    RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_T = TypeVar("_T")


class NullError(ValueError):
    """A null could not be read or does not belong to this model; the message says why."""


@dataclass(frozen=True, slots=True)
class NullOrigin:
    """Where a null comes from.

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
class RouterNull:
    """Recorded router logits, and what was derived from them last.

    logits: (layer, token, expert) float32 on the CPU. factors: what scores multiply probabilities
    with, as far as it was measured: (layer, expert) float32 on the CPU.
    """

    logits: Tensor
    origin: NullOrigin
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


def save_null(null: RouterNull, path: Path) -> None:
    """Write `null` to an .npz file without pickled objects, at once or not at all."""
    packed = io.BytesIO()
    header = json.dumps({"format_version": _FORMAT_VERSION, **asdict(null.origin)})
    np.savez(packed, allow_pickle=False, header=np.array(header), **_arrays(null))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, packed.getvalue())


def load_null(path: Path) -> RouterNull:
    """Read what save_null wrote. Raises NullError if the file is damaged, OSError if unreadable."""
    try:
        # From memory: np.load leaves a file open that it finds to be damaged.
        member_sizes(path)
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            if header.pop("format_version") != _FORMAT_VERSION:
                raise NullError(f"{path.name} was written by another version of BH Studio.")
            logits = file["logits"]
            factors = {name: file[name] for name in ScoreName if name in file.files}
        origin = NullOrigin(**header)
    except NullError:
        raise
    except _UNREADABLE as error:
        raise NullError(f"{path.name} is not a null of BH Studio: {error}") from error
    recorded = (logits, *factors.values())
    if not all(a.dtype == np.float32 and np.isfinite(a).all() for a in recorded):
        raise NullError(f"{path.name} is damaged: its numbers are not finite float32.")
    if (
        logits.ndim != 3
        or any(factor.shape != logits.shape[::2] for factor in factors.values())
        or logits.shape[1] != origin.tokens
        or not 0 < origin.top_k < logits.shape[2]
    ):
        raise NullError(f"{path.name} is damaged: its header does not fit its router logits.")
    measured = {name: torch.from_numpy(factor) for name, factor in factors.items()}
    return RouterNull(torch.from_numpy(logits), origin, measured)


def member_sizes(path: Path) -> dict[str, int]:
    """Unpacked bytes of each member of an archive, before any is unpacked.

    Raises NullError if together they would not fit into memory.
    """
    with zipfile.ZipFile(path) as bundle:
        sizes = {info.filename: info.file_size for info in bundle.infolist()}
    if sum(sizes.values()) > _MAX_BYTES:
        raise NullError(f"{path.name} would unpack to more than {_MAX_BYTES >> 30} GiB.")
    return sizes


def _arrays(null: RouterNull) -> dict[str, np.ndarray]:
    """What a null's file holds beside its header."""
    factors = {name.value: factor.numpy() for name, factor in sorted(null.factors.items())}
    return {"logits": null.logits.numpy(), **factors}
