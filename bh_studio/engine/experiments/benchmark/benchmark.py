"""Speed of decoding on this machine: stock `generate`, both sides and what limits them, in one run.

Every round measures every contender once on the same prompt, in an order that rotates, so that
what else the machine does falls on all of them alike.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from bh_studio.engine.errors import Cancelled, CancelToken, InputError
from bh_studio.engine.experiments.benchmark.clocks import Clocks
from bh_studio.engine.experiments.benchmark.stock_generate import without_traces
from bh_studio.engine.experiments.stages import Stage, Stepped, Unit
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import Activity, UnitEvent
from bh_studio.engine.protocol.experiments import Benchmark
from bh_studio.engine.records.benchmark.result import BenchResult
from bh_studio.engine.records.benchmark.round import RoundRow


class BenchmarkLaboratory:
    """A benchmark of a model."""

    def __init__(self, loaded: LoadedModel, definition: Benchmark) -> None:
        self._loaded, self._definition = loaded, definition
        self._clocks: Clocks | None = None
        self._cancel = CancelToken()

    def stages(self, rows: Mapping[str, RoundRow]) -> Generator[Stage, None, None]:
        """All rounds; the model is as it was once they are over, or this is closed."""
        del rows
        with without_traces(self._loaded.model):
            numbers = range(self._definition.rounds)
            yield Stage("rounds", tuple(Unit(_key(number), 1, number) for number in numbers))

    def compute(
        self, unit: Unit, cancel: CancelToken
    ) -> Generator[UnitEvent | Stepped, None, RoundRow]:
        """Measure one round; before the first, find out and warm up what all of them need."""
        self._cancel = cancel
        if self._clocks is None:
            self._clocks = yield from self._prepared()
        return (yield from self._clocks.measure(unit.work))

    def document(self, rows: Mapping[str, RoundRow], is_complete: bool) -> BenchResult | None:
        """What the rounds that were complete say; None without one."""
        del is_complete
        keys = map(_key, range(self._definition.rounds))
        found = [rows[key] for key in keys if key in rows]
        return self._clocks.result(found) if self._clocks is not None and found else None

    def row_from_json(self, values: dict[str, Any]) -> RoundRow:
        """Raises InputError: what was timed at two times cannot be compared."""
        raise InputError("Timings of two runs do not mix, so a benchmark takes over no rounds.")

    def _prepared(self) -> Generator[Activity, None, Clocks]:
        yield Activity("Looking for the level")
        clocks = Clocks(self._loaded, self._definition, self._before_token)
        yield from clocks.warm_up()
        return clocks

    def _before_token(self) -> None:
        if self._cancel.is_cancelled:
            raise Cancelled


def _key(number: int) -> str:
    return f"round {number}"
