"""An experiment with its journal: it goes on from the rows that are there, and each row is kept.

Who shows what happens, and what becomes of the result, is the caller's.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict

from bh_studio.engine.errors import CancelToken
from bh_studio.engine.experiments.environment import (
    describe_computation,
    describe_environment,
    use_computation,
)
from bh_studio.engine.experiments.runner import RowError, run
from bh_studio.engine.files.plain_json import JsonError
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import ExperimentEvent, RowReady
from bh_studio.engine.protocol.experiments import Experiment, kind_of, settled
from bh_studio.engine.records.journal import Journal
from bh_studio.engine.records.journal_versions import newest_version
from bh_studio.engine.records.result_document import now


def run_kept(
    loaded: LoadedModel,
    definition: Experiment,
    journal: Journal,
    cancel: CancelToken | None = None,
) -> Generator[ExperimentEvent, None, None]:
    """The events of `run`, from where `journal` is; a row is on disk before its RowReady comes.

    Sums are rounded from then on, in this whole process, as they were for the rows there are. With
    the first event `journal.rows` holds what was taken over.

    Raises InputError if those rows were made with other settings or another model, or are none that
    the experiment has; EngineError if this machine cannot compute as that one did or the disk
    refuses a row; and what `run` raises.
    """
    definition = settled(definition, loaded.info)
    _begin(loaded, definition, journal)
    try:
        with closing(run(loaded, definition, dict(journal.rows), cancel)) as events:
            for event in events:
                if isinstance(event, RowReady):
                    journal.add(event.key, event.row)
                yield event
    except RowError as error:
        raise journal.refusal(str(error)) from error


def _begin(loaded: LoadedModel, definition: Experiment, journal: Journal) -> None:
    """Have the journal say how its rows are made; compute as it says if it has any."""
    rows = journal.begin(
        {
            "schema_version": newest_version(kind_of(definition)),
            "kind": kind_of(definition),
            "settings": definition.settings(),
            "model": asdict(loaded.info),
            "computation": describe_computation(),
            "environment": describe_environment(),
            "started_at": now(),
        }
    )
    computation = journal.header.get("computation")
    if rows and computation is not None and not journal.is_finished:
        try:
            use_computation(computation)
        except JsonError as error:
            raise journal.refusal(str(error)) from error
