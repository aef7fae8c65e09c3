"""One prompt or many with the model's own routing and with each of several rules, one by one.

Each answer is alone on the machine while it is made, so speeds can be compared. Knows no file.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

from bh_studio.engine.errors import Cancelled, CancelToken, EngineError
from bh_studio.engine.experiments.side_run import SideRun
from bh_studio.engine.experiments.sides import prompt_ids_of, routings_of, shortages
from bh_studio.engine.experiments.stages import Stage, Stepped, Unit
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import UnitEvent
from bh_studio.engine.protocol.experiments import Sweep, conversation_of
from bh_studio.engine.records.rows import Answer
from bh_studio.engine.records.sweep import SweepResult, sweep_key


class _Work(NamedTuple):
    """prompt, seed, side: places among those of the definition."""

    prompt: int
    seed: int
    side: int


class SweepLaboratory:
    """A sweep with a model.

    Prompts that the model cannot answer are left out; if there is no other, that is an error.

    Raises EngineError for that, ValueError for rules that do not fit the model.
    """

    def __init__(self, loaded: LoadedModel, definition: Sweep) -> None:
        self._loaded, self._definition = loaded, definition
        # All of them now: a rule that does not fit should end the sweep before the work, not after.
        self._routings = routings_of(loaded, definition.sides)
        conversation = conversation_of(definition, loaded.info)
        self._prompt_ids: dict[int, list[list[int]]] = {}
        self._refused: dict[int, str] = {}
        for number, prompt in enumerate(definition.prompts):
            try:
                self._prompt_ids[number] = prompt_ids_of(
                    loaded, prompt, conversation, len(definition.sides)
                )
            except EngineError as error:
                if len(definition.prompts) == 1:
                    raise
                self._refused[number] = error.message
        if not self._prompt_ids:
            (reason, *_) = self._refused.values()
            raise EngineError(
                f"None of the {len(definition.prompts)} prompts can be answered.",
                f"Of the first one: {reason}",
            )

    def stages(self, rows: Mapping[str, Answer]) -> Generator[Stage, None, None]:
        """All answers at once: none depends on another."""
        del rows
        definition = self._definition
        yield Stage(
            "answers",
            tuple(
                Unit(sweep_key(prompt, seed, side), 1, _Work(prompt, seed, side), self._fits)
                for prompt in self._prompt_ids
                for seed in range(definition.seeds)
                for side in range(len(definition.sides))
            ),
        )

    def compute(
        self, unit: Unit, cancel: CancelToken
    ) -> Generator[UnitEvent | Stepped, None, Answer]:
        """Answer one prompt with one routing; its tokens on the way."""
        work: _Work = unit.work
        routing = self._routings[work.side]
        yield from shortages([routing])
        generation = self._definition.generation
        run = SideRun(
            self._loaded,
            self._prompt_ids[work.prompt][work.side],
            replace(generation, seed=generation.seed + work.seed),
            work.side,
            routing,
        )
        with closing(run):
            while not cancel.is_cancelled:
                token, reason = run.step()
                yield token
                if reason is not None:
                    return Answer.of(run.finish(reason).record)
        raise Cancelled

    def document(self, rows: Mapping[str, Answer], is_complete: bool) -> SweepResult | None:
        """The answers there are, in the order of the definition."""
        definition = self._definition
        return SweepResult(
            definition.prompts,
            definition.sides,
            definition.seeds,
            dict(rows),
            self._refused,
            is_complete,
        )

    def _fits(self, row: Answer) -> bool:
        return row.fits(self._loaded.shape.layers)

    def row_from_json(self, values: dict[str, Any]) -> Answer:
        """The row that to_json wrote. Raises KeyError, TypeError or ValueError for others."""
        return Answer.from_json(values)
