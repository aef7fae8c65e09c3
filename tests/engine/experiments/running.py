"""Experiments run to their end, and rows as a journal would have kept them."""

from __future__ import annotations

import json
from typing import Any

from bh_studio.engine.errors import CancelToken
from bh_studio.engine.experiments.runner import run
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import Finished, RowReady
from bh_studio.engine.protocol.experiments import Experiment

Rows = dict[str, dict[str, Any]]


def result_of(loaded: LoadedModel | None, definition: Experiment, rows: Rows | None = None) -> Any:
    """The document at the end of `definition`, gone on with from `rows`."""
    *_, last = run(loaded, definition, rows)
    assert isinstance(last, Finished)
    assert last.is_complete
    return last.document


def rows_of(loaded: LoadedModel | None, definition: Experiment, most: int | None = None) -> Rows:
    """The first `most` rows of `definition`, or all, after a way through JSON."""
    rows: Rows = {}
    cancel = CancelToken()
    for event in run(loaded, definition, {}, cancel):
        if isinstance(event, RowReady):
            rows[event.key] = json.loads(json.dumps(event.row, allow_nan=False))
            if len(rows) == most:
                break
    return rows
