"""The null distribution of router scores: what scores look like when the router discards an expert.

H0 for an expert and a token: "its score is one of those that the model's own router discards in
this layer". The null of a layer is the empirical distribution of the scores of ranks
top_k + 1 .. experts over calibration tokens. The score is the routing probability, softmax over
all experts, which is the weight the expert's output is mixed with.

What is kept is the router logits themselves: another temperature or score needs no second pass
through the model. Knows arrays and files, no model.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bh_studio.engine.fdr import bh_score_thresholds
from bh_studio.engine.session_file import write_atomically

_FORMAT_VERSION = 1


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
    """Recorded router logits and the nulls that follow from them.

    logits: (layer, token, expert) float32 on the CPU.
    """

    logits: Tensor
    origin: NullOrigin
    _scores: dict[float, Tensor] = field(default_factory=dict, init=False, repr=False)

    @property
    def samples(self) -> int:
        """Scores in the null of one layer; the smallest p-value is 1 / (samples + 1)."""
        _, tokens, experts = self.logits.shape
        return int(tokens * (experts - self.origin.top_k))

    @property
    def sha256(self) -> str:
        """Hash of the recorded logits and of where they come from."""
        digest = hashlib.sha256(json.dumps(asdict(self.origin), sort_keys=True).encode())
        digest.update(self.logits.numpy().astype("<f4").tobytes())
        return digest.hexdigest()

    def scores(self, temperature: float = 1.0) -> Tensor:
        """The null of each layer: (layer, samples) float32, sorted ascending."""
        if temperature not in self._scores:
            # One temperature is kept: sorting takes a good part of a second, and a person changes
            # alpha far more often.
            self._scores.clear()
            self._scores[temperature] = self._sorted_scores(temperature)
        return self._scores[temperature]

    def _sorted_scores(self, temperature: float) -> Tensor:
        discarded = (
            routing_scores(self.logits, temperature)
            .sort(dim=-1, descending=True)
            .values[..., self.origin.top_k :]
        )
        return discarded.flatten(1).sort(dim=-1).values

    def thresholds(self, alpha: float, temperature: float = 1.0) -> Tensor:
        """Score thresholds of the BH rule: (layer, expert) float32, see fdr.bh_score_thresholds."""
        experts = self.logits.shape[-1]
        return torch.stack(
            [bh_score_thresholds(null, alpha, experts) for null in self.scores(temperature)]
        )

    def shortage(self, alpha: float) -> str | None:
        """A sentence if the null is too small to tell p-values apart at alpha / experts."""
        experts = self.logits.shape[-1]
        smallest = 1 / (self.samples + 1)
        if smallest <= alpha / experts:
            return None
        return (
            f"The null holds {self.samples} scores a layer, so no p-value is below {smallest:.2g}; "
            f"a single expert would need {alpha / experts:.2g} at alpha {alpha:g}. "
            "Calibrate on a longer text or raise alpha."
        )


def routing_scores(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Routing probabilities in float32: softmax(logits / temperature) over the last axis."""
    if temperature == 1.0:
        return torch.softmax(logits, dim=-1, dtype=torch.float32)
    return torch.softmax(logits.float() / temperature, dim=-1)


def save_null(null: RouterNull, path: Path) -> None:
    """Write `null` to an .npz file without pickled objects, at once or not at all."""
    packed = io.BytesIO()
    header = json.dumps({"format_version": _FORMAT_VERSION, **asdict(null.origin)})
    np.savez(packed, logits=null.logits.numpy(), header=np.array(header))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, packed.getvalue())


def load_null(path: Path) -> RouterNull:
    """Read what save_null wrote. Raises NullError if the file is damaged, OSError if unreadable."""
    try:
        # From memory: np.load leaves a file open that it finds to be damaged.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            logits = file["logits"]
        if header.pop("format_version") != _FORMAT_VERSION:
            raise NullError(f"{path.name} was written by another version of BH Studio.")
        origin = NullOrigin(**header)
    except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise NullError(f"{path.name} is not a null of BH Studio: {error}") from error
    if logits.dtype != np.float32 or logits.ndim != 3 or not np.isfinite(logits).all():
        raise NullError(f"{path.name} is damaged: its router logits are not finite float32.")
    if logits.shape[1] != origin.tokens or not 0 < origin.top_k < logits.shape[2]:
        raise NullError(f"{path.name} is damaged: its header does not fit its router logits.")
    return RouterNull(torch.from_numpy(logits), origin)
