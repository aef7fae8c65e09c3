"""Session documents on disk: `.bhsession` files and exported statistics.

A `.bhsession` file is a zip with `session.json` (readable by people and scripts), `arrays.npz`
(counts, times, experts and probabilities at full width, no pickle) and, for each side whose router
logits are kept, `N_router_logits.f32`: (position, layer, expert) in little-endian float32, stored
so that a position is read where it lies. Files come from anyone: sizes are checked before anything
is unpacked, and only those members are read.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bh_studio.engine.errors import DAMAGE, damage
from bh_studio.engine.files.arrays import Archive, ArchiveError, NotAnArchiveError
from bh_studio.engine.files.atomic import written_atomically
from bh_studio.engine.files.plain_json import check_encodable, convert, parsed
from bh_studio.engine.records.decisions.drift import Drift
from bh_studio.engine.records.decisions.router_rows import (
    RouterRows,
    StoredRows,
    packed,
    rows_bytes,
    rows_name,
)
from bh_studio.engine.records.decisions.token_choices import ALTERNATIVES, TokenChoices
from bh_studio.engine.records.proofs.proof import Proof
from bh_studio.engine.records.session import (
    SCHEMA_VERSION,
    SUFFIX,
    Session,
    SessionError,
    SideRecord,
)
from bh_studio.engine.records.sessions.checks import (
    check_answered,
    check_layers,
    check_length,
    check_ranges,
    check_record,
    prompt_rows,
    read_positions,
)
from bh_studio.engine.records.sessions.exports import (
    document_text,
    export_csv,
    export_json,
    export_routed_experts,
)
from bh_studio.engine.records.sessions.versions import array_name, upgraded
from bh_studio.engine.records.terms import (
    Conversation,
    FinishReason,
    GenerationParameters,
    Keep,
    ModelInfo,
)
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.sides import check_number, side_letter

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


_CHOICE_TYPES: dict[str, type[np.generic]] = {
    "log_probabilities": np.float32,
    "ranks": np.int32,
    "top_ids": np.int32,
    "top_log_probabilities": np.float32,
}


def save_session(session: Session, path: Path) -> None:
    """Write `session` to `path` at once or not at all. Raises OSError if the disk refuses."""
    arrays = {
        f"{side}_{name}": getattr(record, name)
        for side, record in enumerate(session.records)
        for name in _ARRAY_TYPES
    }
    for side, record in enumerate(session.records):
        if record.routed_experts is not None:
            arrays[f"{side}_routed_experts"] = record.routed_experts
        if record.choices is not None:
            for name in _CHOICE_TYPES:
                arrays[f"{side}_{name}"] = getattr(record.choices, name)
    archive = io.BytesIO()
    np.savez_compressed(archive, **arrays)
    document = document_text(session)

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
            bundle.writestr(_JSON_MEMBER, document)
            bundle.writestr(_ARRAYS_MEMBER, archive.getvalue())
            for side, record in enumerate(session.records):
                if record.router_logits is not None:
                    # What its header has to hold follows from the size.
                    info = zipfile.ZipInfo(rows_name(side))
                    info.file_size = rows_bytes(record.router_logits.shape)
                    with bundle.open(info, "w") as member:
                        for piece in packed(record.router_logits):
                            member.write(piece)

    written_atomically(path, write)


def load_session(path: Path) -> Session:
    """Read a `.bhsession` file.

    Raises SessionError with a sentence that says what is wrong, OSError if it cannot be opened.
    """
    try:
        with Archive(path) as bundle:
            if _JSON_MEMBER not in bundle.sizes:
                raise SessionError(
                    f"{path.name} is not a BH Studio session: it holds no {_JSON_MEMBER}."
                )
            document = _document(bundle.member(_JSON_MEMBER, _MAX_MEMBER_BYTES), path.name)
            content = bundle.member(_ARRAYS_MEMBER, _most_packed(document))
            logits = _router_logits(path, bundle, document)
    except NotAnArchiveError:
        raise SessionError(f"{path.name} is not a BH Studio session (not a zip file).") from None
    except SessionError:
        raise
    except DAMAGE as error:
        raise SessionError(f"{path.name} is damaged: {damage(error)}") from error
    try:
        with Archive(content) as arrays:
            return _session_from(document, arrays, logits)
    except DAMAGE as error:
        raise SessionError(f"{path.name} is damaged: {damage(error)}") from error


# By the ending that is usual for each.
SESSION_WRITERS: dict[str, Callable[[Session, Path], None]] = {
    SUFFIX: save_session,
    ".json": export_json,
    ".csv": export_csv,
    ".npz": export_routed_experts,
}


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
    experts = convert(int, document["model"]["experts"], "model.experts")
    # Two counts and the experts of each layer, a time, and what is said of the choice of a token.
    return _ROOM + 2 * tokens * (layers * (2 + experts) + 8 + 8 * (1 + ALTERNATIVES))


def _router_logits(
    path: Path, bundle: Archive, document: dict[str, Any]
) -> tuple[RouterRows | None, ...]:
    """The router logits of each side, of which nothing is read yet.

    Raises what is in DAMAGE for a document that is damaged, OSError.
    """
    layers, experts = (
        convert(int, document["model"][name], f"model.{name}") for name in ("layers", "experts")
    )
    return tuple(
        _stored_logits(path, bundle, side, (_positions(said), layers, experts))
        if _keeps(said) is Keep.LOGITS
        else None
        for side, said in enumerate(document["sides"])
    )


def _stored_logits(
    path: Path, bundle: Archive, side: int, shape: tuple[int, int, int]
) -> RouterRows:
    offset = bundle.place(rows_name(side), rows_bytes(shape))
    return StoredRows(path, offset, shape)


def _keeps(said: dict[str, Any]) -> Keep | None:
    """What a side has beside the counts. Raises ValueError for what none has."""
    keeps = said.get("keeps")
    return None if keeps is None else convert(Keep, keeps, "keeps")


def _positions(said: dict[str, Any]) -> int:
    """How many positions a side has read."""
    return read_positions(len(said["prompt_token_ids"]), len(said["token_ids"]))


def _session_from(
    document: dict[str, Any], arrays: Archive, logits: tuple[RouterRows | None, ...]
) -> Session:
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
    # Sessions of which nothing was checked need not say so.
    checked = document.get("proof")
    return Session(
        model=model,
        sides=sides,
        generation=generation,
        prompt=_text(document["prompt"]),
        conversation=conversation,
        records=tuple(
            _side_from(document, arrays, side, model, logits[side]) for side in range(len(sides))
        ),
        environment=convert(dict[str, Any], document["environment"], "environment"),
        started_at=_text(document["started_at"]),
        finished_at=_text(document["finished_at"]),
        proof=None if checked is None else convert(Proof, checked, "proof"),
    )


def _text(value: object) -> str:
    """A JSON string that can be written again. Raises ValueError for anything else."""
    if not isinstance(value, str):
        raise ValueError(f"a text is {value!r}.")
    value.encode()
    return value


def _side_from(
    document: dict[str, Any],
    arrays: Archive,
    side: int,
    model: ModelInfo,
    logits: RouterRows | None,
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
        **(_decided(arrays, side, model) if _keeps(said) is not None else {}),
        router_logits=logits,
        # Sides of earlier versions, and those without router logits, say nothing of it.
        drift=None if said.get("drift") is None else Drift.from_json(said["drift"]),
    )
    check_record(record, called, model)
    return record


def _decided(arrays: Archive, side: int, model: ModelInfo) -> dict[str, Any]:
    """What a side has beside the counts in its arrays, by the names of SideRecord."""

    def check_experts(shape: tuple[int, ...]) -> None:
        # The others follow from what was read, and are checked with the record.
        if len(shape) != 3 or shape[2] > model.experts:
            raise ArchiveError(f"its experts are {shape}.")

    def check_choices(shape: tuple[int, ...]) -> None:
        if len(shape) > 2 or (len(shape) == 2 and shape[1] > ALTERNATIVES):
            raise ArchiveError(f"its choices are {shape}.")

    experts = arrays.array(f"{side}_routed_experts", (np.uint8,), check_experts)
    choices = {
        name: arrays.array(f"{side}_{name}", (dtype,), check_choices)
        for name, dtype in _CHOICE_TYPES.items()
    }
    return {"routed_experts": experts, "choices": TokenChoices(**choices)}
