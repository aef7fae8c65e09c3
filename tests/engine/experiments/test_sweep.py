"""Sweeps: what they answer, what they do not compute twice, what they say of rules, stopping."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bh_studio.engine.errors import CancelToken, EngineError
from bh_studio.engine.experiments.runner import run
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import Finished, RowReady, TokenGenerated
from bh_studio.engine.protocol.experiments import Sweep
from bh_studio.engine.records.rows import Agreement
from bh_studio.engine.records.sweep import SweepResult
from bh_studio.engine.rules.parameters import RuleParameters
from tests.engine.experiments.answers import GENERATION, PROMPT, RULES, both_answers, content
from tests.engine.experiments.running import result_of, rows_of
from tests.tiny_olmoe import CONTEXT, EXPERTS


def sweep(*rules: RuleParameters, **options: Any) -> Sweep:
    values = {"prompts": (PROMPT,), "sides": (None, *rules), "generation": GENERATION}
    return Sweep(**{**values, **options})


def test_a_sweep_answers_as_comparisons_do_with_one_baseline(loaded: LoadedModel) -> None:
    events = list(run(loaded, sweep(*RULES)))
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.is_complete
    rows = list(finished.document.rows())
    assert [row.rule for row in rows] == [None, *RULES]
    sides = [event.side for event in events if isinstance(event, TokenGenerated)]
    assert sides == [0] * 12 + [1] * 12 + [2] * 12 + [3] * 12
    baseline = rows[0].answer
    assert rows[0].agreement is None
    for row, rule in zip(rows[1:], RULES, strict=True):
        expected = both_answers(loaded, PROMPT, rule)
        assert [content(baseline), content(row.answer)] == [content(a) for a in expected]
        assert row.agreement == Agreement.between(baseline, row.answer)
    means = [row.answer.statistics.mean for row in rows[1:]]
    assert means == sorted(means, key=lambda mean: mean or 0.0)


@pytest.mark.parametrize("known", [1, 2, 4])
def test_known_answers_are_not_computed_again(known: int, loaded: LoadedModel) -> None:
    rows = rows_of(loaded, sweep(*RULES), known)
    events = list(run(loaded, sweep(*RULES), rows))
    made = [event.key for event in events if isinstance(event, RowReady)]
    assert made == [f"0 0 {side}" for side in range(known, 4)]
    whole = result_of(loaded, sweep(*RULES))
    finished = events[-1]
    assert isinstance(finished, Finished)
    for row, other in zip(finished.document.rows(), whole.rows(), strict=True):
        assert content(row.answer) == content(other.answer)
        assert row.agreement == other.agreement


def test_several_prompts_and_seeds_give_intervals_over_prompts(loaded: LoadedModel) -> None:
    prompts = (PROMPT, "The king", "A fox", "Two lines")
    sampled = replace(GENERATION, sampling=True, seed=5)
    definition = sweep(*RULES[:2], prompts=prompts, seeds=2, generation=sampled)
    result: SweepResult = result_of(loaded, definition)
    rows = list(result.rows())
    assert len(rows) == 4 * 2 * 3
    again = result_of(loaded, sweep(*RULES[:2], generation=replace(sampled, seed=6)))
    of_second_seed = [row for row in rows if (row.prompt, row.seed) == (0, 1)]
    for row, other in zip(of_second_seed, again.rows(), strict=True):
        assert content(row.answer) == content(other.answer)

    own, first, second = result.summaries()
    assert (own.rule, own.same, own.more_experts) == (None, None, None)
    assert own.experts == (4.0, 4.0, 4.0)
    means = np.array([
        np.mean([r.answer.statistics.mean for r in rows if r.prompt == p and r.side == 1])
        for p in range(4)
    ])  # fmt: skip
    assert first.experts.value == pytest.approx(means.mean())
    assert first.experts.low < first.experts.value < first.experts.high
    assert first.more_experts is None
    assert second.more_experts is not None
    assert second.more_experts.value == pytest.approx(second.experts.value - first.experts.value)
    # Drawn together: what a prompt does to both rules cancels.
    apart = (second.experts.high - second.experts.low) + (first.experts.high - first.experts.low)
    assert second.more_experts.high - second.more_experts.low < apart
    assert first.same is not None
    assert 0 <= first.same.low <= first.same.value <= first.same.high <= 1


def test_a_single_prompt_has_no_interval(loaded: LoadedModel) -> None:
    _, first = result_of(loaded, sweep(RULES[0])).summaries()
    assert math.isnan(first.experts.low)
    assert first.experts.value > 1


def test_prompts_that_cannot_be_answered_are_left_out_of_several(loaded: LoadedModel) -> None:
    result = result_of(loaded, sweep(RULES[0], prompts=("x" * CONTEXT, PROMPT)))
    assert list(result.refused) == [0]
    assert "128 tokens" in result.refused[0]
    assert {row.prompt for row in result.rows()} == {1}
    with pytest.raises(EngineError, match="None of the 2 prompts"):
        result_of(loaded, sweep(RULES[0], prompts=("x" * CONTEXT, " ")))


def test_a_rule_that_does_not_fit_ends_a_sweep_before_its_work(loaded: LoadedModel) -> None:
    with pytest.raises(ValueError, match="16 experts"):
        next(run(loaded, sweep(*RULES, RuleParameters(max_k=EXPERTS + 1))))


def test_a_sweep_refuses_a_prompt_that_does_not_fit(loaded: LoadedModel) -> None:
    with pytest.raises(EngineError, match="128 tokens"):
        next(run(loaded, sweep(*RULES, prompts=("x" * CONTEXT,))))


def test_a_cancelled_sweep_ends_without_the_answer_under_way(loaded: LoadedModel) -> None:
    cancel, rows = CancelToken(), 0
    for event in run(loaded, sweep(*RULES), {}, cancel):
        if isinstance(event, RowReady):
            rows += 1
        elif isinstance(event, TokenGenerated) and rows == 2 and event.index == 3:
            cancel.cancel()
    assert isinstance(event, Finished)
    assert not event.is_complete
    assert [row.rule for row in event.document.rows()] == [None, RULES[0]]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"prompts": ()}, "needs a prompt"),
        ({"sides": ()}, "model's own routing"),
        ({"sides": (None,)}, "model's own routing"),
        ({"sides": (RULES[0], None)}, "model's own routing"),
        ({"sides": (None, RULES[0], RULES[0])}, "given twice"),
        ({"seeds": 0}, "seeds must be at least 1"),
    ],
)
def test_sweeps_that_make_no_sense_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        sweep(*RULES, **options)
