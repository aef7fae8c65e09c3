"""Contenders measured once a round each, in an order that rotates."""

from __future__ import annotations

import gc
import logging
from collections.abc import Generator, Mapping, Sequence

import numpy as np
from torch import Tensor

from bh_studio.engine.errors import Cancelled
from bh_studio.engine.experiments.benchmark.contenders import Contender
from bh_studio.engine.experiments.benchmark.token_bytes import token_bytes
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import Activity
from bh_studio.engine.records.benchmark.result import ContenderResult
from bh_studio.engine.records.benchmark.round import TimedAnswer

log = logging.getLogger(__name__)


class Rounds:
    """Answers of `contenders` to `prompt`, (1, position), of `tokens` tokens each.

    Says whose turn it is before the answer is asked for, never during one.
    """

    def __init__(self, contenders: Sequence[Contender], prompt: Tensor, tokens: int) -> None:
        self._contenders = list(contenders)
        self._prompt, self._tokens = prompt, tokens

    def warm_up(self, optional: str) -> Generator[Activity, None, str | None]:
        """Let everyone answer twice, for first calls are slow and may compile.

        optional: the contender that may fail: it is left out then, and why is returned.
        """
        reason = None
        for contender in list(self._contenders):
            yield Activity(f"Warming up: {contender.name}")
            try:
                # What is compiled in the first answer may be compiled once more in the second.
                for _ in range(2 if contender.name == optional else 1):
                    contender.answer(self._prompt, self._tokens)
            except Cancelled:
                raise
            except Exception as error:
                if contender.name != optional:
                    raise
                log.info("%s is left out", contender.name, exc_info=error)
                reason = str(error).partition("\n")[0] or type(error).__name__
                self._contenders.remove(contender)
        return reason

    def measure(self, number: int) -> Generator[Activity, None, dict[str, TimedAnswer]]:
        """The answers of all, by name; the `number` of the round decides who goes first."""
        first = number % len(self._contenders)
        answers = {}
        for contender in self._contenders[first:] + self._contenders[:first]:
            yield Activity(contender.name)
            gc.collect()  # nobody pays for what the one before has left
            answers[contender.name] = contender.answer(self._prompt, self._tokens)
        return answers

    def results(
        self, loaded: LoadedModel, rounds: Sequence[Mapping[str, TimedAnswer]], leave_out: str
    ) -> tuple[ContenderResult, ...]:
        """What all contenders but one did in `rounds`, in their order."""
        of_model, layers = token_bytes(loaded.model), loaded.shape.layers
        # A token attends to itself and to all before it; the first one is made by the prompt.
        positions = self._prompt.shape[1] + self._tokens / 2
        results = []
        for contender in self._contenders:
            if contender.name == leave_out:
                continue
            answers = [answers[contender.name] for answers in rounds]
            mean = float(np.mean([answer.mean_experts for answer in answers]))
            results.append(
                ContenderResult(
                    name=contender.name,
                    tokens=self._tokens,
                    threads=contender.threads,
                    expert_path=answers[0].expert_path,
                    mean_experts=mean,
                    expert_rows=mean * layers,
                    token_bytes=of_model.of(mean, positions),
                    decode_seconds=tuple(answer.decode_seconds for answer in answers),
                    first_token_seconds=tuple(answer.token_seconds[0] for answer in answers),
                    answer_seconds=tuple(answer.token_seconds[-1] for answer in answers),
                )
            )
        return tuple(results)
