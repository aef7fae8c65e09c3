"""What sides made of a text, without a model: for tests of whoever shows, writes and reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from bh_studio.engine.protocol.experiments import SameText
from bh_studio.engine.protocol.texts import Text
from bh_studio.engine.records.journal import Journal
from bh_studio.engine.records.result_document import result_document
from bh_studio.engine.records.same_text.result import SameTextResult, side_key
from bh_studio.engine.records.same_text.side_reading import SideReading
from bh_studio.engine.records.terms import ModelInfo
from bh_studio.engine.rules import RuleParameters


def text_result(
    model: ModelInfo,
    definition: SameText,
    words: Sequence[str] | None = None,
    read: int | None = None,
) -> SameTextResult:
    """A result of `definition`, whose text falls into `words`; `read`: sides that came to it."""
    if words is None:
        first, *rest = definition.text.content.split(" ")
        words = [first, *(f" {word}" for word in rest)]
    sides = definition.sides if read is None else definition.sides[:read]
    return SameTextResult(
        model=model,
        text_name=definition.text.name,
        text_sha256=definition.text.sha256,
        token_ids=tuple(sum(word.encode()) for word in words),
        token_texts=tuple(words),
        sides=definition.sides,
        readings=tuple(_reading(model, side, rule, len(words)) for side, rule in enumerate(sides)),
        is_complete=len(sides) == len(definition.sides),
        environment={"python": "3.11"},
    )


def _reading(model: ModelInfo, side: int, rule: RuleParameters | None, words: int) -> SideReading:
    """Token i of the answer, from 0: log p -(1 + i + side), rank 1 + side, KL side * (1 + i)."""
    positions = np.arange(words - 1)
    counts = np.full((words - 1, model.layers), 8 - side, np.int64)
    return SideReading(
        rule=rule,
        log_probabilities=-(1.0 + positions + side) / 8,
        ranks=np.full(words - 1, 1 + side, np.int64),
        kl=side * (1.0 + positions) / 16,
        counts=counts,
        raw_counts=counts + (positions % 2)[:, None],
    )


def begin_journal(
    journal: Journal, model: ModelInfo, definition: SameText, result: SameTextResult
) -> None:
    """Let `journal` hold the rows of `result`."""
    journal.begin(
        {
            "schema_version": 1,
            "kind": "same-text",
            "settings": definition.settings(),
            "model": asdict(model),
            "computation": {},
            "environment": {"python": "3.11"},
            "started_at": "2025-01-02T03:04:05.000+00:00",
        }
    )
    for side, reading in enumerate(result.readings):
        journal.add(side_key(side), reading.to_json())


def text_document(
    model: ModelInfo, sides: Sequence[RuleParameters | None], content: str
) -> tuple[SameTextResult, dict[str, Any]]:
    """A result and its whole document."""
    definition = SameText(text=Text("tale.txt", content), sides=tuple(sides))
    result = text_result(model, definition)
    journal = Journal(None)
    begin_journal(journal, model, definition, result)
    return result, result_document(journal, result)
