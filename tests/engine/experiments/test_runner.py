"""The loop around every laboratory: what it closes, and when."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any
from unittest.mock import Mock

import pytest

from bh_studio.engine.errors import Cancelled, CancelToken
from bh_studio.engine.experiments import laboratories, runner
from bh_studio.engine.experiments.stages import Stage, Stepped, Unit
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import Finished, Notice, Progress, RowReady, UnitEvent
from bh_studio.engine.protocol.experiments import Calibration

ANY = Calibration(texts=())


@dataclass(frozen=True, slots=True)
class FakeRow:
    key: str

    def to_json(self) -> dict[str, Any]:
        return {"key": self.key}


class FakeLaboratory:
    """Two units of two steps; notes what is opened and closed. fails: raise in the first unit.

    Holds on to its generators, so that none is closed by being forgotten.
    """

    def __init__(self, fails: bool = False) -> None:
        self.noted: list[str] = []
        self._fails = fails
        self._held: list[Generator[Any, None, Any]] = []

    def __call__(self, _loaded: LoadedModel, _definition: Calibration) -> FakeLaboratory:
        return self

    def stages(self, _rows: Mapping[str, FakeRow]) -> Generator[Stage, None, None]:
        self._held.append(self._stages())
        return self._held[-1]

    def compute(
        self, unit: Unit, cancel: CancelToken
    ) -> Generator[UnitEvent | Stepped, None, FakeRow]:
        self._held.append(self._compute(unit, cancel))
        return self._held[-1]

    def _stages(self) -> Generator[Stage, None, None]:
        self.noted.append("stages")
        try:
            yield Stage("units", (Unit("a", 2, None), Unit("b", 2, None)))
        finally:
            self.noted.append("stages closed")

    def _compute(
        self, unit: Unit, cancel: CancelToken
    ) -> Generator[UnitEvent | Stepped, None, FakeRow]:
        if cancel.is_cancelled:
            raise Cancelled
        self.noted.append(unit.key)
        try:
            yield Notice("begun")
            if self._fails:
                raise KeyError
            yield Stepped(1)
            return FakeRow(unit.key)
        finally:
            self.noted.append(f"{unit.key} closed")

    def document(self, rows: Mapping[str, FakeRow], is_complete: bool) -> list[str] | None:
        self.noted.append("document")
        return list(rows) or None


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    def installed(laboratory: FakeLaboratory) -> FakeLaboratory:
        monkeypatch.setattr(laboratories, "LABORATORIES", {Calibration: laboratory})
        return laboratory

    return installed


def started(cancel: CancelToken | None = None) -> Generator[Any, None, None]:
    loaded: Any = Mock()
    return runner.run(loaded, ANY, None, cancel)


def test_what_happens_comes_in_order_and_everything_is_closed(install: Any) -> None:
    laboratory = install(FakeLaboratory())
    assert list(started()) == [
        Progress("units", 0, 4),
        Notice("begun"),
        Progress("units", 1, 4),
        RowReady("a", {"key": "a"}),
        Progress("units", 2, 4),
        Notice("begun"),
        Progress("units", 3, 4),
        RowReady("b", {"key": "b"}),
        Progress("units", 4, 4),
        Finished(["a", "b"], is_complete=True),
    ]
    assert laboratory.noted == [
        "stages", "a", "a closed", "b", "b closed", "stages closed", "document",
    ]  # fmt: skip


def test_who_stops_listening_closes_the_unit_and_then_the_stages(install: Any) -> None:
    laboratory = install(FakeLaboratory())
    events = started()
    assert next(events) == Progress("units", 0, 4)
    assert next(events) == Notice("begun")
    events.close()
    assert laboratory.noted == ["stages", "a", "a closed", "stages closed"]


def test_an_error_closes_both(install: Any) -> None:
    laboratory = install(FakeLaboratory(fails=True))
    with pytest.raises(KeyError):
        list(started())
    assert laboratory.noted == ["stages", "a", "a closed", "stages closed"]


def test_cancelling_closes_the_stages_before_there_is_a_document(install: Any) -> None:
    laboratory = install(FakeLaboratory())
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        list(started(cancel))
    assert laboratory.noted == ["stages", "stages closed", "document"]
