"""Answers what needs no model: reads and writes files, applies rules to recorded logits.

Loads no torch for files: one can be opened before any model is there. Knows no thread and no job.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bh_studio.engine.errors import Cancelled, CancelToken, InputError, as_sentence
from bh_studio.engine.execution.opening import opened
from bh_studio.engine.files.atomic import write_atomically
from bh_studio.engine.protocol.events import (
    CutOffFound,
    Event,
    Failed,
    HistoryMeasured,
    ResultRead,
    ResultWritten,
    RunsListed,
    RunsRemoved,
    SessionNullJudged,
    SessionRead,
    SessionWritten,
    SideReplayed,
    TextRead,
    TokenInspected,
)
from bh_studio.engine.protocol.experiments import Replay
from bh_studio.engine.protocol.requests import (
    FindCutOff,
    InspectToken,
    JudgeSessionNull,
    ListRuns,
    MeasureHistory,
    ModelFree,
    ReadSession,
    ReadText,
    RemoveOldestRuns,
    ReplaySide,
    WriteResult,
    WriteSession,
)
from bh_studio.engine.protocol.texts import read_named
from bh_studio.engine.records.result_document import file_of
from bh_studio.engine.records.runs.kept import kept_runs, take_cut_off
from bh_studio.engine.records.runs.size import history_size, remove_oldest
from bh_studio.engine.records.same_text.csv_rows import csv_text
from bh_studio.engine.records.session import SessionError
from bh_studio.engine.records.session_file import SESSION_WRITERS

if TYPE_CHECKING:
    from bh_studio.engine.execution.recorded_routing import RecordedRouting

_log = logging.getLogger(__name__)

Events = Generator[Event, None, None]


class Clerk:
    """Holds nothing between two requests but the nulls that were needed last."""

    def __init__(self) -> None:
        self._recorded_routing: RecordedRouting | None = None

    def answer(self, body: ModelFree, cancel: CancelToken) -> Events:
        """What comes of `body`; what a person can mend of a file is told as Failed.

        Raises Cancelled if that was asked for before it began; a file is never half written. Raises
        InputError for rules and recorded logits that cannot be used.
        """
        if cancel.is_cancelled:
            raise Cancelled
        match body:
            case ReadSession(path):
                yield _read(path)
            case WriteSession(session, path, form):
                yield _write(path, partial(SESSION_WRITERS[form], session), SessionWritten(path))
            case ReadText(path, most_bytes):
                yield TextRead(read_named(path, most_bytes=most_bytes))
            case WriteResult(path=path):
                yield _write(path, partial(_write_result, body), ResultWritten(path))
            case ListRuns(history, former):
                yield RunsListed(kept_runs(history, former))
            case FindCutOff(history):
                yield CutOffFound(take_cut_off(history))
            case MeasureHistory(history, most_bytes):
                yield HistoryMeasured(history_size(history, most_bytes))
            case RemoveOldestRuns(history, runs):
                yield _remove(history, runs)
            case InspectToken():
                yield TokenInspected(self._routing().inspect(body))
            case ReplaySide():
                yield SideReplayed(self._routing().replay(body))
            case JudgeSessionNull():
                yield SessionNullJudged(self._routing().judge_null(body))
            case Replay():
                # Not at the top: a replay takes torch, files do not.
                from bh_studio.engine.experiments.runner import run

                yield from run(None, body, cancel=cancel)

    def _routing(self) -> RecordedRouting:
        if self._recorded_routing is None:
            # Not at the top, as for a replay.
            from bh_studio.engine.execution.recorded_routing import RecordedRouting

            self._recorded_routing = RecordedRouting()
        return self._recorded_routing


def _read(path: Path) -> SessionRead | ResultRead | Failed:
    try:
        return opened(path)
    except (InputError, OSError, ValueError, TypeError, OverflowError) as error:
        advice = f"{as_sentence(error)} Nothing was changed."
        return _failed(f"{path.name} could not be opened.", advice, error)


def _remove(history: Path, runs: int) -> RunsRemoved | Failed:
    try:
        return RunsRemoved(remove_oldest(history, runs))
    except OSError as error:
        return _failed("The oldest runs could not all be removed.", as_sentence(error), error)


def _write(path: Path, write: Callable[[Path], None], written: Event) -> Event:
    """`written`, once `write` has made the file at `path`; Failed if it cannot be made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
    except SessionError as error:
        return _failed(f"{path.name} was not written.", str(error), error)
    except OSError as error:
        advice = f"{as_sentence(error)} The run stays on screen; save it elsewhere."
        return _failed(f"{path.name} could not be written.", advice, error)
    return written


def _write_result(asked: WriteResult, path: Path) -> None:
    is_table = asked.form == ".csv"
    content = csv_text(asked.result).encode() if is_table else file_of(asked.document)
    write_atomically(path, content)


def _failed(message: str, advice: str, error: Exception) -> Failed:
    _log.error("%s %s", message, advice, exc_info=error)
    # A file that is missing or refused is explained by its sentence.
    is_explained = isinstance(error, InputError | OSError | SessionError)
    details = "" if is_explained else "".join(traceback.format_exception(error))
    return Failed(message, advice, details)
