"""The model's own routing and a rule answer one prompt, taking turns. Knows no file."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any, NoReturn

from bh_studio.engine.errors import Cancelled, CancelToken, InputError
from bh_studio.engine.experiments.environment import describe_environment
from bh_studio.engine.experiments.proof.proving import Proving
from bh_studio.engine.experiments.sides import (
    answer_in_turns,
    prompt_ids_of,
    routings_of,
    shortages,
)
from bh_studio.engine.experiments.stages import Stage, Stepped, Unit
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import RunBegan, UnitEvent
from bh_studio.engine.protocol.experiments import Comparison, conversation_of
from bh_studio.engine.records.result_document import now
from bh_studio.engine.records.runs.lines import RunHeader
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import FinishReason


class ComparisonLaboratory:
    """A comparison with a model. What it has said when it is stopped is its result.

    Raises EngineError for a prompt that encode_prompt refuses, ValueError for a rule that does not
    fit the model.
    """

    def __init__(self, loaded: LoadedModel, definition: Comparison) -> None:
        started_at = now()
        self._loaded, self._keep, self._prove = loaded, definition.keep, definition.prove
        conversation = conversation_of(definition, loaded.info)
        self._prompt_ids = prompt_ids_of(
            loaded, definition.prompt, conversation, len(definition.sides)
        )
        self._routings = routings_of(loaded, definition.sides)
        self._header = RunHeader(
            model=loaded.info,
            sides=definition.sides,
            generation=definition.generation,
            prompt=definition.prompt,
            conversation=conversation,
            prompt_token_ids=tuple(map(tuple, self._prompt_ids)),
            environment=describe_environment(),
            started_at=started_at,
        )
        self._session: Session | None = None

    def stages(self, rows: Mapping[str, None]) -> Iterator[Stage]:
        """The one answer of all sides."""
        del rows
        yield Stage("answers", (Unit("answers", 1, None),))

    def compute(
        self, unit: Unit, cancel: CancelToken
    ) -> Generator[UnitEvent | Stepped, None, None]:
        """Answer the prompt; what the sides say on the way. Then check it, if that is wanted."""
        del unit
        header, proving = self._header, None
        yield RunBegan(header)
        yield from shortages(self._routings)
        if self._prove:
            asked = self._prompt_ids, self._routings, header.generation
            proving = Proving(self._loaded, *asked)
        records = yield from answer_in_turns(
            self._loaded,
            self._prompt_ids,
            self._routings,
            header.generation,
            cancel,
            self._keep,
            () if proving is None else proving.watches,
        )
        self._session = header.session(records, now())
        if any(record.finish_reason is FinishReason.STOPPED for record in records):
            raise Cancelled
        if proving is not None:
            try:
                yield from proving.checks(records, cancel)
            finally:
                self._session = replace(self._session, proof=proving.proof)

    def document(self, rows: Mapping[str, None], is_complete: bool) -> Session | None:
        """The session, also one that was stopped."""
        del rows, is_complete
        return self._session

    def row_from_json(self, values: dict[str, Any]) -> NoReturn:
        """Raises InputError: an answer that was stopped is not gone on with."""
        raise InputError("Every run of a comparison answers anew, so it takes over no rows.")
