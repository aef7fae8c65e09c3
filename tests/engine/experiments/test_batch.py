"""Many prompts: which are answered, which refused, going on, and stopping."""

from __future__ import annotations

from typing import Any

import pytest

from bh_studio.engine.errors import CancelToken, InputError
from bh_studio.engine.experiments.runner import RowError, run
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import Finished, RowReady, TokenGenerated
from bh_studio.engine.protocol.experiments import Batch
from bh_studio.engine.records.rows import Agreement, FilePrompt
from bh_studio.engine.rules.parameters import RuleParameters
from tests.engine.experiments.answers import GENERATION, PROMPT, RULES, both_answers, content
from tests.engine.experiments.running import result_of, rows_of
from tests.tiny_olmoe import CONTEXT, EXPERTS


def batch(*prompts: str, rule: RuleParameters = RULES[1], **options: Any) -> Batch:
    asked = tuple(FilePrompt(2 * place + 1, prompt) for place, prompt in enumerate(prompts))
    values = {"prompts_sha256": "", "sides": (None, rule), "generation": GENERATION}
    return Batch(prompts=asked, **{**values, **options})


def test_every_prompt_is_answered_or_refused(loaded: LoadedModel) -> None:
    prompts = [PROMPT, " ", "x" * CONTEXT, "The king"]
    result = result_of(loaded, batch(*prompts))
    assert [row.line for row in result.answered] == [1, 7]
    for row, prompt in zip(result.answered, (PROMPT, "The king"), strict=True):
        expected = both_answers(loaded, prompt, RULES[1])
        assert row.asked.prompt == prompt
        assert [content(a) for a in row.answers] == [content(a) for a in expected]
    assert [(row.line, row.reason.partition(";")[0]) for row in result.refused] == [
        (3, "The prompt is empty."),
        (5, "The prompt has 128 tokens"),
    ]


def test_known_rows_are_not_computed_again(loaded: LoadedModel) -> None:
    definition = batch(PROMPT, " ", "The king", "A fox")
    rows = rows_of(loaded, definition, 3)
    events = list(run(loaded, definition, rows))
    assert [event.key for event in events if isinstance(event, RowReady)] == ["7"]
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert [row.line for row in finished.document.rows] == [1, 3, 5, 7]


def test_rows_of_other_prompts_are_not_taken_over(loaded: LoadedModel) -> None:
    rows = rows_of(loaded, batch(PROMPT, "The king"), 1)
    with pytest.raises(InputError, match="line 1 answers another prompt"):
        next(run(loaded, batch("A fox", "The king"), rows))


def test_many_prompts_with_a_rule_that_does_not_fit_are_not_begun(loaded: LoadedModel) -> None:
    with pytest.raises(ValueError, match="16 experts"):
        next(run(loaded, batch(" ", rule=RuleParameters(max_k=EXPERTS + 1))))


def test_cancelled_prompts_end_without_the_one_under_way(loaded: LoadedModel) -> None:
    cancel, done = CancelToken(), 0
    for event in run(loaded, batch(*[PROMPT] * 4, rule=RULES[0]), {}, cancel):
        done += isinstance(event, RowReady)
        if isinstance(event, TokenGenerated) and done == 2 and event.index == 5:
            cancel.cancel()
    assert isinstance(event, Finished)
    assert not event.is_complete
    assert [row.line for row in event.document.rows] == [1, 3]


def test_each_side_answers_as_it_does_in_a_comparison(loaded: LoadedModel) -> None:
    sides = (RULES[0], None, RULES[1])
    (row,) = result_of(loaded, batch(PROMPT, sides=sides)).answered
    own, rule = both_answers(loaded, PROMPT, RULES[1])
    assert [content(a) for a in row.answers[1:]] == [content(own), content(rule)]
    assert row.agreements[0] is None
    assert row.agreements[1:] == tuple(Agreement.between(row.answers[0], a) for a in (own, rule))


def test_rows_of_another_number_of_sides_are_not_taken_over(loaded: LoadedModel) -> None:
    rows = rows_of(loaded, batch(PROMPT, "The king"), 1)
    with pytest.raises(RowError):
        next(run(loaded, batch(PROMPT, "The king", sides=(None, *RULES)), rows))
