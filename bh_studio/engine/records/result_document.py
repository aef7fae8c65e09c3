"""A result as its file holds it: what it says of itself, and the header that says how it was made.

Knows no experiment and no model.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

from bh_studio.engine.records.journal import Journal, with_rows


class Result(Protocol):
    """What an experiment came to."""

    @property
    def is_complete(self) -> bool:
        """Whether all of it is known."""

    def to_json(self) -> dict[str, Any]:
        """What it says of itself, for json.dump; without "rows" they are what was kept of them."""


def result_document(journal: Journal, result: Result) -> dict[str, Any]:
    """The whole of `result`, ready for json.dump; its rows, each with its key, are under "rows".

    journal: of its rows, and begun. Where an earlier run has finished it, what that said holds.
    """
    content = result.to_json()
    content.setdefault("rows", [{"key": key, **row} for key, row in journal.rows.items()])
    finished_at = journal.header.get("finished_at", now())
    whole = {**content, **journal.header}
    return {**whole, "finished_at": finished_at, "complete": result.is_complete}


def file_of(document: dict[str, Any]) -> bytes:
    """The file that `document` is kept as, which the next run can go on from."""
    rest = {name: value for name, value in document.items() if name != "rows"}
    return with_rows(rest, {row["key"]: row for row in document["rows"]})


def now() -> str:
    """The time as headers and results say it."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
