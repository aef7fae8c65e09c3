"""Whether the experts that really run are as many as the session reports."""

from __future__ import annotations

import numpy as np

from bh_studio.engine.errors import CancelToken
from bh_studio.engine.experiments.proof.fingerprints import first_difference
from bh_studio.engine.experiments.proof.reading import WatchedReading, place, read_watched
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.records.proofs.proof import Check
from bh_studio.engine.records.session import SideRecord
from bh_studio.engine.rules.parameters import Mode
from bh_studio.engine.rules.sides import side_letter
from bh_studio.engine.units import counted


def name_of(side: int) -> str:
    """The name of the check of one side."""
    return f"experts of {side_letter(side)}"


def check_experts(
    loaded: LoadedModel,
    routing: RoutingIntegration | None,
    side: int,
    record: SideRecord,
    prints: np.ndarray,
    cancel: CancelToken,
) -> Check:
    """Read again what a side has read, and look at the experts meanwhile.

    prints: (token,) fingerprints of the logits that its tokens were chosen from: where they are the
    same, what is looked at is what has answered. Raises Cancelled.
    """
    prompt_ids, token_ids = record.prompt_token_ids, record.token_ids
    reading = read_watched(loaded, routing, prompt_ids, token_ids, cancel)
    is_analyze = routing is not None and routing.parameters.mode is Mode.ANALYZE
    if not reading.is_own:
        expected, of = reading.reported, "that pass, for how it was answered cannot be watched"
    elif is_analyze:
        expected = np.full_like(reading.counts, loaded.shape.top_k)
        of = "the model's own routing, which answered (analyze)"
    else:
        expected = np.concatenate([record.prompt_expert_counts, record.expert_counts])
        of = "the session"
    problem = _experts_problem(reading, expected, len(prompt_ids), of)
    numbers = reading.counts.size + reading.prompt_rows.size
    if reading.is_own:
        numbers += len(token_ids) * loaded.model.config.vocab_size
        problem = problem or _logits_problem(reading.prints, prints)
    return Check(
        name_of(side),
        passed=not problem,
        compared=f"experts that ran while the same tokens were read again by {reading.path} with "
        f"the counts of {of}" + ("; bits of the logits with the answer's" * reading.is_own),
        positions=len(reading.counts),
        layers=loaded.shape.layers,
        numbers=numbers,
        problem=problem,
    )


def _experts_problem(
    reading: WatchedReading, expected: np.ndarray, prompt_tokens: int, of: str
) -> str:
    position = first_difference(reading.counts, expected)
    if position is not None:
        layer = int((reading.counts[position] != expected[position]).argmax())
        ran, said = int(reading.counts[position, layer]), int(expected[position, layer])
        return (
            f"At {place(position, prompt_tokens)}, in layer {layer}, {counted(ran, 'expert')} ran "
            f"and not {said}."
        )
    prompt = reading.counts[:prompt_tokens].sum(0)
    layer_found = first_difference(reading.prompt_rows, prompt)
    if layer_found is not None:
        return (
            f"In layer {layer_found} the experts computed {reading.prompt_rows[layer_found]} rows "
            f"for the prompt and not {prompt[layer_found]}."
        )
    return ""


def _logits_problem(prints: np.ndarray, answered: np.ndarray) -> str:
    token = first_difference(prints, answered)
    if token is None:
        return ""
    return (
        f"The logits of token {token} are not those of the answer, so what was watched may not be "
        "what has answered."
    )
