"""Reads the folder of a run, one that goes on, has ended or was cut off, and makes a session of it.

Folders come from anyone, as sessions do: sizes are bounded and every number is checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bh_studio.engine.errors import DAMAGE, InputError, damage
from bh_studio.engine.files.bounded import read_bytes, read_last_bytes
from bh_studio.engine.files.plain_json import check_encodable, convert, parsed
from bh_studio.engine.records.decisions.drift import Drift
from bh_studio.engine.records.decisions.router_rows import StoredRows, rows_bytes, rows_name
from bh_studio.engine.records.decisions.token_choices import TokenChoice, TokenChoices
from bh_studio.engine.records.runs.lines import (
    EVENTS,
    FORMAT,
    HEADER,
    EndLine,
    Line,
    NoticeLine,
    PromptLine,
    RunHeader,
    SideLine,
    TokenLine,
)
from bh_studio.engine.records.session import Session, SessionError, SideRecord
from bh_studio.engine.records.session_file import load_session
from bh_studio.engine.records.sessions.checks import (
    check_answered,
    check_ranges,
    check_record,
    read_positions,
)
from bh_studio.engine.records.terms import FinishReason, ModelInfo
from bh_studio.engine.rules.sides import side_letter

_MOST_HEADER_BYTES = 64 * 2**20
# Half a million tokens of four sides.
MOST_EVENT_BYTES = 2**29
# The line that says how a run ended, with the message of an error.
_MOST_END_BYTES = 2**16


def open_session(path: Path) -> Session:
    """The session in a `.bhsession` file, or in the folder of a run.

    Raises SessionError with a sentence that says what is wrong, OSError if it cannot be opened.
    """
    return load_run(path) if path.is_dir() else load_session(path)


def load_run(folder: Path) -> Session:
    """The run in `folder` as a session, as far as it has come.

    A side that did not come to its end has FinishReason.BROKEN_OFF. Raises SessionError with a
    sentence for a folder that holds no run or a damaged one, OSError if it cannot be opened.
    """
    header = read_header(folder)
    model = header.model
    sides = [_Side(ids, model) for ids in header.prompt_token_ids]
    end = None
    try:
        for number, line in enumerate(_lines(folder / EVENTS), start=1):
            try:
                end = _take(_decoded(line), sides)
            except DAMAGE as error:
                raise ValueError(f"line {number} of its {EVENTS}: {damage(error)}") from error
            if end is not None:
                break
        records = tuple(side.record(folder / rows_name(n)) for n, side in enumerate(sides))
        for number, record in enumerate(records):
            check_record(record, f"side {side_letter(number)}", model)
    except DAMAGE as error:
        raise SessionError(f"{folder.name} is damaged: {damage(error)}") from error
    session = header.session(records, end.at if end else changed_at(folder))
    return replace(session, proof=end.proof) if end and end.proof else session


def read_header(folder: Path) -> RunHeader:
    """What was asked in the run in `folder`. Raises SessionError for one that holds no run."""
    if not (folder / HEADER).exists():
        raise SessionError(f"{folder} is no folder of a run: it has no {HEADER}.")
    try:
        data = read_bytes(folder / HEADER, _MOST_HEADER_BYTES, "the header of a run")
    except InputError as error:
        raise SessionError(error.message) from error
    try:
        document = parsed(data, f"its {HEADER}")
        # What is opened can be saved again.
        check_encodable(document, f"its {HEADER}")
        form = document.pop("format", None) if isinstance(document, dict) else None
        if form != FORMAT or isinstance(form, bool):
            raise SessionError(
                f"{folder.name} has format {form!r}; this program reads format {FORMAT}."
            )
        document.pop("kind", None)
        return _checked(convert(RunHeader, document))
    except SessionError:
        raise
    except DAMAGE as error:
        raise SessionError(f"{folder.name} is damaged: {damage(error)}") from error


def read_end(folder: Path) -> EndLine | None:
    """How the run in `folder` has ended; None if nothing says so. Raises OSError."""
    lines = read_last_bytes(folder / EVENTS, _MOST_END_BYTES).split(b"\n")
    try:
        last = _decoded(lines[-2]) if len(lines) > 1 else None
    except ValueError:
        last = None
    return last if isinstance(last, EndLine) else None


def changed_at(folder: Path) -> str:
    """When something was written last about the run in `folder`: ISO 8601. Raises OSError."""
    changed = datetime.fromtimestamp((folder / EVENTS).stat().st_mtime).astimezone()
    return changed.isoformat(timespec="milliseconds")


def _checked(header: RunHeader) -> RunHeader:
    """`header` if a run can have it. Raises ValueError."""
    model = header.model
    check_ranges(model, header.generation)
    check_answered(header.sides, header.conversation, model)
    if len(header.prompt_token_ids) != len(header.sides):
        raise ValueError("its prompt is not that of each side.")
    if any(token < 0 for ids in header.prompt_token_ids for token in ids):
        raise ValueError("its prompt has a token below 0.")
    return header


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of `path`; a last one that was cut short is left out. Raises SessionError."""
    try:
        data = read_bytes(path, MOST_EVENT_BYTES, "a run")
    except InputError as error:
        raise SessionError(error.message) from error
    start = 0
    while (end := data.find(b"\n", start)) >= 0:
        yield data[start:end]
        start = end + 1


