"""The ways to decode that a benchmark compares: each answers a prompt and says how long it took.

One clock for all: wall time since the answer was asked for, read when a token is on the processor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bh_studio.engine.decoding.side import SideDecoder
from bh_studio.engine.experiments.benchmark.memory_bandwidth import synchronize
from bh_studio.engine.experiments.benchmark.stock_generate import generate, stock_computation
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.records.benchmark.round import TimedAnswer
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules.parameters import RuleParameters

# Called before each token; what it raises ends the answer.
BeforeToken = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Contender:
    """answer: continues a prompt, (1, position), by that many tokens. threads: it computes with."""

    name: str
    threads: int
    answer: Callable[[Tensor, int], TimedAnswer]


def stock(
    loaded: LoadedModel,
    name: str,
    expert_path: str,
    threads: int,
    before_token: BeforeToken,
    **options: Any,
) -> Contender:
    """transformers' `generate` on the weights of `loaded`; options: more keywords for it."""
    model, top_k = loaded.model, loaded.shape.top_k

    def answer(prompt: Tensor, tokens: int) -> TimedAnswer:
        with stock_computation(model, expert_path, threads):
            prompt = prompt.to(model.device)
            synchronize(model.device)
            times = generate(model, prompt, tokens, before_token, **options)
            synchronize(model.device)
        return TimedAnswer(tuple(times.seconds), float(top_k), ", ".join(times.expert_paths))

    return Contender(name, threads, answer)


def one_side(
    loaded: LoadedModel,
    name: str,
    parameters: RuleParameters | None,
    before_token: BeforeToken,
) -> Contender:
    """A side as a run has it, alone: the baseline, or BH with `parameters`."""
    integration = None
    if parameters is not None:
        integration = RoutingIntegration(loaded.model, parameters, recording=loaded.recording)

    def answer(prompt: Tensor, tokens: int) -> TimedAnswer:
        return _turns(loaded, prompt, tokens, (integration,), before_token)

    return Contender(name, torch.get_num_threads(), answer)


def both_sides(
    loaded: LoadedModel, name: str, parameters: RuleParameters, before_token: BeforeToken
) -> Contender:
    """The baseline and BH taking turns, as a comparison runs them; a token is one of each."""
    integration = RoutingIntegration(loaded.model, parameters, recording=loaded.recording)

    def answer(prompt: Tensor, tokens: int) -> TimedAnswer:
        return _turns(loaded, prompt, tokens, (None, integration), before_token)

    return Contender(name, torch.get_num_threads(), answer)


def _turns(
    loaded: LoadedModel,
    prompt: Tensor,
    tokens: int,
    sides: tuple[RoutingIntegration | None, ...],
    before_token: BeforeToken,
) -> TimedAnswer:
    """An answer of every side, one token of each in turn."""
    parameters = GenerationParameters(max_new_tokens=tokens, sampling=False)
    synchronize(loaded.model.device)
    start = time.perf_counter()
    decoders = [
        SideDecoder(loaded.model, prompt, parameters, frozenset(), loaded.shape, integration)
        for integration in sides
    ]
    seconds, counts = [], []
    try:
        for _ in range(tokens):
            before_token()
            steps = [decoder.step() for decoder in decoders]
            seconds.append(time.perf_counter() - start)
            counts.append([step.expert_counts[-1] for step in steps])
    finally:
        for decoder in decoders:
            decoder.close()
    # What a side has begun beyond its last token must not be charged to whoever comes next.
    synchronize(loaded.model.device)
    mean = float(np.mean(counts[1:])) if tokens > 1 else float("nan")
    return TimedAnswer(tuple(seconds), mean, loaded.info.expert_path)
