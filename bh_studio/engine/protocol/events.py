"""What the engine says while it works, as frozen values. Knows neither Qt nor torch."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bh_studio.engine.errors import EngineError
from bh_studio.engine.protocol.requests import InspectModel, LoadModel
from bh_studio.engine.records.terms import MemoryNeed, ModelInfo, Side

if TYPE_CHECKING:
    import numpy as np

    from bh_studio.engine.records.session import Session, SideRecord


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """A step of loading. fraction: 0 to 1, or None where the length is not known."""

    stage: str
    fraction: float | None = None


@dataclass(frozen=True, slots=True)
class ModelLoaded:
    """The model answers requests from now on."""

    model: ModelInfo


@dataclass(frozen=True, slots=True)
class ModelUnloaded:
    """No model is loaded any more; also sent before another one is read."""


@dataclass(frozen=True, slots=True)
class ModelInspected:
    """The answer to InspectModel.

    device, dtype: what "auto" became. needs: one entry a device that would hold a part of the
    model. problem: why the model cannot be used, a sentence; empty if it can, as far as that is
    known without its weights.
    """

    request: InspectModel
    device: str
    dtype: str
    needs: tuple[MemoryNeed, ...]
    parameter_count: int
    context_length: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class LoadRefused:
    """The model was not loaded for want of memory; the former one, if any, still is.

    request: to be sent again with load_anyway=True and a new cancel token if the person insists.
    message: what is needed and what is free, in numbers. advice: what to do about it.
    """

    request: LoadModel
    message: str
    advice: str
    needs: tuple[MemoryNeed, ...]


@dataclass(frozen=True, slots=True)
class CalibrationSaved:
    """The file that SaveCalibration asked for is written."""

    path: Path


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The prompt was accepted; the first tokens follow."""

    run_id: int


@dataclass(frozen=True, slots=True)
class TokenGenerated:
    """One new token of one side.

    text: what this token adds to the answer; empty while a character is incomplete.
    expert_counts: (layer,) uint8, experts used at the position whose output predicted this token;
        in analyze mode what the rule would have used.
    raw_counts: (layer,) uint8, the same before min_k and max_k were applied.
    seconds: time this side's own steps took so far, the other side's turns left out.
    """

    run_id: int
    side: Side
    index: int
    token_id: int
    text: str
    expert_counts: np.ndarray
    raw_counts: np.ndarray
    seconds: float


@dataclass(frozen=True, slots=True)
class SideFinished:
    """A side produced its last token. text_tail: characters still held back, often empty."""

    run_id: int
    side: Side
    text_tail: str
    record: SideRecord


@dataclass(frozen=True, slots=True)
class RunFinished:
    """Both sides ended, by themselves or by Stop; `session` is what can be saved."""

    run_id: int
    session: Session


@dataclass(frozen=True, slots=True)
class Failed:
    """A request ended with an error.

    message: what went wrong, one sentence. advice: what to do about it, may be empty.
    details: the traceback, for a report. run_id: the run it ended; None for a load.
    """

    message: str
    advice: str
    details: str
    run_id: int | None = None


@dataclass(frozen=True, slots=True)
class LoadCancelled:
    """A load ended because it was asked to; the former model is there unless ModelUnloaded came."""


@dataclass(frozen=True, slots=True)
class BenchProgress:
    """What is going on, and how many of the rounds are done."""

    stage: str
    rounds: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an experiment is. stage: what is being done. done, total: of its steps; the total is
    an estimate where what comes next depends on what comes."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class RowReady:
    """A unit of an experiment is done. key: its name. row: what it gave, as plain values."""

    key: str
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Notice:
    """A fact of the result that a person should know, as a sentence: a null is too small."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """An experiment ended. document: its record, with what is known if it was cancelled."""

    document: Any
    is_complete: bool


Event = (
    LoadProgress
    | ModelLoaded
    | ModelUnloaded
    | ModelInspected
    | LoadRefused
    | LoadCancelled
    | CalibrationSaved
    | RunStarted
    | TokenGenerated
    | SideFinished
    | RunFinished
    | Notice
    | Failed
)
# What happens while a unit of an experiment is done, and what an experiment says.
UnitEvent = TokenGenerated | Notice
ExperimentEvent = UnitEvent | Progress | RowReady | Finished


def failure(error: Exception, run_id: int | None = None) -> Failed:
    """What a person is told about `error`."""
    details = "".join(traceback.format_exception(error))
    if isinstance(error, EngineError):
        return Failed(error.message, error.advice, details, run_id)
    if _is_out_of_memory(error):
        return Failed(
            "There is not enough memory for this.",
            "Close other programs, shorten the prompt or the answer, or use a smaller model.",
            details,
            run_id,
        )
    if isinstance(error, ValueError):
        return Failed(str(error), "", details, run_id)
    return Failed(
        f"Something went wrong in the engine: {str(error) or type(error).__name__}",
        "The log has the full report.",
        details,
        run_id,
    )


def _is_out_of_memory(error: Exception) -> bool:
    # torch's CPU allocator raises a plain RuntimeError; its CUDA error is a RuntimeError too.
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and any(phrase in text for phrase in ("out of memory", "can't allocate memory"))
    )
