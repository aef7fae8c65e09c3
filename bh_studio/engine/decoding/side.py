"""The decode loop of one side: its own key-value cache on weights it shares with the other side.

Tokens are chosen with transformers' own logits processors. Greedy and sampled output equal
`model.generate` on the same model, token for token in float32, where its generation config asks for
nothing else, such as a repetition penalty.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from bh_studio.engine.decoding.decided import Decided
from bh_studio.engine.decoding.pass_recorder import PassRecorder
from bh_studio.engine.decoding.paths import open_step
from bh_studio.engine.decoding.sampling import SampledToken
from bh_studio.engine.decoding.step import Choose, DecodedToken, DecodeStep, PendingToken
from bh_studio.engine.decoding.stock_step import chosen_token, read_tokens
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.records.terms import FinishReason, GenerationParameters
from bh_studio.engine.rules.parameters import Mode, RouterShape

# Is given the logits, (1, vocabulary), that each token is chosen from, and keeps none of them.
Watch = Callable[[Tensor], None]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One token of one side.

    expert_counts, raw_counts: (row, layer) uint8, after and before min_k and max_k; one row a
    position that was read, so all of the prompt's in the first step and one in later ones.
    seconds: computing time of this step. finish_reason: set if this is the last token. decided: of
    the same rows, and of this token; None where it is not recorded.
    """

    token_id: int
    expert_counts: np.ndarray
    raw_counts: np.ndarray
    seconds: float
    finish_reason: FinishReason | None
    decided: Decided | None


class SideDecoder:
    """Produces the tokens of one side, one `step` at a time.

    integration: routing in force during the steps of this side only; None for the baseline.
    prompt: (1, position) int64. end_token_ids: tokens that end the text. records: whether what the
    routers decide, and how probable each token was, is recorded. watch: also called for a token
    that is computed ahead and dropped.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prompt: Tensor,
        parameters: GenerationParameters,
        end_token_ids: frozenset[int],
        shape: RouterShape,
        integration: RoutingIntegration | None = None,
        *,
        records: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self._model = model
        self._prompt = prompt.to(model.device)
        self._end_token_ids = end_token_ids
        self._shape = shape
        self._integration = integration
        context_left = max(1, int(model.config.max_position_embeddings) - prompt.shape[1])
        self._most_tokens = min(parameters.max_new_tokens, context_left)
        self._last_reason = (
            FinishReason.MAX_NEW_TOKENS
            if parameters.max_new_tokens <= context_left
            else FinishReason.CONTEXT_LENGTH
        )
        # Not a method of this object: a step that holds it must not keep the decoder alive.
        self._choose: Choose | None = None
        if parameters.sampling:
            self._choose = SampledToken(parameters, model.device)
        if watch is not None:
            self._choose = functools.partial(_watched_token, self._choose, watch)
        self._baseline_row = np.full((1, shape.layers), shape.top_k, dtype=np.uint8)
        if integration is not None:
            used = integration.parameters.used_counts(shape.experts, shape.top_k)
            self._used_of_raw = np.array(used, dtype=np.uint8)
        self._recorder = PassRecorder(model, most_slots(shape, integration)) if records else None
        self._produced = 0
        self._step: DecodeStep | None = None
        self._ahead: PendingToken | None = None
        self._is_closed = False

    def step(self) -> Step:
        """Read what has not been read yet and choose the next token.

        Raises RuntimeError after the last token, after an error and after `close`.
        """
        if self._is_closed:
            raise RuntimeError("This side has ended.")
        try:
            step = self._next() if self._produced else self._first()
        except BaseException:
            self.close()
            raise
        if step.finish_reason is not None:
            self.close()
        return step

    def close(self) -> None:
        """Give buffers back; a token that was computed ahead is dropped."""
        self._is_closed = True
        self._ahead = None
        if self._step is not None:
            self._step.close()
            self._step = None

    def _first(self) -> Step:
        start = time.perf_counter()
        cache = DynamicCache(config=self._model.config)
        recorder = self._recorder
        logits = read_tokens(self._model, self._prompt, cache, self._integration, recorder)
        token = chosen_token(logits, self._choose)
        token_id = int(token)  # waits for the device, so the time below is the whole step's
        decided = None if recorder is None else recorder.decided(logits, token_id)
        self._produced = 1
        reason = self._finish_reason(token_id)
        if reason is None:
            self._step = open_step(
                self._model, self._shape, self._integration, self._choose, recorder
            )
            self._step.start(cache, token, self._most_tokens - 1)
        seconds = time.perf_counter() - start
        if self._integration is None:
            counts = raw = self._baseline_row.repeat(self._prompt.shape[1], axis=0)
        else:
            counts, raw = self._integration.last_counts()
        return Step(token_id, counts, raw, seconds, reason, decided)

    def _next(self) -> Step:
        decoded = self._decoded()
        self._produced += 1
        raw = decoded.raw_counts
        if raw is None:
            counts = raw = self._baseline_row
        else:
            counts = self._used_of_raw[raw]
        reason = self._finish_reason(decoded.token_id)
        return Step(decoded.token_id, counts, raw, decoded.seconds, reason, decoded.decided)

    def _decoded(self) -> DecodedToken:
        assert self._step is not None
        pending = self._ahead or self._step.submit()
        self._ahead = None
        # Unless the token that is being computed is the last one whatever it is.
        if self._step.runs_ahead and self._produced + 1 < self._most_tokens:
            self._ahead = self._step.submit()
        return pending.wait()

    def _finish_reason(self, token_id: int) -> FinishReason | None:
        if token_id in self._end_token_ids:
            return FinishReason.END_OF_TEXT
        return self._last_reason if self._produced >= self._most_tokens else None


def most_slots(shape: RouterShape, integration: RoutingIntegration | None) -> int:
    """Experts of a layer that can run for a position at most."""
    if integration is None or integration.parameters.mode is Mode.ANALYZE:
        return shape.top_k
    return max(integration.parameters.used_counts(shape.experts, shape.top_k))


def _watched_token(choose: Choose | None, watch: Watch, logits: Tensor) -> Tensor:
    watch(logits)
    return chosen_token(logits, choose)
