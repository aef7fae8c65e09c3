"""Many prompts, each answered with both routings, which take turns. Knows no file."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Any

from bh_studio.engine.errors import Cancelled, CancelToken, EngineError
from bh_studio.engine.experiments.comparison import compare
from bh_studio.engine.experiments.prompt import check_chat_template, encode_prompt
from bh_studio.engine.experiments.stages import Stage, Stepped, Unit
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import Notice, RunFinished, TokenGenerated, UnitEvent
from bh_studio.engine.protocol.experiments import Batch, RunComparison
from bh_studio.engine.records.rows import (
    Agreement,
    Answer,
    BatchResult,
    FilePrompt,
    PromptRow,
    SkippedRow,
    prompt_row_from_json,
)
from bh_studio.engine.records.terms import FinishReason, Side
from bh_studio.engine.rules.parameters import RuleParameters


class BatchLaboratory:
    """A batch with a model.

    Raises ValueError for a rule that does not fit the model, EngineError for a conversation with a
    model that has no chat template.
    """

    def __init__(self, loaded: LoadedModel, definition: Batch) -> None:
        self._loaded, self._definition = loaded, definition
        rule = definition.sides[1]
        assert isinstance(rule, RuleParameters)
        rule.check_shape(loaded.shape.layers, loaded.shape.experts)
        if definition.conversation is not None:
            check_chat_template(loaded)
        self._rule = rule

    def stages(self, rows: Mapping[str, PromptRow | SkippedRow]) -> Iterator[Stage]:
        """All prompts at once: none depends on another."""
        del rows
        prompts = self._definition.prompts
        yield Stage("prompts", tuple(Unit(str(asked.line), 1, asked) for asked in prompts))

    def compute(
        self, unit: Unit, cancel: CancelToken
    ) -> Generator[UnitEvent | Stepped, None, PromptRow | SkippedRow]:
        """Answer one prompt with both routings; their tokens on the way."""
        asked: FilePrompt = unit.work
        definition = self._definition
        try:
            for side in Side:
                encode_prompt(self._loaded, asked.prompt, definition.conversation, side)
        except EngineError as error:
            return SkippedRow(asked.line, error.message)
        request = RunComparison(
            asked.line, asked.prompt, self._rule, definition.generation, definition.conversation,
            cancel,
        )  # fmt: skip
        for event in compare(self._loaded, request):
            if isinstance(event, TokenGenerated | Notice):
                yield event
            elif isinstance(event, RunFinished):
                records = [event.session.sides[side] for side in Side]
                if any(r.finish_reason is FinishReason.STOPPED for r in records):
                    break
                baseline, bh = (Answer.of(record) for record in records)
                return PromptRow(asked, baseline, bh, Agreement.between(baseline, bh))
        raise Cancelled

    def document(
        self, rows: Mapping[str, PromptRow | SkippedRow], is_complete: bool
    ) -> BatchResult | None:
        """The rows there are, in the order of the prompts."""
        found = [rows.get(str(asked.line)) for asked in self._definition.prompts]
        return BatchResult(tuple(row for row in found if row is not None), is_complete)

    def row_from_json(self, values: dict[str, Any]) -> PromptRow | SkippedRow:
        """The row that to_json wrote. Raises KeyError, TypeError or ValueError for others."""
        return prompt_row_from_json(values)
