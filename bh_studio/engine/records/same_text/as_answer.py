"""What a side made of a text, as if it had written that: for whoever shows or inspects answers."""

from __future__ import annotations

import numpy as np

from bh_studio.engine.records.decisions.router_rows import HeldRows
from bh_studio.engine.records.decisions.token_choices import TokenChoices
from bh_studio.engine.records.same_text.result import SameTextResult
from bh_studio.engine.records.same_text.side_reading import SideReading
from bh_studio.engine.records.session import SideRecord
from bh_studio.engine.records.terms import FinishReason


def as_answer(result: SameTextResult, reading: SideReading) -> SideRecord:
    """The first token as the prompt, for nothing predicts it, and the others as the answer.

    It has no times, and no tokens that could have come instead.
    """
    token_ids, texts = result.token_ids[1:], result.token_texts[1:]
    decision = reading.decision
    logits = None if decision is None else decision.router_logits
    none = np.zeros((len(token_ids), 0))
    before = np.zeros((0, result.model.layers), np.uint8)
    return SideRecord(
        prompt_token_ids=result.token_ids[:1],
        text="".join(texts),
        token_ids=token_ids,
        token_texts=texts,
        expert_counts=reading.counts.astype(np.uint8),
        raw_counts=reading.raw_counts.astype(np.uint8),
        prompt_expert_counts=before,
        prompt_raw_counts=before,
        token_seconds=np.zeros(0),
        finish_reason=FinishReason.END_OF_TEXT,
        routed_experts=None if decision is None else decision.experts,
        choices=TokenChoices(
            reading.log_probabilities.astype(np.float32),
            reading.ranks.astype(np.int32),
            none.astype(np.int32),
            none.astype(np.float32),
        ),
        router_logits=None if logits is None else HeldRows(logits),
        drift=reading.drift,
    )
