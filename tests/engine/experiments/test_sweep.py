"""Sweeps: what they answer, what they do not compute twice, and stopping."""

from __future__ import annotations

import pytest

from bh_studio.engine.errors import CancelToken, EngineError
from bh_studio.engine.experiments.sweep import RuleAnswered, sweep
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import TokenGenerated
from bh_studio.engine.records.rows import Agreement
from bh_studio.engine.records.terms import Side
from bh_studio.engine.rules.parameters import RuleParameters
from tests.engine.experiments.answers import GENERATION, PROMPT, RULES, both_answers, content
from tests.tiny_olmoe import CONTEXT, EXPERTS


def test_a_sweep_answers_as_comparisons_do_with_one_baseline(loaded: LoadedModel) -> None:
    events = list(sweep(loaded, PROMPT, RULES, GENERATION, CancelToken()))
    rows = [event for event in events if isinstance(event, RuleAnswered)]
    assert [row.rule for row in rows] == [None, *RULES]
    sides = [event.side for event in events if isinstance(event, TokenGenerated)]
    assert sides == [Side.BASELINE] * 12 + [Side.BH] * 36
    baseline = rows[0].answer
    assert rows[0].agreement is None
    for row, rule in zip(rows[1:], RULES, strict=True):
        expected = both_answers(loaded, PROMPT, rule)
        assert [content(baseline), content(row.answer)] == [content(a) for a in expected]
        assert row.agreement == Agreement.between(baseline, row.answer)
    means = [row.answer.statistics.mean for row in rows[1:]]
    assert means == sorted(means, key=lambda mean: mean or 0.0)


def test_a_known_baseline_is_not_computed_again(loaded: LoadedModel) -> None:
    baseline, _ = both_answers(loaded, PROMPT, RULES[0])
    events = list(sweep(loaded, PROMPT, RULES[:1], GENERATION, CancelToken(), baseline))
    assert {e.side for e in events if isinstance(e, TokenGenerated)} == {Side.BH}
    (row,) = (event for event in events if isinstance(event, RuleAnswered))
    assert row.agreement == Agreement.between(baseline, row.answer)


def test_a_rule_that_does_not_fit_ends_a_sweep_before_its_work(loaded: LoadedModel) -> None:
    rules = (*RULES, RuleParameters(max_k=EXPERTS + 1))
    with pytest.raises(ValueError, match="16 experts"):
        next(sweep(loaded, PROMPT, rules, GENERATION, CancelToken()))


def test_a_sweep_refuses_a_prompt_that_does_not_fit(loaded: LoadedModel) -> None:
    with pytest.raises(EngineError, match="128 tokens"):
        next(sweep(loaded, "x" * CONTEXT, RULES, GENERATION, CancelToken()))


def test_a_cancelled_sweep_ends_without_the_answer_under_way(loaded: LoadedModel) -> None:
    cancel, rows = CancelToken(), []
    for event in sweep(loaded, PROMPT, RULES, GENERATION, cancel):
        if isinstance(event, RuleAnswered):
            rows.append(event)
        elif len(rows) == 2 and event.index == 3:
            cancel.cancel()
    assert [row.rule for row in rows] == [None, RULES[0]]
