"""Recording a model's router logits on texts of one's own, window by window. Knows no file."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

from bh_studio.engine.calibration.recorder import Reading
from bh_studio.engine.errors import Cancelled, CancelToken
from bh_studio.engine.experiments.stages import Stage, Stepped, Unit
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import UnitEvent
from bh_studio.engine.protocol.experiments import Calibration
from bh_studio.engine.records.calibration import FisherRow, LogitsRow
from bh_studio.engine.records.recording import RecordedLogits

CalibrationRow = LogitsRow | FisherRow
# Forward and backward take about three times as long as forward alone.
_BACKWARD_STEPS = 3


class _Work(NamedTuple):
    """A window, and whether it is differentiated."""

    number: int
    differentiates: bool


class CalibrationLaboratory:
    """A recording with a model. Raises EngineError for texts that are too short together."""

    def __init__(self, loaded: LoadedModel, definition: Calibration) -> None:
        texts = [text.content for text in definition.texts]
        self._reading = Reading(loaded.model, loaded.tokenizer, texts, definition.factors)

    def stages(self, rows: Mapping[str, CalibrationRow]) -> Generator[Stage, None, None]:
        """Every window is read; then differentiated, if a factor needs that."""
        del rows
        numbers = range(len(self._reading.windows))
        later = _BACKWARD_STEPS * len(numbers) if self._reading.has_sensitivity else 0
        yield Stage(
            "reading",
            tuple(Unit(_key(n, False), 1, _Work(n, False), self._fit(n)) for n in numbers),
            later,
        )
        if later:
            units = (
                Unit(_key(n, True), _BACKWARD_STEPS, _Work(n, True), self._fit(n, True))
                for n in numbers
            )
            yield Stage("sensitivities", tuple(units))

    def compute(
        self, unit: Unit, cancel: CancelToken
    ) -> Generator[UnitEvent | Stepped, None, CalibrationRow]:
        """One window, which is read at once."""
        if cancel.is_cancelled:
            raise Cancelled
        work: _Work = unit.work
        yield from ()
        if work.differentiates:
            return self._reading.differentiate(work.number)
        return self._reading.record(work.number)

    def document(
        self, rows: Mapping[str, CalibrationRow], is_complete: bool
    ) -> RecordedLogits | None:
        """The recording; None as long as it is not complete."""
        if not is_complete:
            return None
        numbers = range(len(self._reading.windows))
        found = [rows[_key(n, False)] for n in numbers]
        effects = [rows[_key(n, True)] for n in numbers if self._reading.has_sensitivity]
        return self._reading.joined(
            [row for row in found if isinstance(row, LogitsRow)],
            [row for row in effects if isinstance(row, FisherRow)],
        ).arrays

    def _fit(self, number: int, differentiates: bool = False) -> Callable[[CalibrationRow], bool]:
        return lambda row: (
            isinstance(row, FisherRow) is differentiates and self._reading.fits(number, row)
        )

    def row_from_json(self, values: dict[str, Any]) -> CalibrationRow:
        """The row that to_json wrote. Raises KeyError, TypeError or ValueError for others."""
        return FisherRow.from_json(values) if "squares" in values else LogitsRow.from_json(values)


def _key(number: int, differentiates: bool) -> str:
    return f"{'sensitivities' if differentiates else 'reading'} {number}"
