"""The decode loop of one side: its own key-value cache on weights it shares with the other side.

Tokens are chosen with transformers' own logits processors. Greedy and sampled output equal
`model.generate` on the same model, token for token, where its generation config asks for nothing
else, such as a repetition penalty.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    LogitsProcessorList,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from bh_studio.engine.messages import FinishReason, GenerationParameters
from bh_studio.engine.routers import RouterShape
from bh_studio.engine.routing import RoutingIntegration


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One token of one side.

    expert_counts, raw_counts: (row, layer) uint8, after and before min_k and max_k; one row a
    position that was read, so all of the prompt's in the first step and one in later ones.
    seconds: computing time of this step. finish_reason: set if this is the last token.
    """

    token_id: int
    expert_counts: np.ndarray
    raw_counts: np.ndarray
    seconds: float
    finish_reason: FinishReason | None


class SideDecoder:
    """Produces the tokens of one side, one `step` at a time.

    integration: routing in force during the steps of this side only; None for the baseline.
    prompt: (1, position) int64. end_token_ids: tokens that end the text.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prompt: Tensor,
        parameters: GenerationParameters,
        end_token_ids: frozenset[int],
        shape: RouterShape,
        integration: RoutingIntegration | None = None,
    ) -> None:
        self._model = model
        self._tokens = prompt.to(model.device)
        self._parameters = parameters
        self._end_token_ids = end_token_ids
        self._integration = integration
        self._baseline_row = np.full((1, shape.layers), shape.top_k, dtype=np.uint8)
        self._cache = DynamicCache(config=model.config)
        self._processors = _processors(parameters)
        self._generator = torch.Generator(model.device).manual_seed(parameters.seed)
        self._prompt_length = prompt.shape[1]

    def step(self) -> Step:
        """Read what has not been read yet and choose the next token."""
        start = time.perf_counter()
        unread = self._tokens[:, self._cache.get_seq_length() :]
        with torch.inference_mode(), self._integration or nullcontext():
            logits = self._model(
                unread, past_key_values=self._cache, use_cache=True, logits_to_keep=1
            ).logits[:, -1]
        token = self._choose(logits)
        self._tokens = torch.cat([self._tokens, token], dim=1)
        token_id = int(token)  # waits for the device, so the time below is the whole step's
        seconds = time.perf_counter() - start
        counts, raw = self._counts(unread.shape[1])
        return Step(token_id, counts, raw, seconds, self._finish_reason(token_id))

    def _choose(self, logits: Tensor) -> Tensor:
        if not self._parameters.sampling:
            return logits.argmax(dim=-1, keepdim=True)
        # float32 and the processors' order are those of transformers' sampling loop.
        scores = self._processors(self._tokens, logits.to(torch.float32, copy=True))
        probabilities = torch.softmax(scores, dim=-1)
        return torch.multinomial(probabilities, num_samples=1, generator=self._generator)

    def _counts(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        if self._integration is None:
            counts = self._baseline_row.repeat(rows, axis=0)
            return counts, counts
        return self._integration.last_counts()

    def _finish_reason(self, token_id: int) -> FinishReason | None:
        length = self._tokens.shape[1]
        if token_id in self._end_token_ids:
            return FinishReason.END_OF_TEXT
        if length - self._prompt_length >= self._parameters.max_new_tokens:
            return FinishReason.MAX_NEW_TOKENS
        if length >= self._model.config.max_position_embeddings:
            return FinishReason.CONTEXT_LENGTH
        return None


def _processors(parameters: GenerationParameters) -> LogitsProcessorList:
    processors = LogitsProcessorList()
    if parameters.sampling:
        processors.append(TemperatureLogitsWarper(parameters.temperature))
        if parameters.top_p < 1.0:
            processors.append(TopPLogitsWarper(parameters.top_p))
    return processors
