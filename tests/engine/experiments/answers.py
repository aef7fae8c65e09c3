"""What the tests of many answers ask for, and what a comparison answers to it."""

from __future__ import annotations

from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.experiments import Comparison
from bh_studio.engine.records.rows import Answer
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules.parameters import RuleParameters
from tests.engine.experiments.running import result_of
from tests.tiny_olmoe import TOP_K

PROMPT = "Once upon a time"
RULES = tuple(RuleParameters(level=alpha, max_k=TOP_K) for alpha in (0.02, 0.1, 0.3))
GENERATION = GenerationParameters(max_new_tokens=12)


def both_answers(loaded: LoadedModel, prompt: str, rule: RuleParameters) -> list[Answer]:
    definition = Comparison(prompt=prompt, sides=(None, rule), generation=GENERATION)
    return [Answer.of(record) for record in result_of(loaded, definition).records]


def content(answer: Answer) -> tuple[object, ...]:
    """All of an answer but its times."""
    return answer.text, answer.token_ids, answer.finish_reason, answer.statistics
