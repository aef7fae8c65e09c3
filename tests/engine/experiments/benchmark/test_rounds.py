"""The order of turns, rounds that end early, and a contender that may fail."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

import pytest
import torch
from torch import Tensor

from bh_studio.engine.errors import Cancelled
from bh_studio.engine.experiments.benchmark.contenders import Contender
from bh_studio.engine.experiments.benchmark.rounds import Rounds
from bh_studio.engine.protocol.events import Activity
from bh_studio.engine.records.benchmark.round import TimedAnswer
from bh_studio.engine.steps import result_of_steps

_T = TypeVar("_T")
PROMPT = torch.arange(5)[None]


class Turns:
    """Contenders that note their turns; `failures` are raised by the turn of that number."""

    def __init__(self, failures: dict[int, Exception] | None = None) -> None:
        self.taken: list[str] = []
        self._failures = failures or {}
        contenders = [Contender(name, 1, self._answer(name)) for name in "abc"]
        self.rounds = Rounds(contenders, PROMPT, tokens=3)

    def _answer(self, name: str) -> Callable[[Tensor, int], TimedAnswer]:
        def answer(prompt: Tensor, tokens: int) -> TimedAnswer:
            assert prompt is PROMPT
            assert tokens == 3
            self.taken.append(name)
            if len(self.taken) in self._failures:
                raise self._failures[len(self.taken)]
            seconds = float(len(self.taken))
            return TimedAnswer((seconds, 2 * seconds, 3 * seconds), 4.0, "path")

        return answer


def carried_out(events: Generator[Activity, None, _T]) -> tuple[list[str], _T]:
    """What is said on the way, and what comes of it."""
    told: list[str] = []
    result = result_of_steps(events, lambda activity: told.append(activity.text))
    return told, result


def test_everyone_goes_first_in_turn() -> None:
    turns = Turns()
    told, seconds = "", []
    for number in range(4):
        said, answers = carried_out(turns.rounds.measure(number))
        told += "".join(said)
        seconds.append(answers["a"].decode_seconds)
    assert "".join(turns.taken) == told == "abcbcacababc"
    # Turns 1, 6, 8 and 10, from the first token to the last.
    assert seconds == [2.0, 12.0, 16.0, 20.0]


def test_whose_turn_it_is_is_said_while_no_clock_runs() -> None:
    turns = Turns()
    for event in turns.rounds.measure(1):
        assert event.text not in turns.taken
    assert turns.taken == ["b", "c", "a"]


def test_a_round_that_does_not_end_gives_nothing() -> None:
    turns = Turns({5: Cancelled()})
    carried_out(turns.rounds.measure(0))
    with pytest.raises(Cancelled):
        carried_out(turns.rounds.measure(1))


def test_warming_up_answers_the_one_that_compiles_twice() -> None:
    turns = Turns()
    told, reason = carried_out(turns.rounds.warm_up(optional="b"))
    assert reason is None
    assert told == ["Warming up: a", "Warming up: b", "Warming up: c"]
    assert turns.taken == ["a", "b", "b", "c"]


def test_only_the_optional_one_may_fail() -> None:
    turns = Turns({2: RuntimeError("no compiler\nand many lines")})
    assert carried_out(turns.rounds.warm_up(optional="b"))[1] == "no compiler"
    carried_out(turns.rounds.measure(0))
    assert turns.taken[3:] == ["a", "c"]
    with pytest.raises(RuntimeError):
        carried_out(Turns({1: RuntimeError()}).rounds.warm_up(optional="b"))
    with pytest.raises(Cancelled):
        carried_out(Turns({2: Cancelled()}).rounds.warm_up(optional="b"))
