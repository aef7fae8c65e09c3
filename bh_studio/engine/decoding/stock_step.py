"""One token after another through transformers' own forward, for every model and device.

Knows no layers.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from bh_studio.engine.decoding.pass_recorder import PassRecorder
from bh_studio.engine.decoding.step import Choose, DecodedToken
from bh_studio.engine.moe.integration import RoutingIntegration


@dataclass(frozen=True, slots=True, eq=False)
class _ReadyToken:
    token: DecodedToken

    def wait(self) -> DecodedToken:
        return self.token


class StockStep:
    """A DecodeStep for any model that RoutingIntegration knows.

    integration: in force while a token is read; None for the model as it is. choose: None takes the
    most probable token. recorder: what records the routers; None for no record.
    """

    runs_ahead = False

    def __init__(
        self,
        model: PreTrainedModel,
        integration: RoutingIntegration | None,
        choose: Choose | None,
        recorder: PassRecorder | None = None,
    ) -> None:
        self._model = model
        self._integration = integration
        self._choose = choose
        self._recorder = recorder
        self._cache: DynamicCache | None = None
        self._token: Tensor | None = None

    def start(self, cache: DynamicCache, token: Tensor, room: int) -> None:
        """See DecodeStep; a DynamicCache makes room as it grows."""
        self._cache, self._token = cache, token

    def submit(self) -> _ReadyToken:
        """See DecodeStep; the token is there when this returns."""
        start = time.perf_counter()
        logits = read_tokens(
            self._model, self._token, self._cache, self._integration, self._recorder
        )
        self._token = chosen_token(logits, self._choose)
        token_id = int(self._token)  # waits for the device, so the time is the whole step's
        recorder = self._recorder
        decided = None if recorder is None else recorder.decided(logits, token_id)
        seconds = time.perf_counter() - start
        raw_counts = None if self._integration is None else self._integration.last_counts()[1]
        return _ReadyToken(DecodedToken(token_id, raw_counts, seconds, decided))

    def close(self) -> None:
        """See DecodeStep."""
        self._cache = self._token = None


def read_tokens(
    model: PreTrainedModel,
    tokens: Tensor | None,
    cache: DynamicCache | None,
    integration: RoutingIntegration | None,
    recorder: PassRecorder | None = None,
) -> Tensor:
    """Logits after the last of `tokens`, (1, vocabulary); the cache grows by them.

    tokens: (1, position) int64. recorder: what records the routers of this pass. Raises
    RuntimeError without a cache, which a closed step has.
    """
    if cache is None:
        raise RuntimeError("This step was not started, or was closed.")
    with torch.inference_mode(), integration or nullcontext(), recorder or nullcontext():
        output = model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits: Tensor = output.logits[:, -1]
    return logits


def chosen_token(logits: Tensor, choose: Choose | None) -> Tensor:
    """The next token, (1, 1) int64. choose: None for the most probable one."""
    with torch.inference_mode():
        return logits.argmax(dim=-1, keepdim=True) if choose is None else choose(logits)
