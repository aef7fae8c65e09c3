"""The sides that answer a prompt: how each routes, what each reads, and whose turn it is.

Knows no definition and no session.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence

from bh_studio.engine.decoding.side import Watch
from bh_studio.engine.errors import CancelToken
from bh_studio.engine.experiments.prompt import encode_prompt
from bh_studio.engine.experiments.side_run import SideRun
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.protocol.events import Notice, PromptRead, SideFinished, TokenGenerated
from bh_studio.engine.records.session import SideRecord
from bh_studio.engine.records.terms import Conversation, FinishReason, GenerationParameters, Keep
from bh_studio.engine.rules.parameters import RuleParameters

Routings = tuple[RoutingIntegration | None, ...]


def routings_of(loaded: LoadedModel, sides: Iterable[RuleParameters | None]) -> Routings:
    """The routing of each side; None for the model's own.

    Raises ValueError for rules that do not fit the model.
    """
    return tuple(
        None if rule is None else RoutingIntegration(loaded.model, rule, recording=loaded.recording)
        for rule in sides
    )


def shortages(routings: Iterable[RoutingIntegration | None]) -> Iterator[Notice]:
    """What has to be said of nulls that are too small for their level."""
    for routing in routings:
        if routing is not None and (shortage := routing.rule.shortage()) is not None:
            yield Notice(shortage)


def prompt_ids_of(
    loaded: LoadedModel, prompt: str, conversation: Conversation | None, sides: int
) -> list[list[int]]:
    """The tokens that each of `sides` reads. Raises EngineError as encode_prompt does."""
    return [encode_prompt(loaded, prompt, conversation, side) for side in range(sides)]


def answer_in_turns(
    loaded: LoadedModel,
    prompt_ids: Sequence[list[int]],
    routings: Routings,
    generation: GenerationParameters,
    cancel: CancelToken,
    keep: Keep | None = None,
    watches: Sequence[Watch | None] = (),
) -> Generator[PromptRead | TokenGenerated | SideFinished, None, tuple[SideRecord, ...]]:
    """What the sides say; their records, which a stop ends where they are.

    prompt_ids, routings: of each side. keep: what is kept of each position beside the counts; None
    for nothing. watches: of each side, what is given its logits; or none.
    """
    runs = [
        SideRun(loaded, ids, generation, side, routing, keep, watch)
        for side, (ids, routing, watch) in enumerate(
            zip(prompt_ids, routings, watches or [None] * len(routings), strict=True)
        )
    ]
    records: dict[int, SideRecord] = {}
    # Sides that fail, or that nobody listens to any longer, give their buffers back too.
    try:
        while len(records) < len(runs):
            for side, run in enumerate(runs):
                if side in records:
                    continue
                if cancel.is_cancelled:
                    reason: FinishReason | None = FinishReason.STOPPED
                else:
                    token, reason = run.step()
                    if token.index == 0:
                        yield run.prompt_read()
                    yield token
                if reason is not None:
                    finished = run.finish(reason)
                    records[side] = finished.record
                    yield finished
    finally:
        for run in runs:
            run.close()
    return tuple(records[side] for side in range(len(runs)))
