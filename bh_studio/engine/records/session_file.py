"""Session documents on disk: `.bhsession` files and exported statistics.

A `.bhsession` file is a zip with `session.json` (readable by people and scripts) and `arrays.npz`
(counts and times at full width, no pickle). Files come from anyone: sizes are checked before
anything is unpacked, and only those two members are read.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bh_studio.engine.errors import DAMAGE, damage
from bh_studio.engine.files.arrays import (
    Archive,
    MissingMemberError,
    NotAnArchiveError,
)
from bh_studio.engine.files.atomic import write_atomically
from bh_studio.engine.files.plain_json import check_encodable, convert, parsed
from bh_studio.engine.records.session import (
    SCHEMA_VERSION,
    SUFFIX,
    Session,
    SessionError,
    SideRecord,
)
from bh_studio.engine.records.session_checks import (
    check_answered,
    check_layers,
    check_length,
    check_ranges,
    check_record,
    prompt_rows,
)
from bh_studio.engine.records.session_versions import array_name, upgraded
from bh_studio.engine.records.terms import (
    Conversation,
    FinishReason,
    GenerationParameters,
    ModelInfo,
)
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.sides import check_number, side_letter
from bh_studio.engine.rules.text import format_rule

_JSON_MEMBER = "session.json"
_ARRAYS_MEMBER = "arrays.npz"
# The ids and texts of a million tokens; read, JSON can take twenty times as much. Those of earlier
# versions had counts too, so that it is 400,000 tokens of 16 layers.
_MAX_MEMBER_BYTES = 64 * 2**20
# For the names, headers and directory of the arrays, and what other programs pack beside them.
_ROOM = 2**20
_ARRAY_TYPES: dict[str, type[np.generic]] = {
    "expert_counts": np.uint8,
    "raw_counts": np.uint8,
    "prompt_expert_counts": np.uint8,
    "prompt_raw_counts": np.uint8,
    "token_seconds": np.float64,
}


def save_session(session: Session, path: Path) -> None:
    """Write `session` to `path` at once or not at all. Raises OSError if the disk refuses."""
    arrays = {
        f"{side}_{name}": getattr(record, name)
        for side, record in enumerate(session.records)
        for name in _ARRAY_TYPES
    }
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr(_JSON_MEMBER, _dump_json(session.to_json()))
        bundle.writestr(_ARRAYS_MEMBER, packed.getvalue())
    write_atomically(path, archive.getvalue())


def load_session(path: Path) -> Session:
    """Read a `.bhsession` file.

    Raises SessionError with a sentence that says what is wrong, OSError if it cannot be opened.
    """
    try:
        with Archive(path) as bundle:
            document = _document(bundle.member(_JSON_MEMBER, _MAX_MEMBER_BYTES), path.name)
            packed = bundle.member(_ARRAYS_MEMBER, _most_packed(document))
    except NotAnArchiveError:
        raise SessionError(f"{path.name} is not a BH Studio session (not a zip file).") from None
    except MissingMemberError as error:
        raise SessionError(f"This is not a BH Studio session: {error}") from None
    except SessionError:
        raise
    except DAMAGE as error:
        raise SessionError(f"{path.name} is damaged: {damage(error)}") from error
    try:
        with Archive(packed) as arrays:
            return _session_from(document, arrays)
    except DAMAGE as error:
        raise SessionError(f"{path.name} is damaged: {damage(error)}") from error


def export_json(session: Session, path: Path) -> None:
    """Write the document, statistics included, as one JSON file."""
    write_atomically(path, _dump_json(session.to_json()).encode())


def export_csv(session: Session, path: Path) -> None:
    """Write one row a side, token and layer: side, its rule, token, token_id, layer, counts."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    columns = ("side", "rule", "token", "token_id", "layer", "experts", "experts_before_clamp")
    writer.writerow(columns)
    for side, (rule, record) in enumerate(zip(session.sides, session.records, strict=True)):
        named = [side_letter(side), rule and format_rule(rule)]
        for token, token_id in enumerate(record.token_ids):
            for layer, count in enumerate(record.expert_counts[token]):
                raw = record.raw_counts[token, layer]
                writer.writerow([*named, token, token_id, layer, int(count), int(raw)])
    write_atomically(path, text.getvalue().encode())


