"""Comparisons of many rules on one prompt, and of one rule on many prompts: generators of events.

Knows no file and nothing of what a caller keeps from an earlier, interrupted run.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

from bh_studio.engine.errors import CancelToken
from bh_studio.engine.experiments.prompt import encode_prompt
from bh_studio.engine.experiments.side_run import SideRun
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.protocol.events import TokenGenerated
from bh_studio.engine.records.rows import Agreement, Answer
from bh_studio.engine.records.terms import Conversation, GenerationParameters, Side
from bh_studio.engine.rules.parameters import RuleParameters


@dataclass(frozen=True, slots=True)
class RuleAnswered:
    """One answer of a sweep. rule: None for the baseline, which has no agreement with itself."""

    rule: RuleParameters | None
    answer: Answer
    agreement: Agreement | None


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
    Raises EngineError for a prompt that encode_prompt refuses, ValueError for rule parameters
    that do not fit the model.
    """
    prompt_ids = {side: encode_prompt(loaded, prompt, conversation, side) for side in Side}
    # All of them now: a rule that does not fit should end the sweep before the work, not after it.
    integrations = [
        RoutingIntegration(loaded.model, rule, recording=loaded.recording) for rule in rules
    ]
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


def _finished(run: SideRun, cancel: CancelToken) -> Generator[TokenGenerated, None, Answer | None]:
    """The tokens of `run`, and then its answer; None if it was cancelled before it ended."""
    with closing(run):
        while not cancel.is_cancelled:
            token, reason = run.step()
            yield token
            if reason is not None:
                return Answer.of(run.finish(reason).record)
    return None
