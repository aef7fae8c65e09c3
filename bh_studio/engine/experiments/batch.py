"""Many prompts, each answered by all sides, which take turns. Knows no file."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from bh_studio.engine.errors import Cancelled, CancelToken, EngineError, InputError
from bh_studio.engine.experiments.sides import (
    answer_in_turns,
    prompt_ids_of,
    routings_of,
    shortages,
)
from bh_studio.engine.experiments.stages import Stage, Stepped, Unit
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import UnitEvent
from bh_studio.engine.protocol.experiments import Batch, conversation_of
from bh_studio.engine.records.batch import BatchResult
from bh_studio.engine.records.rows import (
    Answer,
    FilePrompt,
    PromptRow,
    SkippedRow,
    prompt_row_from_json,
)
from bh_studio.engine.records.terms import FinishReason


class BatchLaboratory:
    """A batch with a model.

    Raises ValueError for a rule that cannot be had with the model's nulls.
    """

    def __init__(self, loaded: LoadedModel, definition: Batch) -> None:
        self._loaded, self._definition = loaded, definition
        self._routings = routings_of(loaded, definition.sides)
        self._conversation = conversation_of(definition, loaded.info)

    def stages(self, rows: Mapping[str, PromptRow | SkippedRow]) -> Generator[Stage, None, None]:
        """All prompts at once: none depends on another. Raises InputError for rows of others."""
        prompts = self._definition.prompts
        for asked in prompts:
            row = rows.get(str(asked.line))
            # The hash is of the file that the prompts are from; a definition can be edited.
            if isinstance(row, PromptRow) and row.asked != asked:
                raise InputError(
                    f"The row of line {asked.line} answers another prompt than there is now.",
                    "Choose another --out, or start over with --restart.",
                )
        yield Stage(
            "prompts", tuple(Unit(str(asked.line), 1, asked, self._fits) for asked in prompts)
        )

    def compute(
        self, unit: Unit, cancel: CancelToken
    ) -> Generator[UnitEvent | Stepped, None, PromptRow | SkippedRow]:
        """Answer one prompt with each side; their tokens on the way."""
        asked: FilePrompt = unit.work
        definition = self._definition
        try:
            prompt_ids = prompt_ids_of(
                self._loaded, asked.prompt, self._conversation, len(definition.sides)
            )
        except EngineError as error:
            return SkippedRow(asked.line, error.message)
        yield from shortages(self._routings)
        records = yield from answer_in_turns(
            self._loaded, prompt_ids, self._routings, definition.generation, cancel
        )
        if any(record.finish_reason is FinishReason.STOPPED for record in records):
            raise Cancelled
        return PromptRow.of(asked, [Answer.of(record) for record in records])

    def document(
        self, rows: Mapping[str, PromptRow | SkippedRow], is_complete: bool
    ) -> BatchResult | None:
        """The rows there are, in the order of the prompts."""
        definition = self._definition
        found = [rows.get(str(asked.line)) for asked in definition.prompts]
        return BatchResult(
            definition.prompts_name,
            definition.prompts_sha256,
            definition.sides,
            definition.unusable,
            tuple(row for row in found if row is not None),
            is_complete,
        )

    def _fits(self, row: PromptRow | SkippedRow) -> bool:
        layers = self._loaded.shape.layers
        return isinstance(row, SkippedRow) or (
            len(row.answers) == len(self._routings) and all(one.fits(layers) for one in row.answers)
        )

    def row_from_json(self, values: dict[str, Any]) -> PromptRow | SkippedRow:
        """The row that to_json wrote. Raises KeyError, TypeError or ValueError for others."""
        return prompt_row_from_json(values)
