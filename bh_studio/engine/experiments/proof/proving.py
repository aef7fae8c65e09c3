"""The checks of one comparison, one after another, and the proof that they make. Knows no file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from functools import partial

from bh_studio.engine.errors import Cancelled, CancelToken, reason
from bh_studio.engine.experiments.proof.experts_run import check_experts, name_of
from bh_studio.engine.experiments.proof.fingerprints import PrintedLogits
from bh_studio.engine.experiments.proof.identity import (
    IN_ONE_PASS,
    IN_STEPS,
    check_one_pass,
    check_steps,
)
from bh_studio.engine.experiments.proof.model_state import NAME as RESTORED
from bh_studio.engine.experiments.proof.model_state import ModelState
from bh_studio.engine.experiments.proof.repeat import NAME as REPEAT
from bh_studio.engine.experiments.proof.repeat import check_repeat
from bh_studio.engine.experiments.sides import Routings
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import Activity
from bh_studio.engine.records.proofs.proof import Check, Proof
from bh_studio.engine.records.session import SideRecord
from bh_studio.engine.records.terms import GenerationParameters

log = logging.getLogger(__name__)

_Check = Callable[[CancelToken], Check]


class Proving:
    """What is to be checked of a comparison.

    Made before its sides answer: the model as it is then is what it has to be afterwards.
    watches: for each side, what has to be called with the logits of each of its tokens.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        prompt_ids: Sequence[Sequence[int]],
        routings: Routings,
        generation: GenerationParameters,
    ) -> None:
        self._loaded, self._routings, self._generation = loaded, routings, generation
        self.watches = tuple(PrintedLogits() for _ in routings)
        self._before = ModelState(loaded, prompt_ids[0])
        self._checks: list[Check] = []

    @property
    def proof(self) -> Proof | None:
        """What is known by now; None if that is nothing."""
        return Proof(tuple(self._checks)) if self._checks else None

    def checks(
        self, records: Sequence[SideRecord], cancel: CancelToken
    ) -> Generator[Activity, None, None]:
        """Make one check after another, each told before it begins.

        records: what the sides have answered, each to its end. A check that an error ends is part
        of the proof, and the others go on. Raises Cancelled.
        """
        for name, check in self._all(records):
            yield Activity(f"Proof: {name}")
            try:
                self._checks.append(check(cancel))
            except Cancelled:
                self._checks.append(_unfinished(name, "It was stopped."))
                raise
            except Exception as error:
                log.info("The check %r broke off", name, exc_info=error)
                self._checks.append(_unfinished(name, f"It broke off: {reason(error)}"))

    def _all(self, records: Sequence[SideRecord]) -> list[tuple[str, _Check]]:
        loaded, routings = self._loaded, self._routings
        prints = [w.of(len(r.token_ids)) for w, r in zip(self.watches, records, strict=True)]
        first = records[0]
        experts = [
            (name_of(side), partial(check_experts, loaded, *what))
            for side, what in enumerate(
                zip(routings, range(len(records)), records, prints, strict=True)
            )
        ]
        read = first.prompt_token_ids, first.token_ids
        # What the model's own routing has answered need not be read by it once more.
        known = prints[0] if routings[0] is None else None
        return [
            (
                REPEAT,
                partial(check_repeat, loaded, routings[0], self._generation, first, prints[0]),
            ),
            *experts,
            (IN_ONE_PASS, lambda cancel: _at_once(cancel, partial(check_one_pass, loaded, *read))),
            (IN_STEPS, partial(check_steps, loaded, *read, known)),
            (RESTORED, lambda cancel: _at_once(cancel, self._before.check)),
        ]


def _at_once(cancel: CancelToken, check: Callable[[], Check]) -> Check:
    """Make a `check` that is one pass of the model or two. Raises Cancelled before it."""
    if cancel.is_cancelled:
        raise Cancelled
    return check()


def _unfinished(name: str, problem: str) -> Check:
    return Check(name, None, "", positions=0, layers=0, numbers=0, problem=problem)
