"""What every laboratory is made of: stages of independent units, and the rows that they give.

What comes next may depend on what came: a laboratory yields one stage after another, each made from
the rows so far. The units of one stage may run anywhere and in any order; what a unit computes
depends on the definition, the model and the unit alone, so rows that are known need not be computed
again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from bh_studio.engine.errors import CancelToken
from bh_studio.engine.protocol.events import UnitEvent


def _any_row(row: object) -> bool:
    del row
    return True


class Unit(NamedTuple):
    """One piece of work.

    key: its name among all units of the experiment, the same in every run. steps: how much there is
    to do, in the measure of its stage. work: what the laboratory needs to know of it. fits: whether
    a row that was read can be what it gave, as far as its shape says.
    """

    key: str
    steps: int
    work: Any
    fits: Callable[[Any], bool] = _any_row


@dataclass(frozen=True, slots=True)
class Stage:
    """Units that do not depend on each other.

    name: what they do, for people. later: about how many steps the stages after this one take.
    """

    name: str
    units: tuple[Unit, ...]
    later: int = 0


class Stepped(NamedTuple):
    """So many more steps of a unit are done."""

    steps: int


class Row(Protocol):
    """What a unit gave."""

    def to_json(self) -> dict[str, Any]:
        """The row as plain values that `row_from_json` of its laboratory reads back equal."""


R = TypeVar("R", bound=Row)


class Laboratory(Protocol[R]):
    """An experiment with a model that is loaded. Making one checks that the two fit.

    Who asks for stages and units closes both generators, also those that are not at their end: what
    must be put back afterwards can stand in a `with` block around what they yield.
    """

    def stages(self, rows: Mapping[str, R]) -> Generator[Stage, None, None]:
        """One stage after another; `rows` holds those of all units of the former ones by then."""

    def compute(self, unit: Unit, cancel: CancelToken) -> Generator[UnitEvent | Stepped, None, R]:
        """Do `unit`, which may be cancelled already; what happens on the way, and then its row.

        The row is None where nothing can be gone on with later. Raises Cancelled.
        """

    def document(self, rows: Mapping[str, R], is_complete: bool) -> Any:
        """What is known from `rows`; None if that is nothing yet."""

    def row_from_json(self, values: dict[str, Any]) -> R:
        """The row that to_json wrote. Raises KeyError, TypeError or ValueError for others, and
        InputError if rows of an earlier run are of no use, as those that say how fast it was."""
