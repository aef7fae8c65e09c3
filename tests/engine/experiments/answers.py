"""What the tests of many answers ask for, and what a comparison answers to it."""

from __future__ import annotations

from bh_studio.engine.experiments.comparison import compare
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import RunFinished
from bh_studio.engine.protocol.experiments import RunComparison
from bh_studio.engine.records.rows import Answer
from bh_studio.engine.records.terms import GenerationParameters, Side
from bh_studio.engine.rules.parameters import RuleParameters
from tests.tiny_olmoe import TOP_K

PROMPT = "Once upon a time"
RULES = tuple(RuleParameters(level=alpha, max_k=TOP_K) for alpha in (0.02, 0.1, 0.3))
GENERATION = GenerationParameters(max_new_tokens=12)


def both_answers(loaded: LoadedModel, prompt: str, rule: RuleParameters) -> list[Answer]:
    *_, finished = compare(loaded, RunComparison(0, prompt, rule, GENERATION))
    assert isinstance(finished, RunFinished)
    return [Answer.of(finished.session.sides[side]) for side in Side]


def content(answer: Answer) -> tuple[object, ...]:
    """All of an answer but its times."""
    return answer.text, answer.token_ids, answer.finish_reason, answer.statistics
