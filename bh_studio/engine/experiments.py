"""Comparisons of many rules on one prompt, and of one rule on many prompts: generators of events.

Knows no file and nothing of what a caller keeps from an earlier, interrupted run.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

from bh_studio.engine.chat import check_chat_template, encode_prompt
from bh_studio.engine.comparison import compare
from bh_studio.engine.errors import EngineError
from bh_studio.engine.experiment_rows import Agreement, Answer
from bh_studio.engine.messages import (
    CancelToken,
    Conversation,
    FinishReason,
    GenerationParameters,
    RunComparison,
    RunFinished,
    Side,
    TokenGenerated,
)
from bh_studio.engine.models import LoadedModel
from bh_studio.engine.routing import RoutingIntegration
from bh_studio.engine.rule_parameters import RuleParameters
from bh_studio.engine.side_run import SideRun


@dataclass(frozen=True, slots=True)
class RuleAnswered:
    """One answer of a sweep. rule: None for the baseline, which has no agreement with itself."""

    rule: RuleParameters | None
    answer: Answer
    agreement: Agreement | None


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


def sweep(
    loaded: LoadedModel,
    prompt: str,
    rules: Sequence[RuleParameters],
    generation: GenerationParameters,
    cancel: CancelToken,
    baseline: Answer | None = None,
    conversation: Conversation | None = None,
) -> Generator[TokenGenerated | RuleAnswered, None, None]:
    """Answer `prompt` with the baseline, once, and then with each of `rules`.

    baseline: the baseline's answer if it is known already; it is not computed again then.
    conversation: what precedes the prompt; None continues it as plain text.
    The answers come one after the other, each alone on the machine. Ends without an event when it
    is cancelled; the answer that was under way is lost.
    Raises EngineError for a prompt that chat.encode_prompt refuses, ValueError for rule parameters
    that do not fit the model.
    """
    prompt_ids = {side: encode_prompt(loaded, prompt, conversation, side) for side in Side}
    # All of them now: a rule that does not fit should end the sweep before the work, not after it.
    integrations = [RoutingIntegration(loaded.model, rule, null=loaded.null) for rule in rules]
    if baseline is None:
        run = SideRun(loaded, prompt_ids[Side.BASELINE], generation, Side.BASELINE, None)
        baseline = yield from _finished(run, cancel)
        if baseline is None:
            return
        yield RuleAnswered(None, baseline, None)
    for rule, integration in zip(rules, integrations, strict=True):
        run = SideRun(loaded, prompt_ids[Side.BH], generation, Side.BH, integration)
        answer = yield from _finished(run, cancel)
        if answer is None:
            return
        yield RuleAnswered(rule, answer, Agreement.between(baseline, answer))


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


def _finished(run: SideRun, cancel: CancelToken) -> Generator[TokenGenerated, None, Answer | None]:
    """The tokens of `run`, and then its answer; None if it was cancelled before it ended."""
    with closing(run):
        while not cancel.is_cancelled:
            token, reason = run.step()
            yield token
            if reason is not None:
                return Answer.of(run.finish(reason).record)
    return None