def _decoded(line: bytes) -> Line:
    """Raises ValueError for a line that is none."""
    values = parsed(line)
    check_encodable(values)
    made: Any = msgspec.convert(values, Line)
    found: Line = made
    return found


def _take(line: Line, sides: Sequence[_Side]) -> EndLine | None:
    """Have the side that `line` is about take it; the line itself if it ends the run.

    Raises ValueError for one that no run has at this place.
    """
    match line:
        case EndLine():
            return line
        case NoticeLine():
            pass
        case _ if 0 <= line.side < len(sides):
            sides[line.side].take(line)
        case _:
            raise ValueError(f"there is no side {line.side}.")
    return None


class _Side:
    """What one side has said, as little of it as there need be: a run may have a million tokens."""

    def __init__(self, prompt_token_ids: tuple[int, ...], model: ModelInfo) -> None:
        self._prompt_token_ids = prompt_token_ids
        self._model = model
        self._layers = model.layers
        self._token_ids: list[int] = []
        self._texts: list[str] = []
        self._counts, self._raw = bytearray(), bytearray()
        self._prompt_counts, self._prompt_raw = bytearray(), bytearray()
        self._seconds: list[float] = []
        # None for those of a run that does not keep them.
        self._prompt_experts: bytes | None = None
        self._experts: bytearray | None = bytearray()
        self._choices: list[TokenChoice] | None = []
        self._has_prompt = False
        self._reason: FinishReason | None = None
        self._drift: Drift | None = None

    def take(self, line: PromptLine | TokenLine | SideLine) -> None:
        """Add what `line` says. Raises ValueError, LookupError for one that no run has there."""
        is_early = isinstance(line, TokenLine) and not self._has_prompt
        is_second = isinstance(line, PromptLine) and self._has_prompt
        if is_early or is_second or self._reason is not None:
            raise ValueError("it comes where it cannot.")
        match line:
            case PromptLine():
                self._has_prompt = True
                self._prompt_experts = line.experts
                for row in line.prompt_expert_counts:
                    self._prompt_counts += self._row(row)
                for row in line.prompt_raw_counts:
                    self._prompt_raw += self._row(row)
            case TokenLine():
                if line.token_id < 0:
                    raise ValueError("it has a token below 0.")
                self._token_ids.append(line.token_id)
                self._texts.append(line.text)
                self._counts += self._row(line.expert_counts)
                self._raw += self._row(line.raw_counts)
                self._seconds.append(line.seconds)
                self._take_decided(line)
            case SideLine():
                self._reason = line.finish_reason
                self._drift = line.drift
                if line.text_tail:
                    self._texts[-1] += line.text_tail

    def _take_decided(self, line: TokenLine) -> None:
        if line.experts is None or line.choice is None:
            self._experts = self._choices = None
        elif self._experts is not None and self._choices is not None:
            self._experts += line.experts
            said = line.choice
            ids, top = np.array(said.top_ids, np.int32), np.array(said.top_log_probabilities)
            self._choices.append(TokenChoice(said.log_probability, said.rank, ids, top))

    def record(self, logits: Path) -> SideRecord:
        """All of it. A prompt after which nothing came is as one that was not read.

        logits: where its router logits lie, if they are kept.
        """
        if not self._token_ids:
            self._prompt_counts, self._prompt_raw = bytearray(), bytearray()
        return SideRecord(
            prompt_token_ids=self._prompt_token_ids,
            text="".join(self._texts),
            token_ids=tuple(self._token_ids),
            token_texts=tuple(self._texts),
            expert_counts=self._array(self._counts),
            raw_counts=self._array(self._raw),
            prompt_expert_counts=self._array(self._prompt_counts),
            prompt_raw_counts=self._array(self._prompt_raw),
            token_seconds=np.array(self._seconds, dtype=np.float64),
            finish_reason=self._reason or FinishReason.BROKEN_OFF,
            **self._decided(logits),
            drift=self._drift,
        )

    def _decided(self, logits: Path) -> dict[str, Any]:
        """What there is beside the counts, by the names of SideRecord."""
        if not self._token_ids or self._prompt_experts is None or not self._choices:
            return {}
        layers, experts = self._layers, self._model.experts
        positions = read_positions(len(self._prompt_token_ids), len(self._token_ids))
        kept = {
            "routed_experts": np.frombuffer(
                self._prompt_experts + bytes(self._experts or b""), np.uint8
            ).reshape(positions, layers, -1),
            "choices": TokenChoices.of(self._choices),
        }
        shape = positions, layers, experts
        # Of a last position that was written just before the end no line may speak.
        if (
            not logits.is_symlink()
            and logits.is_file()
            and logits.stat().st_size >= rows_bytes(shape)
        ):
            kept["router_logits"] = StoredRows(logits, 0, shape)
        return kept

    def _row(self, counts: list[int]) -> bytes:
        if len(counts) != self._layers:
            raise ValueError(f"it has not one count for each of {self._layers} layers.")
        return bytes(counts)

    def _array(self, counts: bytearray) -> np.ndarray:
        return np.frombuffer(bytes(counts), dtype=np.uint8).reshape(-1, self._layers)
