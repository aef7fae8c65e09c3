"""The model's own routing and a rule answer one prompt, taking turns. Knows no file."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from datetime import datetime
from typing import Any, NoReturn

from bh_studio.engine.errors import Cancelled, CancelToken, InputError
from bh_studio.engine.experiments.environment import describe_environment
from bh_studio.engine.experiments.sides import (
    answer_in_turns,
    prompt_ids_of,
    routings_of,
    shortages,
)
from bh_studio.engine.experiments.stages import Stage, Stepped, Unit
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import UnitEvent
from bh_studio.engine.protocol.experiments import Comparison, conversation_of
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import FinishReason


class ComparisonLaboratory:
    """A comparison with a model. What it has said when it is stopped is its result.

    Raises EngineError for a prompt that encode_prompt refuses, ValueError for a rule that does not
    fit the model.
    """

    def __init__(self, loaded: LoadedModel, definition: Comparison) -> None:
        self._loaded, self._definition = loaded, definition
        self._started_at = _now()
        self._conversation = conversation_of(definition, loaded.info)
        self._prompt_ids = prompt_ids_of(
            loaded, definition.prompt, self._conversation, len(definition.sides)
        )
        self._routings = routings_of(loaded, definition.sides)
        self._session: Session | None = None

    def stages(self, rows: Mapping[str, None]) -> Iterator[Stage]:
        """The one answer of all sides."""
        del rows
        yield Stage("answers", (Unit("answers", 1, None),))

    def compute(
        self, unit: Unit, cancel: CancelToken
    ) -> Generator[UnitEvent | Stepped, None, None]:
        """Answer the prompt; what the sides say on the way."""
        del unit
        yield from shortages(self._routings)
        definition = self._definition
        records = yield from answer_in_turns(
            self._loaded, self._prompt_ids, self._routings, definition.generation, cancel
        )
        self._session = Session(
            model=self._loaded.info,
            sides=definition.sides,
            generation=definition.generation,
            prompt=definition.prompt,
            conversation=self._conversation,
            records=records,
            environment=describe_environment(),
            started_at=self._started_at,
            finished_at=_now(),
        )
        if any(record.finish_reason is FinishReason.STOPPED for record in records):
            raise Cancelled

    def document(self, rows: Mapping[str, None], is_complete: bool) -> Session | None:
        """The session, also one that was stopped."""
        del rows, is_complete
        return self._session

    def row_from_json(self, values: dict[str, Any]) -> NoReturn:
        """Raises InputError: an answer that was stopped is not gone on with."""
        raise InputError("Every run of a comparison answers anew, so it takes over no rows.")


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
