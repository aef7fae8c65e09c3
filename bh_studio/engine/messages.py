"""Requests to the engine and events from it, as frozen values.

Knows neither Qt nor torch, so that both sides of the thread boundary, the terminal and the
tests can use it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from bh_studio.engine.rule_parameters import RuleParameters

if TYPE_CHECKING:
    import numpy as np

    from bh_studio.engine.session import Session, SideRecord


class Side(StrEnum):
    """The two answers of a comparison."""

    BASELINE = "baseline"
    BH = "bh"


class FinishReason(StrEnum):
    """Why a side stopped producing tokens."""

    END_OF_TEXT = "end_of_text"
    MAX_NEW_TOKENS = "max_new_tokens"
    CONTEXT_LENGTH = "context_length"
    STOPPED = "stopped"


class CancelToken:
    """Asks a running request to stop; set from any thread, polled by the engine."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask for the stop; safe to call more than once."""
        self._event.set()

    @property
    def is_cancelled(self) -> bool:
        return self._event.is_set()


@dataclass(frozen=True, slots=True)
class GenerationParameters:
    """How tokens are chosen, for both sides alike.

    max_new_tokens: the most tokens a side may produce; at least 1.
    sampling: True draws tokens, False takes the most probable one (greedy) and leaves the three
        values below without effect. Both sides draw with the same random numbers, so they part
        only where the routing has changed the probabilities enough.
    temperature: divides the vocabulary logits before sampling; > 0.
    top_p: keep the most probable tokens that together hold this probability; in (0, 1].
    seed: both sides draw from a generator started with it.

    Raises ValueError for values outside these ranges.
    """

    max_new_tokens: int = 128
    sampling: bool = True
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1; got {self.max_new_tokens}.")
        if not 0.0 < self.temperature < float("inf"):
            raise ValueError(
                f"The sampling temperature must be a positive number; got {self.temperature}."
            )
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must lie above 0 and be at most 1; got {self.top_p}.")
        if not 0 <= self.seed < 2**63:
            raise ValueError(
                f"The seed must be a whole number from 0 to 2^63 - 1; got {self.seed}."
            )


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier question of a conversation, and what each side answered to it."""

    prompt: str
    baseline: str
    bh: str

    def answer(self, side: Side) -> str:
        """What `side` said."""
        return self.baseline if side is Side.BASELINE else self.bh


@dataclass(frozen=True, slots=True)
class Conversation:
    """What precedes a prompt to an instruct model; each side remembers its own answers.

    system: the system prompt; empty for none. turns: earlier turns, the oldest first.
    """

    system: str = ""
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The loaded model, as a session records it.

    id: "embedded", a folder, or a hub's OWNER/NAME. revision: the hub's commit; empty if there is
    none. has_chat_template: whether the model's tokenizer can write conversations.
    null_sha256: hash of the scores of the null that the rule compares with.
    null_samples: scores in the null of one layer; the smallest p-value is 1 / (null_samples + 1).
    expert_path: the computation that ran the experts. decode_path: the forward that read tokens
    after the prompt, and why no faster one did; empty in sessions that do not say.
    """

    id: str
    name: str
    architecture: str
    fingerprint: str
    layers: int
    experts: int
    top_k: int
    context_length: int
    parameter_count: int
    dtype: str
    device: str
    expert_path: str
    null_sha256: str
    null_samples: int
    revision: str = ""
    has_chat_template: bool = False
    decode_path: str = ""


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Memory that a model takes on one device, in bytes, and what is free there.

    device: "cpu", "cuda:0" and so on. weights: parameters in the dtype they are loaded in. cache:
    keys and values of both sides for `cache_tokens` tokens each. headroom: activations, and what
    the libraries hold besides. free: what the device has now.
    """

    device: str
    weights: int
    cache: int
    cache_tokens: int
    headroom: int
    free: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.headroom

    @property
    def fits(self) -> bool:
        return self.total <= self.free


# --- requests -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LoadModel:
    """Load a model and the null of its routers, in place of the one that is loaded.

    That one stays until the new one has passed every check that needs no weights.

    source: "embedded", a folder with a checkpoint, or a hub's OWNER/NAME or OWNER/NAME@REVISION
        that was downloaded before.
    device: "auto", "cpu", "cuda:N", "cuda:all" (layers spread over all GPUs) or "mps".
    dtype: "auto", "bfloat16", "float16" or "float32".
    load_anyway: load even if the memory seems too small. calibration: file with a recording of
        router logits (nulls.save_null) to take nulls from; None for the text that ships.
    """

    source: str = "embedded"
    device: str = "auto"
    dtype: str = "auto"
    load_anyway: bool = False
    calibration: Path | None = None
    cancel: CancelToken = field(default_factory=CancelToken)


@dataclass(frozen=True, slots=True)
class UnloadModel:
    """Give the memory of the loaded model back; without one, nothing happens."""

    cancel: CancelToken = field(default_factory=CancelToken)


@dataclass(frozen=True, slots=True)
class InspectModel:
    """Say what the model in `source` is and what memory it would take, without loading it."""

    source: str
    device: str = "auto"
    dtype: str = "auto"
    cancel: CancelToken = field(default_factory=CancelToken)


@dataclass(frozen=True, slots=True)
class SaveCalibration:
    """Write the recording that the loaded model's nulls are fitted on to a file for others."""

    path: Path
    cancel: CancelToken = field(default_factory=CancelToken)


@dataclass(frozen=True, slots=True)
class RunComparison:
    """Answer `prompt` with the baseline and with BH routing, taking turns token by token.

    conversation: what precedes the prompt, written with the model's chat template; None continues
    `prompt` as plain text.
    """

    run_id: int
    prompt: str
    rule: RuleParameters
    generation: GenerationParameters
    conversation: Conversation | None = None
    cancel: CancelToken = field(default_factory=CancelToken)


Request = LoadModel | UnloadModel | InspectModel | SaveCalibration | RunComparison

# --- events ---------------------------------------------------------------------------------


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
    | Failed
)
