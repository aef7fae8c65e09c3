"""transformers' own `generate` on a model of ours, as it is without BH Studio, token times noted.

What is changed for it (expert computation, threads, what compiling leaves behind) is put back,
also after an error. Knows nothing of rules.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.generation import BaseStreamer


class TokenTimes(BaseStreamer):
    """Notes when each token was there, and which expert computation made it.

    seconds: since it was made, one a token. before_token: called for each; what it raises ends the
    generation.
    """

    def __init__(self, model: PreTrainedModel, before_token: Callable[[], None]) -> None:
        self._model = model
        self._before_token = before_token
        self._has_prompt = False
        self._start = time.perf_counter()
        self.seconds: list[float] = []
        self.expert_paths: list[str] = []

    def put(self, value: Tensor) -> None:
        """Called with the prompt, then with each token, which lies on the processor by then."""
        if self._has_prompt:
            self.seconds.append(time.perf_counter() - self._start)
            path = self._model.config._experts_implementation
            if path not in self.expert_paths:
                self.expert_paths.append(path)
        self._has_prompt = True
        self._before_token()

    def end(self) -> None:
        """Called after the last token."""


def default_expert_path(model: PreTrainedModel) -> str:
    """The expert computation that transformers takes for `model` if nobody asks for another."""
    path: str = model.get_correct_experts_implementation(None)
    return path


def generate(
    model: PreTrainedModel,
    prompt: Tensor,
    tokens: int,
    before_token: Callable[[], None],
    **options: Any,
) -> TokenTimes:
    """Continue `prompt`, (1, position), greedily by exactly `tokens` tokens.

    options: more keywords for transformers' `generate`.
    """
    times = TokenTimes(model, before_token)
    # No token has this number: an end of text is looked for at the usual cost, but not found.
    never = int(model.config.vocab_size)
    model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        max_new_tokens=tokens,
        eos_token_id=never,
        pad_token_id=0,
        streamer=times,
        **options,
    )
    return times


@contextmanager
def stock_computation(
    model: PreTrainedModel, expert_path: str, threads: int | None
) -> Iterator[None]:
    """Inside, `model` computes its experts by `expert_path`, with `threads` threads if given.

    Neither warnings nor log lines come out: what torch and transformers say of compiling would
    stand between the lines of a result.
    """
    former_path, former_threads = model.config._experts_implementation, torch.get_num_threads()
    former_disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            model.set_experts_implementation(expert_path)
            if threads is not None:
                torch.set_num_threads(threads)
            yield
        finally:
            torch.set_num_threads(former_threads)
            model.set_experts_implementation(former_path)
            logging.disable(former_disabled)


def is_compiled(model: PreTrainedModel) -> bool:
    """Whether `generate` has compiled `model` since `without_traces` began."""
    return "_compiled_call" in vars(model)


@contextmanager
def without_traces(model: PreTrainedModel) -> Iterator[None]:
    """Inside, `generate` may keep what it has compiled on `model`; afterwards it is gone."""
    before = set(vars(model))
    try:
        yield
    finally:
        for name in set(vars(model)) - before:
            del vars(model)[name]
