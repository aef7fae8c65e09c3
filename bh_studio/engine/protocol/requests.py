"""What the engine is asked for: to load a model, to run an experiment, to read or write a session.

Frozen values, and the number formats that weights can be loaded in. Knows neither Qt nor torch.
They are msgspec's, for a dataclass takes half a millisecond to make and the window, which imports
these before its first frame, would wait for fifty.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct

from bh_studio.engine.protocol.experiments import Experiment, ModelExperiment, Replay

# The window imports this before its first frame, and needs of these only the names.
if TYPE_CHECKING:
    from bh_studio.engine.records.decisions.router_rows import RouterRows
    from bh_studio.engine.records.journal import Journal
    from bh_studio.engine.records.recording import RecordedLogits
    from bh_studio.engine.records.same_text.result import SameTextResult
    from bh_studio.engine.records.session import Session, SideRecord
    from bh_studio.engine.records.terms import ModelInfo
    from bh_studio.engine.rules.names import NullName, ScoreName
    from bh_studio.engine.rules.parameters import RuleParameters
    from bh_studio.engine.rules.sides import Sides

# The number formats of weights and the bytes that one weight takes, under torch's names; "auto"
# leaves the choice to the load, which knows the model and the device.
DTYPES = {"auto": None, "bfloat16": 2, "float16": 2, "float32": 4}


class LoadModel(Struct, frozen=True):
    """Load a model and the recording of its routers, in place of the one that is loaded.

    That one stays until the new one has passed every check that needs no weights.

    source: "embedded", a folder with a checkpoint, or a hub's OWNER/NAME or OWNER/NAME@REVISION
        that was downloaded before.
    device: "auto", "cpu", "cuda:N", "cuda:all" (layers spread over all GPUs) or "mps".
    dtype: one of DTYPES.
    load_anyway: load even if the memory seems too small. calibration: file with a recording of
        router logits (recordings.save_recording) to take nulls from; None for the text that ships.
    """

    source: str = "embedded"
    device: str = "auto"
    dtype: str = "auto"
    load_anyway: bool = False
    calibration: Path | None = None


class UnloadModel(Struct, frozen=True):
    """Give the memory of the loaded model back; without one, nothing happens."""


class InspectModel(Struct, frozen=True):
    """Say what the model in `source` is and what memory it would take, without loading it."""

    source: str
    device: str = "auto"
    dtype: str = "auto"


class SaveCalibration(Struct, frozen=True):
    """Write the recording that the loaded model's nulls are fitted on to a file for others."""

    path: Path


class JudgeNull(Struct, frozen=True, eq=False):
    """Say how well a null that is fitted on one half of a recording describes the other half.

    alpha: level to judge for. recording: None for that of the loaded model.
    """

    null: NullName
    score: ScoreName
    alpha: float
    recording: RecordedLogits | None = None


class MeasureKl(Struct, frozen=True):
    """Say how far the predictions of the sides of a session are from those of the first, where all
    of them have read the same.

    model: of the session; it has to be the loaded one. sides: their rules, None for the model's own
    routing. prompt_token_ids, token_ids: of the first side, its prompt and as much of its answer as
    is to be predicted. They are read as they are.
    """

    model: ModelInfo
    sides: Sides
    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]


class RunKept(Struct, frozen=True, eq=False):
    """Run `experiment` from where `journal` is, which keeps each row before its event comes."""

    experiment: Experiment
    journal: Journal


class ReadSession(Struct, frozen=True):
    """Read the session in a `.bhsession` file or in the folder of a run, or the result of a text
    that all sides read."""

    path: Path


class WriteSession(Struct, frozen=True):
    """Write a session to a file, into a folder that is made if there is none.

    form: one of session_file.SESSION_WRITERS; the name of the file may have any ending.
    """

    session: Session
    path: Path
    form: str


class ReadText(Struct, frozen=True):
    """Read the text in a file of at most `most_bytes`."""

    path: Path
    most_bytes: int


class WriteResult(Struct, frozen=True, eq=False):
    """Write what the sides made of a text to a file, into a folder that is made if there is none.

    document: the whole of `result`, as result_document has it. form: ".json" for that, ".csv" for a
    row a token and side; the name of the file may have any ending.
    """

    result: SameTextResult
    document: dict[str, Any]
    path: Path
    form: str


class ListRuns(Struct, frozen=True):
    """Say which runs are kept in `history`, and as session files in `former`."""

    history: Path
    former: Path


class MeasureHistory(Struct, frozen=True):
    """Say what the runs in `history` take, of which `most_bytes` are wanted."""

    history: Path
    most_bytes: int


class RemoveOldestRuns(Struct, frozen=True):
    """Remove the oldest `runs` in `history`, but for what is being written."""

    history: Path
    runs: int


class FindCutOff(Struct, frozen=True):
    """Say which runs in `history` were cut off; from then on their folders say so themselves."""

    history: Path


class InspectToken(Struct, frozen=True, eq=False):
    """Say what `rule` sees and does in every layer, at one position that a side of a session read.

    model: of the session. logits: of the side. position: from 0, the prompt's first; token i of the
    answer was predicted at len(prompt_token_ids) - 1 + i. rule: the side's or any other; None for
    the model's own routing. calibration: file with the recording that the session's nulls were
    fitted on; None to look among those that are kept on this machine.
    """

    model: ModelInfo
    logits: RouterRows | None
    position: int
    rule: RuleParameters | None
    calibration: Path | None = None


class ReplaySide(Struct, frozen=True, eq=False):
    """Say what `rule` selects at every position that a side of a session read.

    model: of the session. record: of the side. rule, calibration: as InspectToken has them.
    """

    model: ModelInfo
    record: SideRecord
    rule: RuleParameters | None
    calibration: Path | None = None


class JudgeSessionNull(Struct, frozen=True, eq=False):
    """Say how well the null of `rule` fits, which a session with `model` has.

    rule, calibration: as InspectToken has them; a rule without a null is refused.
    """

    model: ModelInfo
    rule: RuleParameters | None
    calibration: Path | None = None


# Needs no model, so it is answered also while one loads or works, and while there is none.
ModelFree = (
    ReadSession
    | WriteSession
    | ReadText
    | WriteResult
    | ListRuns
    | FindCutOff
    | MeasureHistory
    | RemoveOldestRuns
    | InspectToken
    | ReplaySide
    | JudgeSessionNull
    | Replay
)
ModelBound = (
    LoadModel
    | UnloadModel
    | InspectModel
    | SaveCalibration
    | JudgeNull
    | MeasureKl
    | RunKept
    | ModelExperiment
)
Body = ModelBound | ModelFree


class Request(NamedTuple):
    """What is wanted. job: a number that all events about it will bear, new for each request."""

    job: int
    body: Body
