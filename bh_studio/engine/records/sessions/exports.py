"""What a session is exported as, for other programs: JSON, CSV, and routed experts as arrays."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bh_studio.engine.files.atomic import write_atomically, written_atomically
from bh_studio.engine.records.decisions.routed_experts import NO_EXPERT, for_vllm
from bh_studio.engine.records.session import Session, SessionError, SideRecord
from bh_studio.engine.rules.sides import side_letter
from bh_studio.engine.rules.text import format_rule

_COLUMNS = (
    "side", "rule", "token", "token_id", "layer", "experts", "experts_before_clamp", "expert_ids",
    "log_probability", "rank",
)  # fmt: skip


def document_text(session: Session) -> str:
    """The document, statistics included, as JSON for people and scripts."""
    return json.dumps(session.to_json(), ensure_ascii=False, indent=1, allow_nan=False)


def export_json(session: Session, path: Path) -> None:
    """Write the document as one JSON file."""
    write_atomically(path, document_text(session).encode())


def export_csv(session: Session, path: Path) -> None:
    """Write one row a side, token and layer: counts, the experts that ran, and how probable the
    token was; the last three are empty where they were not kept."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    for side, (rule, record) in enumerate(zip(session.sides, session.records, strict=True)):
        named = [side_letter(side), rule and format_rule(rule)]
        for row in _rows(record):
            writer.writerow([*named, *row])
    write_atomically(path, text.getvalue().encode())


def _rows(record: SideRecord) -> Iterator[list[object]]:
    experts, choices = record.routed_experts, record.choices
    first = len(record.prompt_token_ids) - 1
    for token, token_id in enumerate(record.token_ids):
        said: list[object] = ["", ""]
        if choices is not None:
            said = [float(choices.log_probabilities[token]), int(choices.ranks[token])]
        for layer, count in enumerate(record.expert_counts[token]):
            ran = "" if experts is None else _ids(experts[first + token, layer])
            raw = record.raw_counts[token, layer]
            yield [token, token_id, layer, int(count), int(raw), ran, *said]


def _ids(slots: np.ndarray) -> str:
    return " ".join(str(expert) for expert in slots if expert != NO_EXPERT)


def export_routed_experts(session: Session, path: Path) -> None:
    """Write the experts that ran as an .npz file, in the shape in which vLLM returns them.

    For each side, A to D: A_routed_experts, (token, layer, top_k) int32, of every token that was
    read, the prompt first, -1 where fewer ran; and A_token_ids, (token,) int64, those tokens.

    Raises SessionError for a session that does not hold them.
    """
    arrays: dict[str, Any] = {}
    for side, record in enumerate(session.records):
        if record.routed_experts is None:
            continue
        token_ids = np.array((*record.prompt_token_ids, *record.token_ids), np.int64)
        arrays[f"{side_letter(side)}_routed_experts"] = for_vllm(record.routed_experts)
        arrays[f"{side_letter(side)}_token_ids"] = token_ids[: len(record.routed_experts)]
    if not arrays:
        raise SessionError("This session does not hold which experts ran; run it again.")
    written_atomically(path, lambda file: np.savez_compressed(file, **arrays))
