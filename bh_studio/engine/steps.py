"""Work in steps: a generator that says what happens on the way, and returns what comes of it.

Knows nothing of what the work is.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

_S = TypeVar("_S")
_T = TypeVar("_T")
_R = TypeVar("_R")


def result_of_steps(
    steps: Generator[_S, None, _R], tell: Callable[[_S], object] = lambda step: None
) -> _R:
    """Take all `steps`, each of them told to `tell`; what they return."""
    told = told_as(steps, tell)
    while True:
        try:
            next(told)
        except StopIteration as end:
            result: _R = end.value
            return result


def told_as(steps: Generator[_S, None, _R], words: Callable[[_S], _T]) -> Generator[_T, Any, _R]:
    """The same steps in other `words`."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            result: _R = end.value
            return result
        yield words(step)