# By the ending that is usual for each.
SESSION_WRITERS: dict[str, Callable[[Session, Path], None]] = {
    SUFFIX: save_session,
    ".json": export_json,
    ".csv": export_csv,
}


def _dump_json(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False)


def _document(text: bytes, name: str) -> dict[str, Any]:
    """What session.json says, under the names of today. Raises SessionError, and what is in DAMAGE
    for one that is damaged."""
    document = parsed(text, f"its {_JSON_MEMBER}")
    # What is opened can be saved again.
    check_encodable(document, f"its {_JSON_MEMBER}")
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version not in range(1, SCHEMA_VERSION + 1):
        raise SessionError(
            f"{name} has schema version {version!r}; this program reads 1 to {SCHEMA_VERSION}."
        )
    return upgraded(document)


def _most_packed(document: dict[str, Any]) -> int:
    """The most bytes that the arrays can take of which `document` speaks, however they are packed.

    Raises what is in DAMAGE for a document that is damaged.
    """
    layers = convert(int, document["model"]["layers"], "model.layers")
    check_layers(layers)
    sides = document["sides"]
    check_number(len(sides))
    tokens = sum(len(side[name]) for side in sides for name in ("prompt_token_ids", "token_ids"))
    # Two counts in each layer, and a time.
    return _ROOM + 2 * tokens * (2 * layers + 8)


def _session_from(document: dict[str, Any], arrays: Archive) -> Session:
    model = convert(ModelInfo, document["model"], "model")
    rules = [side["rule"] for side in document["sides"]]
    sides = tuple(
        None if rule is None else convert(RuleParameters, rule, f"sides[{side}].rule")
        for side, rule in enumerate(rules)
    )
    generation = convert(GenerationParameters, document["generation"], "generation")
    said = document["conversation"]
    conversation = None if said is None else convert(Conversation, said, "conversation")
    check_ranges(model, generation)
    check_answered(sides, conversation, model)
    return Session(
        model=model,
        sides=sides,
        generation=generation,
        prompt=_text(document["prompt"]),
        conversation=conversation,
        records=tuple(_side_from(document, arrays, side, model) for side in range(len(sides))),
        environment=convert(dict[str, Any], document["environment"], "environment"),
        started_at=_text(document["started_at"]),
        finished_at=_text(document["finished_at"]),
    )


def _text(value: object) -> str:
    """A JSON string that can be written again. Raises ValueError for anything else."""
    if not isinstance(value, str):
        raise ValueError(f"a text is {value!r}.")
    value.encode()
    return value


def _side_from(
    document: dict[str, Any], arrays: Archive, side: int, model: ModelInfo
) -> SideRecord:
    said, called = document["sides"][side], f"side {side_letter(side)}"
    prompt_token_ids, token_ids = (
        convert(tuple[int, ...], said[name], f"sides[{side}].{name}")
        for name in ("prompt_token_ids", "token_ids")
    )
    check_length(len(prompt_token_ids) + len(token_ids), called, model)
    read = prompt_rows(len(prompt_token_ids), len(token_ids))
    shapes = {
        "expert_counts": (len(token_ids), model.layers),
        "raw_counts": (len(token_ids), model.layers),
        "prompt_expert_counts": (read, model.layers),
        "prompt_raw_counts": (read, model.layers),
        "token_seconds": (len(token_ids),),
    }
    columns: dict[str, Any] = {
        name: arrays.array(array_name(document, side, name), (dtype,), shapes[name])
        for name, dtype in _ARRAY_TYPES.items()
    }
    # Earlier versions wrote these twice.
    if "expert_counts" in said and columns["expert_counts"].tolist() != said["expert_counts"]:
        raise ValueError(f"the expert counts of {called} disagree between its two files.")
    record = SideRecord(
        prompt_token_ids=prompt_token_ids,
        text=_text(said["text"]),
        token_ids=token_ids,
        token_texts=convert(tuple[str, ...], said["token_texts"], f"sides[{side}].token_texts"),
        finish_reason=convert(FinishReason, said["finish_reason"], "finish_reason"),
        **columns,
    )
    check_record(record, called, model)
    return record
