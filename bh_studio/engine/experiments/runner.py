"""The one door to every experiment: a definition and what is done already in, events out.

Knows no file and no terminal: who keeps rows, and where, is the caller's.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from bh_studio.engine.errors import DAMAGE, Cancelled, CancelToken, EngineError
from bh_studio.engine.experiments.replays import ReplayLaboratory
from bh_studio.engine.experiments.stages import Laboratory, Stepped
from bh_studio.engine.protocol.events import ExperimentEvent, Finished, Progress, RowReady
from bh_studio.engine.protocol.experiments import Experiment, Replay, kind_of

if TYPE_CHECKING:
    from bh_studio.engine.loading import LoadedModel


class RowError(ValueError):
    """A row of an earlier run is none of this experiment; the message says which."""


def run(
    loaded: LoadedModel | None,
    experiment: Experiment,
    rows: Mapping[str, dict[str, Any]] | None = None,
    cancel: CancelToken | None = None,
) -> Generator[ExperimentEvent, None, None]:
    """Run `experiment`; the last event is Finished, also when it was cancelled.

    loaded: None for an experiment that takes no model. rows: what earlier runs of it made, by key,
    as RowReady had it; those units are left out.

    Raises what `check_model` and the laboratory raise for a definition that does not fit the model,
    EngineError if it needs one and there is none, RowError for rows that are none of this
    experiment, InputError where it takes over none, Cancelled if it was cancelled before anything
    was known.
    """
    laboratory = _laboratory(loaded, experiment)
    known = {key: _read(laboratory, key, row) for key, row in (rows or {}).items()}
    cancel = cancel or CancelToken()
    try:
        yield from _stages(laboratory, known, cancel)
        is_complete = True
    except Cancelled:
        is_complete = False
    document = laboratory.document(known, is_complete)
    if document is None:
        raise Cancelled
    yield Finished(document, is_complete)


def _laboratory(loaded: LoadedModel | None, experiment: Experiment) -> Laboratory[Any]:
    if isinstance(experiment, Replay):
        return ReplayLaboratory(experiment)
    if loaded is None:
        raise EngineError(
            f"Without a model nothing can be run of the kind {kind_of(experiment)}.",
            "Load one first.",
        )
    experiment.check_model(loaded.info)
    # Not at the top: transformers takes seconds to import, and a replay needs nothing of it.
    from bh_studio.engine.experiments.laboratories import LABORATORIES

    laboratory: Laboratory[Any] = LABORATORIES[type(experiment)](loaded, experiment)
    return laboratory


def _stages(
    laboratory: Laboratory[Any], known: dict[str, Any], cancel: CancelToken
) -> Generator[ExperimentEvent, None, None]:
    before = 0
    with closing(laboratory.stages(known)) as stages:
        for stage in stages:
            total = before + sum(unit.steps for unit in stage.units) + stage.later
            done = before + sum(unit.steps for unit in stage.units if unit.key in known)
            for unit in stage.units:
                if unit.key in known and not unit.fits(known[unit.key]):
                    raise _none_of_this(unit.key)
            yield Progress(stage.name, done, total)
            for unit in stage.units:
                if unit.key in known:
                    continue
                row = yield from _unit(laboratory, unit, cancel, Progress(stage.name, done, total))
                known[unit.key] = row
                done += unit.steps
                if row is not None:
                    yield RowReady(unit.key, row.to_json())
                yield Progress(stage.name, done, total)
            before += sum(unit.steps for unit in stage.units)


def _unit(
    laboratory: Laboratory[Any], unit: Any, cancel: CancelToken, start: Progress
) -> Generator[ExperimentEvent, None, Any]:
    """The events of one unit, steps as Progress; its row."""
    steps = 0
    with closing(laboratory.compute(unit, cancel)) as events:
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                return end.value
            if isinstance(event, Stepped):
                steps += event.steps
                yield Progress(start.stage, start.done + steps, start.total)
            else:
                yield event


def _read(laboratory: Laboratory[Any], key: str, row: dict[str, Any]) -> Any:
    try:
        return laboratory.row_from_json(row)
    except DAMAGE as error:
        raise _none_of_this(key) from error


def _none_of_this(key: str) -> RowError:
    return RowError(f"The row {key[:60]!r} is none of this experiment.")
