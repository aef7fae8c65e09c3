"""Tokens that are known, read again: in one pass, or one after another as they were answered."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from bh_studio.engine.decoding.paths import CPU, STOCK, decode_path, open_step
from bh_studio.engine.decoding.stock_step import chosen_token, read_tokens
from bh_studio.engine.errors import Cancelled, CancelToken
from bh_studio.engine.experiments.proof.fingerprints import PrintedLogits, fingerprints
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.moe.watched_experts import WatchedExperts
from bh_studio.engine.rules.parameters import Mode

# Numbers of one array over positions and vocabulary, of which a few are held at once.
_MOST_LOGITS = 2**21


@dataclass(frozen=True, slots=True, eq=False)
class WatchedReading:
    """What was seen of experts while tokens were read one after another.

    path: of the forward that read them after the prompt, in words for people. is_own: whether that
    is how the sides answered, experts included; on other ways nobody can look at the experts.
    counts: (position, layer) int64, experts that ran. reported: (position, layer) uint8, experts
    that should have, as the routing in force says. prompt_rows: (layer,) int64, rows that were
    computed in all for the prompt. prints: (token,) int64, fingerprints of the logits of each
    token.
    """

    path: str
    is_own: bool
    counts: np.ndarray
    reported: np.ndarray
    prompt_rows: np.ndarray
    prints: np.ndarray


class _KnownTokens:
    """A step.Choose of tokens that are known; keeps the fingerprints of what it is given."""

    def __init__(self, token_ids: Sequence[int], device: torch.device) -> None:
        self.logits = PrintedLogits()
        self._tokens = iter(torch.tensor(token_ids, device=device).view(-1, 1, 1))

    def __call__(self, logits: Tensor) -> Tensor:
        self.logits(logits)
        return next(self._tokens)


def place(position: int, prompt_tokens: int) -> str:
    """Where a position is that was read, for people: what it predicts, or else in the prompt."""
    token = position - prompt_tokens + 1
    return f"token {token}" if token >= 0 else f"position {position} of the prompt"


@torch.inference_mode()
def prints_in_one_pass(
    loaded: LoadedModel, integration: RoutingIntegration | None, token_ids: Sequence[int]
) -> np.ndarray:
    """Fingerprints of the logits at each of `token_ids`, which are read together: (token,) int64.

    integration: in force meanwhile; None for the model as it is.
    """
    model = loaded.model
    inputs = torch.tensor([token_ids], device=model.device)
    with integration or nullcontext():
        states: Tensor = model.base_model(inputs, use_cache=False).last_hidden_state[0]
    head = model.get_output_embeddings()
    chunk = max(1, _MOST_LOGITS // head.out_features)
    return torch.cat([fingerprints(head(part)) for part in states.split(chunk)]).cpu().numpy()


def prints_in_steps(
    loaded: LoadedModel,
    integration: RoutingIntegration | None,
    prompt_ids: Sequence[int],
    token_ids: Sequence[int],
    cancel: CancelToken,
) -> np.ndarray:
    """Fingerprints of the logits that each of `token_ids` was chosen from, (token,) int64, read as
    a side that answers does. Raises Cancelled."""
    known = _KnownTokens(token_ids, loaded.model.device)
    _read(loaded, integration, prompt_ids, len(token_ids), known, cancel, None)
    return known.logits.of(len(token_ids))


def read_watched(
    loaded: LoadedModel,
    integration: RoutingIntegration | None,
    prompt_ids: Sequence[int],
    token_ids: Sequence[int],
    cancel: CancelToken,
) -> WatchedReading:
    """Read as a side that answers does, where the experts can be looked at. Raises Cancelled."""
    model = loaded.model
    path = decode_path(model)
    # The kernels of a GPU call no activation, and leave the work to others where one is watched.
    is_own = path.name in (CPU, STOCK) and not any(p.is_cuda for p in model.parameters())
    experts = WatchedExperts(model)
    known = _KnownTokens(token_ids, model.device)
    watch = _Watch(loaded, integration, experts, from_the_start=not is_own)
    _read(loaded, integration, prompt_ids, len(token_ids), known, cancel, watch)
    return WatchedReading(
        path=str(path.name if is_own else STOCK),
        is_own=is_own,
        counts=np.concatenate(watch.counts),
        reported=np.concatenate(watch.reported),
        prompt_rows=watch.computed[0],
        prints=known.logits.of(len(token_ids)),
    )


class _Watch:
    """What is seen of the experts in each pass of one reading.

    from_the_start: look at them while the way to decode is chosen too, which then is one where
    that can be done.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        integration: RoutingIntegration | None,
        experts: WatchedExperts,
        from_the_start: bool,
    ) -> None:
        self.experts = experts
        self.while_opening = experts if from_the_start else nullcontext()
        self.counts: list[np.ndarray] = []
        self.computed: list[np.ndarray] = []
        self.reported: list[np.ndarray] = []
        # A rule that only counts leaves the work to the model's own routing.
        is_own = integration is None or integration.parameters.mode is Mode.ANALYZE
        self._integration = None if is_own else integration
        self._shape = loaded.shape

    def note(self, positions: int) -> None:
        """A pass of `positions` has just ended."""
        counts, computed = self.experts.taken(positions)
        self.counts.append(counts)
        self.computed.append(computed)
        if self._integration is None:
            shape = self._shape
            self.reported.append(np.full((positions, shape.layers), shape.top_k, dtype=np.uint8))
        else:
            self.reported.append(self._integration.last_counts()[0])


def _read(
    loaded: LoadedModel,
    integration: RoutingIntegration | None,
    prompt_ids: Sequence[int],
    tokens: int,
    known: _KnownTokens,
    cancel: CancelToken,
    watch: _Watch | None,
) -> None:
    """Read the prompt, and then all tokens that are known but the last, one after another."""
    model = loaded.model
    if cancel.is_cancelled:
        raise Cancelled
    seen = nullcontext() if watch is None else watch.experts
    cache = DynamicCache(config=model.config)
    with seen:
        logits = read_tokens(
            model, torch.tensor([prompt_ids], device=model.device), cache, integration
        )
    if watch is not None:
        watch.note(len(prompt_ids))
    token = chosen_token(logits, known)
    if tokens == 1:
        return
    with nullcontext() if watch is None else watch.while_opening:
        step = open_step(model, loaded.shape, integration, known)
    with closing(step):
        step.start(cache, token, tokens - 1)
        for _ in range(tokens - 1):
            if cancel.is_cancelled:
                raise Cancelled
            with seen:
                step.submit().wait()
            if watch is not None:
                watch.note(1)
