"""What the program has saved, read again for a notebook: sessions, recordings and results.

Says what a file is by what is in it, and every refusal in a sentence. Loads no torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bh_studio.engine.errors import DAMAGE, InputError, damage
from bh_studio.engine.files.arrays import Archive, ArchiveError, NotAnArchiveError
from bh_studio.engine.files.bounded import read_bytes
from bh_studio.engine.files.plain_json import JsonError, convert, parsed
from bh_studio.engine.records import budget, evaluation, journal, replays
from bh_studio.engine.records.batch import BatchResult
from bh_studio.engine.records.benchmark import result as benchmark_result
from bh_studio.engine.records.benchmark.document import from_document
from bh_studio.engine.records.benchmark.result import BenchResult, ContenderResult
from bh_studio.engine.records.budget import BudgetResult, Solution, solutions_from_json
from bh_studio.engine.records.evaluation import ContenderRow, EvaluationResult, contender_rows
from bh_studio.engine.records.journal_versions import newest_version, upgraded
from bh_studio.engine.records.recording import RecordedLogits, read_router_logits
from bh_studio.engine.records.replays import ArenaRow
from bh_studio.engine.records.rows import PromptRow, SkippedRow
from bh_studio.engine.records.runs.reader import load_run
from bh_studio.engine.records.same_text.result import SameTextResult
from bh_studio.engine.records.same_text.side_reading import SideReading
from bh_studio.engine.records.session import Session, SessionError
from bh_studio.engine.records.session_file import load_session
from bh_studio.engine.records.sweep import RuleSummary, SweepResult, SweepRow
from bh_studio.engine.records.terms import ModelInfo

ResultRow = (
    SweepRow
    | PromptRow
    | SkippedRow
    | SideReading
    | ContenderRow
    | Solution
    | ArenaRow
    | ContenderResult
)
Record = SweepResult | BatchResult | SameTextResult | EvaluationResult | BudgetResult | BenchResult
_Content = tuple[Record | None, tuple[ResultRow, ...]]

# The answers to 20,000 prompts, two of 500 tokens each, take half of it. Read, JSON takes about
# five times as much, and can take twenty times.
_MOST_BYTES = 512 * 2**20
# The newest schema version of each kind.
_NEWEST = {
    "sweep": newest_version("sweep"),
    "batch": newest_version("batch"),
    "same-text": newest_version("same-text"),
    "evaluation": evaluation.SCHEMA_VERSION,
    "budget": budget.SCHEMA_VERSION,
    "replay": replays.SCHEMA_VERSION,
    "bench": benchmark_result.SCHEMA_VERSION,
}
# The command that made a result of schema version 1, and its kind today.
_COMMANDS_1 = {"sweep": "sweep", "compare": "batch"}
_OTHER = "it is neither a session, a recording of router logits nor a result of BH Studio."


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What a command has saved with `--out FILE.json`, or printed with `--json`.

    kind: of experiment: "sweep", "batch" (`compare --prompts-file`), "same-text" (`compare
        --text`), "evaluation", "budget", "replay" or "bench".
    is_complete: False for what was printed by a run that was stopped.
    model: None for a replay, which needs none.
    started_at, finished_at: ISO 8601 with time zone; of a run that went on, when its first and last
        rows were made. None where the file does not say: a replay, a benchmark, and evaluations and
        budgets of schema version 1.
    rows: what the command's table has a line for: a SweepRow for each answer; a PromptRow or a
        SkippedRow for each prompt; a SideReading for each side that read a text; a ContenderRow for
        each contender of an evaluation; a Solution for one level, and one by layer; an ArenaRow for
        each rule; a ContenderResult for each way to decode.
    summaries: of a sweep, a RuleSummary for each routing over all prompts; empty for others.
    record: the whole as the engine made it, a SweepResult, BatchResult, SameTextResult,
        EvaluationResult, BudgetResult or BenchResult, to compute with. None for a replay, which is
        its rows, and for evaluations and checked budgets of schema version 1, whose files lack the
        window sums.
    settings: all that decided the rows; empty where the file does not say.
    environment: versions, machine and threads; empty for a replay.
    document: the file as it is.
    """

    kind: str
    is_complete: bool
    model: ModelInfo | None = field(repr=False)
    started_at: str | None
    finished_at: str | None
    # What fills a screen is not shown where a notebook shows the value of a cell.
    rows: tuple[ResultRow, ...] = field(repr=False)
    summaries: tuple[RuleSummary, ...] = field(repr=False)
    record: Record | None = field(repr=False)
    settings: dict[str, Any] = field(repr=False)
    environment: dict[str, Any] = field(repr=False)
    document: dict[str, Any] = field(repr=False)


