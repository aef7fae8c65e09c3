"""Sessions of a real model with the router logits of every position, seen from outside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bh_studio.engine.experiments.runner import run
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.moe.routers import find_routers
from bh_studio.engine.protocol.events import Finished
from bh_studio.engine.protocol.experiments import Comparison
from bh_studio.engine.records.decisions.router_rows import HeldRows
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules.parameters import RuleParameters


def recorded_session(
    loaded: LoadedModel,
    sides: Sequence[RuleParameters | None],
    prompt: str = "Once upon a time",
    tokens: int = 12,
) -> Session:
    """What the sides answer, each with the logits that its routers gave."""
    alone = [_recorded(loaded, side, prompt, tokens) for side in sides]
    records = tuple(session.records[0] for session in alone)
    return replace(alone[0], sides=tuple(sides), records=records)


def _recorded(
    loaded: LoadedModel, side: RuleParameters | None, prompt: str, tokens: int
) -> Session:
    generation = GenerationParameters(tokens, sampling=False)
    definition = Comparison(prompt=prompt, sides=(side,), generation=generation)
    with _watched(loaded) as kept:
        *_, last = run(loaded, definition)
    assert isinstance(last, Finished)
    session: Session = last.document
    (record,) = session.records
    logits = torch.stack([torch.cat(of_layer) for of_layer in kept], dim=1).float().numpy()
    assert len(logits) == len(record.prompt_token_ids) + len(record.token_ids) - 1
    return replace(session, records=(replace(record, router_logits=HeldRows(logits)),))


@contextmanager
def _watched(loaded: LoadedModel) -> Iterator[list[list[Tensor]]]:
    """The logits of each layer, in the order in which positions are read."""
    routers = find_routers(loaded.model)
    kept: list[list[Tensor]] = [[] for _ in routers]
    hooks = [
        router.register_forward_hook(
            lambda _module, _inputs, outputs, seen=seen: seen.append(outputs[0].clone())
        )
        for router, seen in zip(routers, kept, strict=True)
    ]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


def positions(session: Session, side: int) -> np.ndarray:
    """(position, layer) the counts that a side recorded, in the order of its logits."""
    record = session.records[side]
    return np.concatenate([record.prompt_expert_counts, record.expert_counts])
