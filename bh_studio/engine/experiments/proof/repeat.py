"""Whether an answer comes out the same when it is asked for again."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bh_studio.engine.errors import Cancelled, CancelToken
from bh_studio.engine.experiments.proof.fingerprints import PrintedLogits, first_difference
from bh_studio.engine.experiments.sides import answer_in_turns
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.records.proofs.proof import Check
from bh_studio.engine.records.session import SideRecord
from bh_studio.engine.records.terms import FinishReason, GenerationParameters
from bh_studio.engine.steps import result_of_steps
from bh_studio.engine.units import counted

NAME = "repeat"


class _Difference(NamedTuple):
    """The first token that is not the same, and what of it; token None: already the prompt is."""

    token: int | None
    what: str


def check_repeat(
    loaded: LoadedModel,
    routing: RoutingIntegration | None,
    generation: GenerationParameters,
    record: SideRecord,
    prints: np.ndarray,
    cancel: CancelToken,
) -> Check:
    """Have the first side answer again what `record` has of it.

    prints: (token,) fingerprints of the logits that its tokens were chosen from. Raises Cancelled.
    """
    logits = PrintedLogits()
    steps = answer_in_turns(
        loaded,
        [list(record.prompt_token_ids)],
        (routing,),
        generation,
        cancel,
        watches=[logits],
    )
    (again,) = result_of_steps(steps)
    if again.finish_reason is FinishReason.STOPPED:
        raise Cancelled
    found = _first_difference(record, prints, again, logits.of(len(again.token_ids)))
    tokens, vocabulary = len(record.token_ids), loaded.model.config.vocab_size
    counts = record.expert_counts.size + record.prompt_expert_counts.size
    return Check(
        NAME,
        passed=found is None,
        compared=f"A's answer, {counted(tokens, 'token')}, with another of A to the same prompt: "
        "tokens, counts before and after the limits, bits of the logits",
        positions=len(record.prompt_token_ids) + tokens - 1,
        layers=loaded.shape.layers,
        numbers=tokens + 2 * counts + tokens * vocabulary,
        problem="" if found is None else _sentence(found),
    )


def _first_difference(
    one: SideRecord, prints: np.ndarray, other: SideRecord, other_prints: np.ndarray
) -> _Difference | None:
    for pair in (
        (one.prompt_expert_counts, other.prompt_expert_counts),
        (one.prompt_raw_counts, other.prompt_raw_counts),
    ):
        position = first_difference(*pair)
        if position is not None:
            return _Difference(None, f"the experts of position {position} of the prompt")
    compared = {
        "its experts": first_difference(one.expert_counts, other.expert_counts),
        "its experts before the limits": first_difference(one.raw_counts, other.raw_counts),
        "the bits of its logits": first_difference(prints, other_prints),
        "the token itself": first_difference(np.array(one.token_ids), np.array(other.token_ids)),
    }
    found = {what: token for what, token in compared.items() if token is not None}
    if not found:
        return None
    first = min(found.values())
    return _Difference(first, ", ".join(what for what, token in found.items() if token == first))


def _sentence(found: _Difference) -> str:
    if found.token is None:
        return (
            f"The second answer differs already in {found.what}: any difference between the sides "
            "may be noise of this machine."
        )
    return (
        f"The second answer first differs at token {found.token}, in {found.what}: differences "
        f"between the sides at or after token {found.token} may be noise of this machine."
    )