def read(path: str | Path) -> Session | RecordedLogits | Result:
    """What is in a file that BH Studio has saved; needs no torch and no model.

    A session (.bhsession):

        session = bh_studio.read("run.bhsession")
        session.sides  # the rule of each side; None for the model's own routing
        session.records[1].expert_counts  # (token, layer), of the second side, B
        session.records[1].routed_experts  # (position, layer, slot), prompt first; 255: none
        session.records[1].choices.log_probabilities  # (token,), in nats
        session.first_differences[1]  # the first token in which B differs from A, the first side
        logits = session.records[1].router_logits  # read when they are asked for
        logits.rows(0, logits.shape[0])  # (position, layer, expert), prompt first

    What was not kept is None.

    The folder of a kept run, also of one that goes on or was cut off, is read as a session too.

    A recording of router logits (.npz), also of another program with an array "logits":

        recording = bh_studio.read("recording.npz")
        recording.logits  # (layer, token, expert)
        recording.origin  # None if BH Studio has not recorded it

    A result (.json) of sweep, compare --prompts-file, compare --text, evaluate, budget, replay or
    bench, of this version or an earlier one; see Result:

        sweep = bh_studio.read("sweep.json")
        [(row.rule, row.answer.statistics.mean) for row in sweep.rows]
        [(found.rule, found.experts.low, found.experts.high) for found in sweep.summaries]

        text = bh_studio.read("text.json")
        [(reading.rule, reading.perplexity, reading.mean_kl) for reading in text.rows]
        text.rows[1].kl  # (position,), in nats; position 0 is about the second token

        evaluation = bh_studio.read("evaluation.json")
        [(row.contender.label, row.scores.perplexity) for row in evaluation.rows]
        evaluation.record.difference(1, 2)  # nats a token, paired

        budget = bh_studio.read("budget.json")
        [(solution.parameters, solution.mean) for solution in budget.rows]

        bench = bh_studio.read("bench.json")
        bench.record.speed_ratio("baseline", "stock generate").median

    Raises InputError with a sentence for a file that is missing, damaged, of a newer version or
    something else.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _from_folder(path)
        if path.exists() and not path.is_file():
            # A pipe, which is read from its beginning to its end or not at all.
            return _from_json(path)
        with path.open("rb") as file:
            is_archive = file.read(2) == b"PK"
        return _from_archive(path) if is_archive else _from_json(path)
    except FileNotFoundError:
        raise _missing(path) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error


def _missing(path: Path) -> InputError:
    rows = journal.rows_path(path)
    if not rows.exists():
        return InputError(f"There is no file {path}.")
    return InputError(
        f"There is no {path} yet; {rows.name} beside it holds the rows of a run that is not "
        "finished.",
        "The same command goes on from there.",
    )


def _from_folder(path: Path) -> Session:
    try:
        return load_run(path)
    except SessionError as error:
        raise InputError(str(error)) from error


def _from_archive(path: Path) -> Session | RecordedLogits:
    try:
        with Archive(path) as archive:
            members = archive.sizes
        if "session.json" in members:
            return load_session(path)
        if any(name.endswith("_routed_experts.npy") for name in members):
            raise InputError(
                f"{path.name} is the export of a session: which experts ran. numpy.load reads it."
            )
        if any(name.endswith(".npy") for name in members):
            return read_router_logits(path)
    except NotAnArchiveError:
        raise InputError(f"{path.name} is damaged: it ends before it should.") from None
    except ArchiveError as error:
        raise InputError(f"{path.name} is damaged: {error}") from error
    # SessionError and RecordingError, which say what is wrong.
    except ValueError as error:
        raise InputError(str(error)) from error
    raise InputError(f"{path.name} cannot be read: {_OTHER}")


def _from_json(path: Path) -> Result:
    data = read_bytes(path, _MOST_BYTES, "a result")
    try:
        document = parsed(data)
    except JsonError as error:
        with contextlib.suppress(JsonError):
            _refuse_journal(path, parsed(data.partition(b"\n")[0]))
        if data.lstrip()[:1] == b"{":
            raise InputError(f"{path.name} is damaged: {error}") from None
        document = None
    if not isinstance(document, dict):
        raise InputError(f"{path.name} cannot be read: {_OTHER}")
    _refuse_journal(path, document)
    kind = _kind(path, document)
    version = document.get("schema_version")
    if version not in range(1, _NEWEST[kind] + 1):
        raise InputError(
            f"{path.name} has schema version {version!r}; this program reads 1 to {_NEWEST[kind]}."
        )
    try:
        return _result(kind, document)
    except DAMAGE as error:
        raise InputError(f"{path.name} is damaged: {damage(error)}") from error


def _refuse_journal(path: Path, header: Any) -> None:
    """Raise InputError if `header` is that of rows without a result."""
    # Those of version 1 name the command.
    is_of_run = isinstance(header, dict) and header.keys() & {"settings", "command"}
    if is_of_run and not header.keys() & {"rows", "finished_at"}:
        raise InputError(
            f"{path.name} holds the rows of a run that is not finished, or was saved as .csv.",
            "The same command goes on from there; what it saves as .json can be read.",
        )


def _kind(path: Path, document: dict[str, Any]) -> str:
    kind = document.get("kind", _COMMANDS_1.get(str(document.get("command"))))
    if kind is None and {"logits", "top_k", "null", "rows"} <= document.keys():
        return "replay"
    if isinstance(kind, str) and kind in _NEWEST:
        return kind
    if {"prompt", "started_at", "sides"} <= document.keys():
        raise InputError(
            f"{path.name} is the export of a session, without its counts and times.",
            "Save the session as .bhsession; that can be read.",
        )
    if {"session", "note"} <= document.keys() or {"position", "token"} <= document.keys():
        raise InputError(f"{path.name} says what rules do with a session. json.load reads it.")
    raise InputError(f"{path.name} cannot be read: {_OTHER}")


def _result(kind: str, document: dict[str, Any]) -> Result:
    """The result in `document`; raises whatever one that is damaged leads to."""
    today = _of_today(document) if kind in ("sweep", "batch") else document
    record, rows = _CONTENTS[kind](today)
    is_complete = today.get("complete", today.get("is_complete", True))
    return Result(
        kind=kind,
        is_complete=convert(bool, is_complete, "complete"),
        model=None if kind == "replay" else convert(ModelInfo, today["model"], "model"),
        started_at=_time(today, "started_at"),
        finished_at=_time(today, "finished_at"),
        rows=rows,
        summaries=tuple(record.summaries()) if isinstance(record, SweepResult) else (),
        record=record,
        settings=convert(dict[str, Any], today.get("settings", {}), "settings"),
        environment=convert(dict[str, Any], today.get("environment", {}), "environment"),
        document=document,
    )


def _of_today(document: dict[str, Any]) -> dict[str, Any]:
    """A document that holds its rows, of any version, under the names of today's."""
    header = {name: value for name, value in document.items() if name != "rows"}
    header, rows = upgraded(header, document["rows"])
    return {**header, "rows": [{**row, "key": key} for key, row in rows.items()]}


