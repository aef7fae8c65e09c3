"""Sweeps and many prompts: what they answer, what they do not compute twice, and stopping."""

from __future__ import annotations

import pytest

from bh_studio.engine.comparison import compare
from bh_studio.engine.errors import EngineError
from bh_studio.engine.experiment_rows import Agreement, Answer
from bh_studio.engine.experiments import (
    PromptAnswered,
    PromptRefused,
    RuleAnswered,
    compare_prompts,
    sweep,
)
from bh_studio.engine.messages import (
    CancelToken,
    GenerationParameters,
    RunComparison,
    RunFinished,
    Side,
    TokenGenerated,
)
from bh_studio.engine.models import LoadedModel, load_model
from bh_studio.engine.rule_parameters import RuleParameters
from tests.tiny_olmoe import CONTEXT, EXPERTS, TOP_K, save_tiny_checkpoint

PROMPT = "Once upon a time"
RULES = tuple(RuleParameters(level=alpha, max_k=TOP_K) for alpha in (0.02, 0.1, 0.3))
GENERATION = GenerationParameters(max_new_tokens=12)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(str(save_tiny_checkpoint(tmp_path_factory.mktemp("tiny-olmoe"))))


def both_answers(loaded: LoadedModel, prompt: str, rule: RuleParameters) -> list[Answer]:
    *_, finished = compare(loaded, RunComparison(0, prompt, rule, GENERATION))
    assert isinstance(finished, RunFinished)
    return [Answer.of(finished.session.sides[side]) for side in Side]


def content(answer: Answer) -> tuple[object, ...]:
    """All of an answer but its times."""
    return answer.text, answer.token_ids, answer.finish_reason, answer.statistics


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


def test_every_prompt_is_answered_or_refused(loaded: LoadedModel) -> None:
    prompts = [PROMPT, " ", "x" * CONTEXT, "The king"]
    events = list(compare_prompts(loaded, prompts, RULES[1], GENERATION, CancelToken()))
    rows = [event for event in events if isinstance(event, PromptAnswered)]
    assert [row.index for row in rows] == [0, 3]
    for row in rows:
        expected = both_answers(loaded, prompts[row.index], RULES[1])
        assert [content(row.baseline), content(row.bh)] == [content(a) for a in expected]
    refused = [event for event in events if isinstance(event, PromptRefused)]
    assert [(row.index, row.reason.partition(";")[0]) for row in refused] == [
        (1, "The prompt is empty."),
        (2, "The prompt has 128 tokens"),
    ]


def test_many_prompts_with_a_rule_that_does_not_fit_are_not_begun(loaded: LoadedModel) -> None:
    rule = RuleParameters(max_k=EXPERTS + 1)
    with pytest.raises(ValueError, match="16 experts"):
        next(compare_prompts(loaded, [" "], rule, GENERATION, CancelToken()))


def test_cancelled_prompts_end_without_the_one_under_way(loaded: LoadedModel) -> None:
    cancel, rows = CancelToken(), []
    for event in compare_prompts(loaded, [PROMPT] * 4, RULES[0], GENERATION, cancel):
        if isinstance(event, PromptAnswered):
            rows.append(event)
        elif isinstance(event, TokenGenerated) and event.run_id == 2 and event.index == 5:
            cancel.cancel()
    assert [row.index for row in rows] == [0, 1]
