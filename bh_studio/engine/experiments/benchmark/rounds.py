"""Contenders measured once a round each, in an order that rotates."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from bh_studio.engine.errors import Cancelled
from bh_studio.engine.experiments.benchmark.contenders import Answer, Contender
from bh_studio.engine.experiments.benchmark.token_bytes import token_bytes
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.records.benchmark_result import ContenderResult

log = logging.getLogger(__name__)

# Told the name of each contender before its turn.
Announce = Callable[[str], None]


class Rounds:
    """Answers of `contenders` to `prompt`, (1, position), of `tokens` tokens each.

    done: rounds in which all of them answered.
    """

    def __init__(self, contenders: Sequence[Contender], prompt: Tensor, tokens: int) -> None:
        self._contenders = list(contenders)
        self._prompt, self._tokens = prompt, tokens
        self._rounds: list[dict[str, Answer]] = []

    @property
    def done(self) -> int:
        return len(self._rounds)

    def warm_up(self, announce: Announce, optional: str) -> str | None:
        """Let everyone answer twice, for first calls are slow and may compile.

        optional: the contender that may fail: it is left out then, and why is returned.
        """
        reason = None
        for contender in list(self._contenders):
            announce(contender.name)
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

    def measure(self, announce: Announce) -> None:
        """One round more; it is kept only if it ends."""
        first = self.done % len(self._contenders)
        answers = {}
        for contender in self._contenders[first:] + self._contenders[:first]:
            announce(contender.name)
            gc.collect()  # nobody pays for what the one before has left
            answers[contender.name] = contender.answer(self._prompt, self._tokens)
        self._rounds.append(answers)

    def decode_seconds(self, name: str) -> tuple[float, ...]:
        """From the first token to the last, (round,)."""
        return tuple(answers[name].decode_seconds for answers in self._rounds)

    def results(self, loaded: LoadedModel, leave_out: str) -> tuple[ContenderResult, ...]:
        """All contenders but one, in their order."""
        of_model, layers = token_bytes(loaded.model), loaded.shape.layers
        # A token attends to itself and to all before it; the first one is made by the prompt.
        positions = self._prompt.shape[1] + self._tokens / 2
        results = []
        for contender in self._contenders:
            if contender.name == leave_out:
                continue
            answers = [answers[contender.name] for answers in self._rounds]
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
