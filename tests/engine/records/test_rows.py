"""Rows of experiments: how far two answers are the same, many taken together, and JSON and back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bh_studio.engine.records.counts import count_statistics, pooled
from bh_studio.engine.records.rows import Agreement, Answer, AnswersSummary
from bh_studio.engine.records.terms import FinishReason

NOTHING = count_statistics(np.empty((0, 3), np.uint8), np.empty((0, 3), np.uint8))


def answer(*token_ids: int, speed: float | None = None) -> Answer:
    return Answer("text", token_ids, speed, 0.5, FinishReason.MAX_NEW_TOKENS, NOTHING)


@pytest.mark.parametrize(
    ("baseline", "bh", "matching", "positions", "first"),
    [
        ((1, 2, 3), (1, 2, 3), 3, 3, None),
        ((1, 2, 3), (1, 9, 3), 2, 3, 1),
        ((1, 2, 3, 4), (1, 9), 1, 4, 1),  # what only one side has is not the same
        ((5,), (6, 7, 8), 0, 3, 0),
    ],
)
def test_agreement_counts_positions_of_the_longer_answer(
    baseline: tuple[int, ...], bh: tuple[int, ...], matching: int, positions: int, first: int | None
) -> None:
    for left, right in ((baseline, bh), (bh, baseline)):
        agreement = Agreement.between(answer(*left), answer(*right))
        assert agreement == Agreement(matching, positions, first)
        assert agreement.share == matching / positions


def test_pooled_blocks_equal_the_statistics_of_one_block() -> None:
    draw = np.random.default_rng(0)
    raw = [draw.integers(0, 12, (tokens, 5)).astype(np.uint8) for tokens in (7, 1, 0, 30)]
    counts = [block.clip(2, 8) for block in raw]
    together = count_statistics(np.concatenate(counts), np.concatenate(raw))
    parts = pooled([count_statistics(c, r) for c, r in zip(counts, raw, strict=True)])
    for name, value in together.to_dict().items():
        assert parts.to_dict()[name] == pytest.approx(value), name


def test_nothing_pooled_is_nothing() -> None:
    assert pooled([]) == pooled([NOTHING]) == NOTHING
    assert AnswersSummary.of([]).tokens_per_second is None


def test_speed_of_many_answers_is_all_steps_over_all_time() -> None:
    # 9 steps in 9 s, 1 step in 0.1 s; an answer of one token has no step.
    answers = [answer(*range(10), speed=1.0), answer(1, 2, speed=10.0), answer(3)]
    assert AnswersSummary.of(answers).tokens_per_second == pytest.approx(10 / 9.1)


def test_an_answer_comes_back_from_json_as_it_was() -> None:
    counts = np.array([[1, 2, 3], [3, 8, 2]], np.uint8)
    there = Answer(
        "☃\n", (4, 2), 103.123456789, None, FinishReason.END_OF_TEXT,
        count_statistics(counts, counts + 1),
    )  # fmt: skip
    assert Answer.from_json(json.loads(json.dumps(there.to_json()))) == there


@pytest.mark.parametrize("name", ["text", "statistics", "finish_reason"])
def test_an_answer_that_lacks_something_is_refused(name: str) -> None:
    values = answer(1).to_json()
    del values[name]
    with pytest.raises(KeyError):
        Answer.from_json(values)
