"""The same given text read by one to four sides, each in one pass. Knows no file.

Nothing is generated, so the sides never part: each predicts the same tokens after the same tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bh_studio.engine.decoding.detokenizer import texts_of
from bh_studio.engine.decoding.pass_recorder import PassRecorder
from bh_studio.engine.decoding.side import most_slots
from bh_studio.engine.errors import Cancelled, CancelToken
from bh_studio.engine.experiments.environment import describe_environment
from bh_studio.engine.experiments.evaluation.one_pass import last_states, predictions
from bh_studio.engine.experiments.evaluation.teacher_forcing import encode, pass_counts
from bh_studio.engine.experiments.sides import routings_of, shortages
from bh_studio.engine.experiments.stages import Stage, Stepped, Unit
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import UnitEvent
from bh_studio.engine.protocol.experiments import SameText
from bh_studio.engine.protocol.texts import Text, TextTooLong
from bh_studio.engine.records.decisions.decision import Decision
from bh_studio.engine.records.decisions.drift import Drift
from bh_studio.engine.records.same_text.result import SameTextResult, side_key
from bh_studio.engine.records.same_text.side_reading import SideReading
from bh_studio.engine.routing.drift import drift_of
from bh_studio.engine.rules.parameters import RuleParameters

# Router logits of one side that are kept, in bytes: of 8,192 tokens of OLMoE.
_MOST_KEPT = 2**25


class SameTextLaboratory:
    """A text that is read with a model.

    Raises EngineError for a text that the model cannot read or that has nothing to predict, which
    is TextTooLong for more tokens than it reads at once; ValueError for rules that do not fit the
    model.
    """

    def __init__(self, loaded: LoadedModel, definition: SameText) -> None:
        self._loaded, self._definition = loaded, definition
        (self._ids,) = encode(loaded, (definition.text,))
        most = loaded.info.context_length
        if len(self._ids) > most:
            beginning = _beginning(loaded, definition.text, most)
            raise TextTooLong(
                f"{definition.text.name} has {len(self._ids):,} tokens, "
                f"{len(self._ids) - most:,} too many: this model reads at most {most:,} at once.",
                f"Its first {len(beginning.content):,} characters fit. `bh-studio evaluate` "
                "measures rules on a text of any length.",
                beginning,
            )
        self._routings = routings_of(loaded, definition.sides)
        self._first_states: Tensor | None = None

    def stages(self, rows: Mapping[str, SideReading]) -> Iterator[Stage]:
        """Each side reads the text."""
        del rows
        units = (
            Unit(side_key(side), 1, side, functools.partial(self._fits, rule))
            for side, rule in enumerate(self._definition.sides)
        )
        yield Stage("sides", tuple(units))

    def compute(
        self, unit: Unit, cancel: CancelToken
    ) -> Generator[UnitEvent | Stepped, None, SideReading]:
        """Have one side read the text."""
        if cancel.is_cancelled:
            raise Cancelled
        side: int = unit.work
        yield from shortages((self._routings[side],))
        return self._reading(side)

    def document(self, rows: Mapping[str, SideReading], is_complete: bool) -> SameTextResult | None:
        """The result as far as sides have read, in their order."""
        keys = [side_key(side) for side in range(len(self._definition.sides))]
        known = keys if is_complete else [key for key in keys if key in rows]
        if not known or known != keys[: len(known)]:
            return None
        token_ids = self._ids.tolist()
        return SameTextResult(
            model=self._loaded.info,
            text_name=self._definition.text.name,
            text_sha256=self._definition.text.sha256,
            token_ids=tuple(token_ids),
            token_texts=texts_of(self._loaded.tokenizer, token_ids),
            sides=self._definition.sides,
            readings=tuple(rows[key] for key in known),
            is_complete=is_complete,
            environment=describe_environment(),
        )

    def row_from_json(self, values: dict[str, Any]) -> SideReading:
        """The row that to_json wrote. Raises KeyError, TypeError or ValueError for others."""
        return SideReading.from_json(values)

    def _fits(self, rule: RuleParameters | None, row: SideReading) -> bool:
        shape = self._loaded.shape
        return row.fits(rule, len(self._ids) - 1, shape.layers, shape.experts)

    @torch.inference_mode()
    def _reading(self, side: int) -> SideReading:
        states, decision = self._states(side, records=self._keeps_decisions)
        # Right after the pass: it may be followed by one of side A.
        counts, raw_counts = pass_counts(self._routings[side], len(states), self._loaded.shape)
        if side == 0:
            self._first_states = states
        elif self._first_states is None:
            # The reading of side A was taken over from an earlier run.
            self._first_states, _ = self._states(0, records=False)
        judgements, ranks = predictions(self._loaded, states, self._first_states, self._ids[1:])
        return SideReading(
            rule=self._definition.sides[side],
            log_probabilities=-judgements[0],
            ranks=ranks,
            kl=judgements[1],
            # In one order, so that sums over them are rounded as over those of a file.
            counts=counts.astype(np.int64, order="C"),
            raw_counts=raw_counts.astype(np.int64, order="C"),
            decision=decision,
            drift=self._drift(decision),
        )

    def _drift(self, decision: Decision | None) -> Drift | None:
        if decision is None or decision.router_logits is None:
            return None
        return drift_of(self._loaded.recording, decision.router_logits)

    @property
    def _keeps_decisions(self) -> bool:
        shape = self._loaded.shape
        return len(self._ids) * shape.layers * shape.experts * 4 <= _MOST_KEPT

    def _states(self, side: int, *, records: bool) -> tuple[Tensor, Decision | None]:
        """What the last layer makes of each token but the last, (position, hidden), and what the
        routers decided there if it `records` that."""
        routing = self._routings[side]
        slots = most_slots(self._loaded.shape, routing)
        recorder = PassRecorder(self._loaded.model, slots) if records else None
        states = last_states(self._loaded, self._ids[:-1], routing, recorder)
        if recorder is None:
            return states, None
        router_logits, experts = recorder.decision()
        return states, Decision(experts, router_logits)


def _beginning(loaded: LoadedModel, text: Text, most: int) -> Text:
    """As much of `text`, which has more, as has at most so many tokens by itself."""

    def fits(characters: int) -> bool:
        ids = loaded.tokenizer(text.content[:characters], verbose=False).input_ids
        return len(ids) <= most

    # Most tokens have more than one character; a character may have several.
    fitting, beyond = 0, most
    while beyond < len(text.content) and fits(beyond):
        fitting, beyond = beyond, 2 * beyond
    beyond = min(beyond, len(text.content))
    while beyond - fitting > 1:
        middle = (fitting + beyond) // 2
        fitting, beyond = (middle, beyond) if fits(middle) else (fitting, middle)
    return Text(f"{text.name} (beginning)", text.content[:fitting])
