"""`bh-studio models`: the models there are, and what is here of each."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from typing import Any

from bh_studio import paths
from bh_studio.cli.terminal.streams import EXIT_OK, print_result
from bh_studio.engine.hub.cache import cache_dir
from bh_studio.engine.hub.catalogue import HubModel, hub_models
from bh_studio.engine.hub.status import HubState
from bh_studio.engine.units import format_bytes

_STATES = {
    HubState.COMPLETE: "complete",
    HubState.UNVERIFIED: "here, not verified",
    HubState.PARTIAL: "incomplete",
    HubState.NOT_THERE: "not here",
}
_EMBEDDED = "a small OLMoE that is part of the program"


@dataclass(frozen=True, slots=True)
class _Row:
    """model: what --model takes. present, total: bytes; total None where that is not known."""

    model: str
    state: str
    present: int
    total: int | None
    folder: str | None
    description: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what this command does, and add its arguments."""
    parser.description = (
        "List the embedded model, the models on the hub that BH Studio was made for, "
        "and the mixture-of-experts models in the hub's cache besides. Needs no network."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    rows = [_embedded(), *map(_row, hub_models())]
    print_result(json.dumps(_document(rows)) if arguments.json else _table(rows))
    return EXIT_OK


def _embedded() -> _Row:
    folder = paths.resource("models/olmoe-nano")
    size = sum(path.stat().st_size for path in folder.iterdir())
    return _Row("embedded", "part of the program", size, size, str(folder), _EMBEDDED)


def _row(model: HubModel) -> _Row:
    status = model.status
    folder = None if status.folder is None else str(status.folder)
    state = _STATES[status.state]
    return _Row(str(model.source), state, status.present, status.total, folder, model.description)


def _document(rows: list[_Row]) -> dict[str, Any]:
    names = ("model", "state", "present", "total", "folder", "description")
    models = [{name: getattr(row, name) for name in names} for row in rows]
    return {"cache": str(cache_dir()), "models": models}


def _table(rows: list[_Row]) -> str:
    sizes = [_size(row) for row in rows]
    width = max(len(row.model) for row in rows)
    size_width = max(map(len, sizes))
    state_width = max(len(row.state) for row in rows)
    lines = [
        f"{row.model:<{width}}  {size:>{size_width}}  {row.state:<{state_width}}  "
        f"{row.description}".rstrip()
        for row, size in zip(rows, sizes, strict=True)
    ]
    return "\n".join(
        [*lines, "", f"Hub cache: {cache_dir()}", "Fetch a model with `bh-studio download MODEL`."]
    )


def _size(row: _Row) -> str:
    if row.present == row.total:
        return format_bytes(row.present)
    if row.total is not None:
        return f"{format_bytes(row.present)} of {format_bytes(row.total)}"
    return format_bytes(row.present) if row.present else "-"
