"""Reading true texts with a model: what it makes of every next token, and with how many experts.

Nothing is generated. Knows windows and batches; what is compared with what is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from bh_studio.engine.errors import EngineError
from bh_studio.engine.experiments.evaluation.windows import Window
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.moe.expert_rows import ExpertRows
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.moe.vocabulary import check_characters, check_token_ids
from bh_studio.engine.protocol.texts import Text
from bh_studio.engine.records.evaluation import WindowSums
from bh_studio.engine.rules.parameters import RouterShape

# Rows of the vocabulary that are looked at together: a copy of all would double the memory.
_ROWS = 512


def encode(loaded: LoadedModel, texts: Sequence[Text]) -> list[Tensor]:
    """Token ids of each text, (token,) int64."""
    if not texts:
        raise EngineError("There is no text to read.", "Name a text file or a folder.")
    documents = []
    for text in texts:
        check_characters(text.content, text.name)
        ids = loaded.tokenizer(text.content, verbose=False).input_ids
        if len(ids) < 2:
            raise EngineError(
                f"{text.name} has fewer than two tokens, so there is nothing to predict.",
                "Give a longer text or leave it out.",
            )
        check_token_ids(loaded.model, loaded.tokenizer, ids, text.name)
        documents.append(torch.tensor(ids))
    return documents


def judged(log_p: Tensor, baseline: Tensor, targets: Tensor) -> np.ndarray:
    """nats, KL(baseline || log_p) in nats, and agreement of each position: (3, position) float64.

    log_p, baseline: (position, vocabulary) float32, log-probabilities of the next token. targets:
    (position,) int64, the token that came. Agreement: 1 where both find the same one most probable.
    Raises EngineError for probabilities that are not finite.
    """
    nats = -log_p.gather(-1, targets[:, None]).squeeze(-1)
    kl = (baseline.exp() * (baseline - log_p)).sum(-1)
    agrees = log_p.argmax(-1) == baseline.argmax(-1)
    values = torch.stack([nats, kl, agrees.float()]).cpu().double()
    if not torch.isfinite(values).all():
        raise EngineError(
            "The model gives probabilities that are not finite, so nothing can be scored.",
            "The checkpoint is damaged, or this number format is too narrow for it.",
        )
    return values.numpy()


def nats_at(temperatures: np.ndarray, log_p: Tensor, targets: Tensor) -> np.ndarray:
    """-ln p of each true token once the vocabulary logits are divided by each of `temperatures`:
    (temperature, position) float64. log_p and targets as for `judged`."""
    parts = []
    for rows, true in zip(log_p.split(_ROWS), targets.split(_ROWS), strict=True):
        of_true = rows.gather(-1, true[:, None]).squeeze(-1)
        at_each = [(rows / t).logsumexp(-1) - of_true / t for t in temperatures.tolist()]
        parts.append(torch.stack(at_each))
    return torch.cat(parts, 1).cpu().double().numpy()


def pass_counts(
    integration: RoutingIntegration | None, rows: int, shape: RouterShape
) -> tuple[np.ndarray, np.ndarray]:
    """Counts of the last pass, of `rows` tokens, after and before the limits.

    Both (row, layer) uint8. integration: what was in force; None for the model's own routing.
    """
    if integration is not None:
        return integration.last_counts()
    used = np.full((rows, shape.layers), shape.top_k, dtype=np.uint8)
    return used, used


class Reader:
    """One batch of windows, read by one contender after the other.

    documents: token ids, (token,) each. found: windows of them, with the same number of inputs;
    the scored positions of each are its last ones. temperatures: of the vocabulary logits, to score
    the true tokens at too.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        documents: Sequence[Tensor],
        found: Sequence[Window],
        temperatures: np.ndarray | None = None,
    ) -> None:
        inputs = torch.stack([documents[w.document][w.start : w.end] for w in found])
        targets = [documents[w.document][w.first + 1 : w.end + 1] for w in found]
        self._model = loaded.model
        self._shape = loaded.shape
        self._inputs = inputs.to(loaded.model.device)
        self._sizes = [len(of_window) for of_window in targets]
        self._targets = torch.cat(targets).to(loaded.model.device)
        self._temperatures = temperatures
        self._baseline: Tensor | None = None

    @torch.inference_mode()
    def read(self, integration: RoutingIntegration | None) -> WindowSums:
        """Sums of this batch under `integration`; None, the baseline, comes first."""
        with ExpertRows(self._model) as counter, integration or nullcontext():
            log_p = self._log_probabilities()
        if self._baseline is None:
            self._baseline = log_p
        quality = self._quality(log_p, self._baseline)
        return WindowSums(
            quality=np.stack([values.sum(1) for values in quality]),
            counts=np.stack([_count_sums(*pair) for pair in self._counts(integration)]),
            rows_read=self._inputs.numel() * self._shape.layers,
            expert_rows=sum(counter.rows),
            scaled=self._scaled(log_p),
        )

    def _log_probabilities(self) -> Tensor:
        """Of all scored positions, window by window: (token, vocabulary) float32."""
        logits = self._model(self._inputs, use_cache=False, logits_to_keep=max(self._sizes)).logits
        scored = [row[-size:] for row, size in zip(logits, self._sizes, strict=True)]
        return torch.cat(scored).log_softmax(-1, torch.float32)

    def _quality(self, log_p: Tensor, baseline: Tensor) -> list[np.ndarray]:
        """nats, KL and agreement of each scored token, (3, token) for each window."""
        values = judged(log_p, baseline, self._targets)
        return np.split(values, np.cumsum(self._sizes)[:-1], axis=1)

    def _scaled(self, log_p: Tensor) -> np.ndarray | None:
        """Nats of each window at each temperature, (window, temperature)."""
        if self._temperatures is None:
            return None
        nats = nats_at(self._temperatures, log_p, self._targets)
        parts = np.split(nats, np.cumsum(self._sizes)[:-1], axis=1)
        return np.stack([of_window.sum(1) for of_window in parts])

    def _counts(
        self, integration: RoutingIntegration | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Counts of the scored tokens, after and before the limits: (token, layer) a window."""
        shape = (*self._inputs.shape, self._shape.layers)
        counts = pass_counts(integration, self._inputs.numel(), self._shape)
        used, raw = (of_pass.reshape(shape) for of_pass in counts)
        for window, size in enumerate(self._sizes):
            yield used[window, -size:], raw[window, -size:]


def _count_sums(used: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """The rows of WindowSums.counts from counts of one window, both (token, layer) uint8."""
    values = used.astype(np.float64)
    return np.stack(
        [
            values.sum(0), (values**2).sum(0),
            (raw == 0).sum(0), (raw < used).sum(0), (raw > used).sum(0),
        ]
    )  # fmt: skip
