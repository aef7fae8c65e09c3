"""Many prompts: which are answered, which refused, and stopping."""

from __future__ import annotations

import pytest

from bh_studio.engine.errors import CancelToken
from bh_studio.engine.experiments.batch import PromptAnswered, PromptRefused, compare_prompts
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import TokenGenerated
from bh_studio.engine.rules.parameters import RuleParameters
from tests.engine.experiments.answers import GENERATION, PROMPT, RULES, both_answers, content
from tests.tiny_olmoe import CONTEXT, EXPERTS


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
