"""Comparisons of one rule on many prompts: a generator of events.

Knows no file and nothing of what a caller keeps from an earlier, interrupted run.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass

from bh_studio.engine.errors import CancelToken, EngineError
from bh_studio.engine.experiments.comparison import compare
from bh_studio.engine.experiments.prompt import check_chat_template, encode_prompt
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import RunFinished, TokenGenerated
from bh_studio.engine.protocol.experiments import RunComparison
from bh_studio.engine.records.rows import Agreement, Answer
from bh_studio.engine.records.terms import Conversation, FinishReason, GenerationParameters, Side
from bh_studio.engine.rules.parameters import RuleParameters


@dataclass(frozen=True, slots=True)
class PromptAnswered:
    """Both answers to one prompt. index: its place among those that were asked."""

    index: int
    baseline: Answer
    bh: Answer
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class PromptRefused:
    """The model cannot answer this prompt; `reason` is a sentence."""

    index: int
    reason: str


def compare_prompts(
    loaded: LoadedModel,
    prompts: Iterable[str],
    rule: RuleParameters,
    generation: GenerationParameters,
    cancel: CancelToken,
    conversation: Conversation | None = None,
) -> Generator[TokenGenerated | PromptAnswered | PromptRefused, None, None]:
    """Answer each of `prompts` with the baseline and with `rule`, taking turns token by token.

    conversation: what precedes each of them; None continues them as plain text.
    Ends without an event when it is cancelled; the prompt that was under way is lost.
    Raises ValueError for rule parameters that do not fit the model, EngineError for a conversation
    with a model that has no chat template.
    """
    rule.check_shape(loaded.shape.layers, loaded.shape.experts)
    if conversation is not None:
        check_chat_template(loaded)
    for index, prompt in enumerate(prompts):
        if cancel.is_cancelled:
            return
        try:
            for side in Side:
                encode_prompt(loaded, prompt, conversation, side)
        except EngineError as error:
            yield PromptRefused(index, error.message)
            continue
        request = RunComparison(index, prompt, rule, generation, conversation, cancel)
        for event in compare(loaded, request):
            if isinstance(event, TokenGenerated):
                yield event
            elif isinstance(event, RunFinished):
                records = [event.session.sides[side] for side in Side]
                if any(r.finish_reason is FinishReason.STOPPED for r in records):
                    return
                baseline, bh = (Answer.of(record) for record in records)
                yield PromptAnswered(index, baseline, bh, Agreement.between(baseline, bh))
