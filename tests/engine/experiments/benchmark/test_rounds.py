"""The order of turns, rounds that end early, and a contender that may fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bh_studio.engine.errors import Cancelled
from bh_studio.engine.experiments.benchmark.contenders import Answer, Contender
from bh_studio.engine.experiments.benchmark.rounds import Rounds

PROMPT = torch.arange(5)[None]


class Turns:
    """Contenders that note their turns; `failures` are raised by the turn of that number."""

    def __init__(self, failures: dict[int, Exception] | None = None) -> None:
        self.taken: list[str] = []
        self._failures = failures or {}
        contenders = [Contender(name, 1, self._answer(name)) for name in "abc"]
        self.rounds = Rounds(contenders, PROMPT, tokens=3)

    def _answer(self, name: str) -> Callable[[Tensor, int], Answer]:
        def answer(prompt: Tensor, tokens: int) -> Answer:
            assert prompt is PROMPT
            assert tokens == 3
            self.taken.append(name)
            if len(self.taken) in self._failures:
                raise self._failures[len(self.taken)]
            seconds = float(len(self.taken))
            return Answer((seconds, 2 * seconds, 3 * seconds), 4.0, "path")

        return answer


def ignore(_name: str) -> None:
    """Nobody listens."""


def test_everyone_goes_first_in_turn() -> None:
    turns = Turns()
    told: list[str] = []
    for _ in range(4):
        turns.rounds.measure(told.append)
    assert "".join(turns.taken) == "abcbcacababc"
    assert told == turns.taken
    assert turns.rounds.done == 4
    # Turns 1, 6, 8 and 10, from the first token to the last.
    assert turns.rounds.decode_seconds("a") == (2.0, 12.0, 16.0, 20.0)


def test_a_round_that_did_not_end_is_dropped() -> None:
    turns = Turns({5: Cancelled()})
    turns.rounds.measure(ignore)
    with pytest.raises(Cancelled):
        turns.rounds.measure(ignore)
    assert turns.rounds.done == 1
    assert turns.rounds.decode_seconds("b") == (4.0,)


def test_warming_up_answers_the_one_that_compiles_twice() -> None:
    turns = Turns()
    assert turns.rounds.warm_up(ignore, optional="b") is None
    assert turns.taken == ["a", "b", "b", "c"]


def test_only_the_optional_one_may_fail() -> None:
    turns = Turns({2: RuntimeError("no compiler\nand many lines")})
    assert turns.rounds.warm_up(ignore, optional="b") == "no compiler"
    turns.rounds.measure(ignore)
    assert turns.taken[3:] == ["a", "c"]
    with pytest.raises(RuntimeError):
        Turns({1: RuntimeError()}).rounds.warm_up(ignore, optional="b")
    with pytest.raises(Cancelled):
        Turns({2: Cancelled()}).rounds.warm_up(ignore, optional="b")
