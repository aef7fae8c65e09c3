"""Comparisons that are proved, run to their end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bh_studio.engine.errors import CancelToken
from bh_studio.engine.experiments.runner import run
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import Activity, Finished
from bh_studio.engine.protocol.experiments import Comparison
from bh_studio.engine.records.proofs.proof import Check, Proof
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules.text import parse_rule

TOKENS = 10


def comparison(
    *rules: str, own: bool = True, generation: GenerationParameters | None = None
) -> Comparison:
    """One that is proved: of the model's own routing, if that is wanted, and these rules."""
    return Comparison(
        prompt="Once upon a time",
        prove=True,
        sides=(*[None] * own, *map(parse_rule, rules)),
        generation=generation or GenerationParameters(TOKENS, sampling=False),
    )


def finished(
    loaded: LoadedModel,
    definition: Comparison,
    told: Callable[[str], object] = lambda name: None,
    cancel: CancelToken | None = None,
) -> Finished:
    """The end of `definition`. told: called with the name of each check before it begins."""
    for event in run(loaded, definition, cancel=cancel):
        if isinstance(event, Activity):
            told(event.text.removeprefix("Proof: "))
    assert isinstance(event, Finished)
    return event


def proof_of(
    loaded: LoadedModel,
    definition: Comparison,
    told: Callable[[str], object] = lambda name: None,
) -> Proof:
    """What was checked of `definition`."""
    session: Session = finished(loaded, definition, told).document
    assert session.proof is not None
    return session.proof


def problems(checks: Sequence[Check]) -> dict[str, str]:
    """What is wrong, by name of the check."""
    return {check.name: check.problem for check in checks if check.problem}