def _time(document: dict[str, Any], name: str) -> str | None:
    time = document.get(name)
    return None if time is None else convert(str, time, name)


def _sweep(document: dict[str, Any]) -> _Content:
    found = SweepResult.from_json(document)
    return found, tuple(found.rows())


def _batch(document: dict[str, Any]) -> _Content:
    found = BatchResult.from_json(document)
    return found, found.rows


def _same_text(document: dict[str, Any]) -> _Content:
    found = SameTextResult.from_json(document)
    return found, found.readings


def _evaluation(document: dict[str, Any]) -> _Content:
    # Version 1 did not keep the sums of its windows.
    is_whole = document["schema_version"] > 1
    found = EvaluationResult.from_json(document) if is_whole else None
    return found, contender_rows(document["contenders"])


def _budget(document: dict[str, Any]) -> _Content:
    is_whole = document["schema_version"] > 1 or document["check"] is None
    found = BudgetResult.from_json(document) if is_whole else None
    return found, solutions_from_json(document)


def _replay(document: dict[str, Any]) -> _Content:
    return None, tuple(map(ArenaRow.from_json, document["rows"]))


def _bench(document: dict[str, Any]) -> _Content:
    found = from_document(document)
    return found, found.contenders


# The record and the rows in a document of each kind.
_CONTENTS: dict[str, Callable[[dict[str, Any]], _Content]] = {
    "sweep": _sweep,
    "batch": _batch,
    "same-text": _same_text,
    "evaluation": _evaluation,
    "budget": _budget,
    "replay": _replay,
    "bench": _bench,
}
