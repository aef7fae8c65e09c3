"""What the engine says while it works, as frozen values. Knows neither Qt nor torch.

Each goes to whoever asked in a Report, with the number of the job that it is about.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct

from bh_studio.engine.errors import EngineError
from bh_studio.engine.protocol.requests import InspectModel, LoadModel
from bh_studio.engine.protocol.texts import Text, TextTooLong
from bh_studio.engine.records.terms import MemoryNeed, ModelInfo

if TYPE_CHECKING:
    import numpy as np

    from bh_studio.engine.records.decisions.decision import Decision
    from bh_studio.engine.records.decisions.side_replay import ReplayedSide
    from bh_studio.engine.records.decisions.token_choices import TokenChoice
    from bh_studio.engine.records.decisions.token_inspection import InspectedToken
    from bh_studio.engine.records.diagnostics import NullDiagnostics, NullFit
    from bh_studio.engine.records.recording import RecordedLogits
    from bh_studio.engine.records.runs.kept import KeptRun
    from bh_studio.engine.records.runs.lines import RunHeader
    from bh_studio.engine.records.runs.size import HistorySize
    from bh_studio.engine.records.same_text.result import SameTextResult
    from bh_studio.engine.records.session import Session, SideRecord


class LoadProgress(Struct, frozen=True):
    """A step of loading. fraction: 0 to 1, or None where the length is not known."""

    stage: str
    fraction: float | None = None


class ModelLoaded(Struct, frozen=True):
    """The model answers requests from now on. vocabulary: (token id,) the text of each token."""

    model: ModelInfo
    vocabulary: tuple[str, ...] = ()


class ModelUnloaded(Struct, frozen=True):
    """No model is loaded any more; also sent before another one is read."""


class ModelInspected(Struct, frozen=True):
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


class LoadRefused(Struct, frozen=True):
    """The model was not loaded for want of memory; the former one, if any, still is.

    request: to be sent again with load_anyway=True if the person insists.
    message: what is needed and what is free, in numbers. advice: what to do about it.
    """

    request: LoadModel
    message: str
    advice: str
    needs: tuple[MemoryNeed, ...]


class CalibrationSaved(Struct, frozen=True):
    """The file that SaveCalibration asked for is written."""

    path: Path


class NullJudged(Struct, frozen=True, eq=False):
    """The answer to JudgeNull. recording: what the null was fitted on."""

    diagnostics: NullDiagnostics
    recording: RecordedLogits


class KlMeasured(Struct, frozen=True, eq=False):
    """The answer to MeasureKl.

    kl: (side, token) float64, KL(first side || side) in nats of what each of its token_ids is
    predicted by; that of the first is 0, and one that is rounded in float32 may be below 0 by about
    1e-7.
    """

    kl: np.ndarray


class SessionRead(Struct, frozen=True):
    """The answer to ReadSession."""

    session: Session


class ResultRead(Struct, frozen=True, eq=False):
    """The answer to ReadSession where the file holds what the sides made of a text.

    document: the file as it is.
    """

    result: SameTextResult
    document: dict[str, Any]


class TextRead(Struct, frozen=True):
    """The answer to ReadText."""

    text: Text


class ResultWritten(Struct, frozen=True):
    """The file is there that WriteResult asked for."""

    path: Path


class SessionWritten(Struct, frozen=True):
    """The file is there that WriteSession asked for."""

    path: Path


class RunsListed(Struct, frozen=True):
    """The answer to ListRuns: the newest first."""

    runs: tuple[KeptRun, ...]


class CutOffFound(Struct, frozen=True):
    """The answer to FindCutOff: the newest first."""

    runs: tuple[KeptRun, ...]


class HistoryMeasured(Struct, frozen=True):
    """The answer to MeasureHistory."""

    size: HistorySize


class RunsRemoved(Struct, frozen=True):
    """The answer to RemoveOldestRuns. runs: how many are gone."""

    runs: int


class TokenInspected(Struct, frozen=True):
    """The answer to InspectToken."""

    token: InspectedToken


class SideReplayed(Struct, frozen=True):
    """The answer to ReplaySide."""

    replayed: ReplayedSide


class SessionNullJudged(Struct, frozen=True):
    """The answer to JudgeSessionNull."""

    fit: NullFit


class RunBegan(Struct, frozen=True):
    """A comparison fits the model, and its sides answer from now on."""

    header: RunHeader


class PromptRead(Struct, frozen=True):
    """One side has read its prompt; its first token comes next.

    expert_counts, raw_counts: (prompt token, layer) uint8, as SideRecord has them of the prompt.
    decision: of the same positions; None where it is not kept.
    """

    side: int
    expert_counts: np.ndarray
    raw_counts: np.ndarray
    decision: Decision | None = None


class KeptIn(Struct, frozen=True):
    """What a comparison says is written into `folder` from now on."""

    folder: Path


class TokenGenerated(Struct, frozen=True):
    """One new token of one side.

    side: its number, from 0.
    text: what this token adds to the answer; empty while a character is incomplete.
    expert_counts: (layer,) uint8, experts used at the position whose output predicted this token;
        in analyze mode what the rule would have used.
    raw_counts: (layer,) uint8, the same before min_k and max_k were applied.
    seconds: time this side's own steps took so far, the other sides' turns left out.
    decision: of that position, and choice: of this token; None where they are not kept.
    """

    side: int
    index: int
    token_id: int
    text: str
    expert_counts: np.ndarray
    raw_counts: np.ndarray
    seconds: float
    decision: Decision | None = None
    choice: TokenChoice | None = None


class SideFinished(Struct, frozen=True):
    """A side produced its last token. text_tail: characters still held back, often empty."""

    side: int
    text_tail: str
    record: SideRecord


class Waiting(Struct, frozen=True):
    """A job is not worked on yet. behind: the job that is."""

    behind: int


class Failed(Struct, frozen=True):
    """A request ended with an error.

    message: what went wrong, one sentence. advice: what to do about it, may be empty.
    details: the traceback, for a report.
    """

    message: str
    advice: str
    details: str


class TextRefused(Failed, frozen=True):
    """A text has more tokens than the model reads at once. beginning: of it, as much as fits, to be
    read in its place if the person likes."""

    beginning: Text


class JobCancelled(Struct, frozen=True):
    """A job ended because it was asked to, before it had a result.

    After a load the former model is still there unless ModelUnloaded came.
    """


class Progress(Struct, frozen=True):
    """How far an experiment is; the first one says that it fits the model.

    stage: what is being done. done, total: of its steps; the total is an estimate where what comes
    next depends on what comes.
    """

    stage: str
    done: int
    total: int


class Activity(Struct, frozen=True):
    """What is going on in a unit of an experiment from now on, in a few words for people."""

    text: str


class RowReady(Struct, frozen=True):
    """A unit of an experiment is done. key: its name. row: what it gave, as plain values."""

    key: str
    row: dict[str, Any]


class Notice(Struct, frozen=True):
    """A fact of the result that a person should know, as a sentence: a null is too small."""

    text: str


class Finished(Struct, frozen=True):
    """An experiment ended.

    document: its record, such as a Session; if it was cancelled, with what was known by then.
    """

    document: Any
    is_complete: bool


# What happens while a unit of an experiment is done, and what an experiment says.
UnitEvent = RunBegan | PromptRead | TokenGenerated | SideFinished | Notice | Activity
ExperimentEvent = UnitEvent | Progress | RowReady | Finished
Event = (
    LoadProgress
    | ModelLoaded
    | ModelUnloaded
    | ModelInspected
    | LoadRefused
    | JobCancelled
    | CalibrationSaved
    | NullJudged
    | KlMeasured
    | SessionRead
    | SessionWritten
    | ResultRead
    | ResultWritten
    | TextRead
    | RunsListed
    | CutOffFound
    | HistoryMeasured
    | RunsRemoved
    | TokenInspected
    | SideReplayed
    | SessionNullJudged
    | KeptIn
    | ExperimentEvent
    | Waiting
    | Failed
)


class Report(NamedTuple):
    """What happened, and the number of the job that it is about."""

    job: int
    event: Event


def failure(error: Exception) -> Failed:
    """What a person is told about `error`."""
    details = "".join(traceback.format_exception(error))
    if isinstance(error, TextTooLong) and error.beginning.content.strip():
        return TextRefused(error.message, error.advice, details, error.beginning)
    if isinstance(error, EngineError):
        return Failed(error.message, error.advice, details)
    if _is_out_of_memory(error):
        return Failed(
            "There is not enough memory for this.",
            "Close other programs, shorten the prompt or the answer, or use a smaller model.",
            details,
        )
    if isinstance(error, ValueError):
        return Failed(str(error), "", details)
    return Failed(
        f"Something went wrong in the engine: {str(error) or type(error).__name__}",
        "The log has the full report.",
        details,
    )


def _is_out_of_memory(error: Exception) -> bool:
    # torch's CPU allocator raises a plain RuntimeError; its CUDA error is a RuntimeError too.
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and any(phrase in text for phrase in ("out of memory", "can't allocate memory"))
    )
