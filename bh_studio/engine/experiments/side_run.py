"""One side of a run: its decoder, its text so far, and the record it leaves.

Knows neither the other side nor whose turn it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bh_studio.engine.decoding.detokenizer import StreamingDetokenizer
from bh_studio.engine.decoding.side import SideDecoder, Step, Watch
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.protocol.events import PromptRead, SideFinished, TokenGenerated
from bh_studio.engine.records.decisions.decision import Decision
from bh_studio.engine.records.decisions.router_rows import HeldRows
from bh_studio.engine.records.decisions.token_choices import TokenChoices
from bh_studio.engine.records.session import SideRecord
from bh_studio.engine.records.terms import FinishReason, GenerationParameters, Keep
from bh_studio.engine.routing.drift import drift_of


class SideRun:
    """Produces the events of one side; the last one holds its record.

    integration: routing in force during the steps of this side only; None for the baseline. keep:
    what is kept beside the counts; None for nothing. watch: as SideDecoder has it.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        prompt_ids: list[int],
        generation: GenerationParameters,
        side: int,
        integration: RoutingIntegration | None,
        keep: Keep | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._side = side
        self._keep = keep
        self._decoder = SideDecoder(
            loaded.model,
            torch.tensor([prompt_ids]),
            generation,
            loaded.end_token_ids,
            loaded.shape,
            integration,
            records=keep is not None,
            watch=watch,
        )
        self._recording = loaded.recording
        self._prompt_ids = tuple(prompt_ids)
        self._detokenizer = StreamingDetokenizer(loaded.tokenizer, prompt_ids)
        self._empty = np.empty((0, loaded.shape.layers), dtype=np.uint8)
        self._steps: list[Step] = []
        self._pieces: list[str] = []
        self._seconds = 0.0

    def step(self) -> tuple[TokenGenerated, FinishReason | None]:
        """Produce the next token; why it is the last one, or None."""
        step = self._decoder.step()
        self._seconds += step.seconds
        self._steps.append(step)
        # The token that ends a text is no part of it, though not every tokenizer calls it special.
        is_end = step.finish_reason is FinishReason.END_OF_TEXT
        self._pieces.append("" if is_end else self._detokenizer.add(step.token_id))
        token = TokenGenerated(
            side=self._side,
            index=len(self._steps) - 1,
            token_id=step.token_id,
            text=self._pieces[-1],
            expert_counts=step.expert_counts[-1],
            raw_counts=step.raw_counts[-1],
            seconds=self._seconds,
            decision=self._decision(step, slice(-1, None)),
            choice=None if step.decided is None else step.decided.choice,
        )
        return token, step.finish_reason

    def prompt_read(self) -> PromptRead:
        """What the first step counted of the prompt, but for its last position."""
        first = self._steps[0]
        counts, raw = first.expert_counts[:-1], first.raw_counts[:-1]
        return PromptRead(self._side, counts, raw, self._decision(first, slice(-1)))

    def close(self) -> None:
        """Give the buffers of the side back, wherever it is; it takes no further step."""
        self._decoder.close()

    def finish(self, reason: FinishReason) -> SideFinished:
        """Close the side; what it leaves is in the event."""
        self.close()
        tail = self._detokenizer.finish()
        if tail:
            self._pieces[-1] += tail
        first = self._steps[:1]
        record = SideRecord(
            prompt_token_ids=self._prompt_ids,
            text="".join(self._pieces),
            token_ids=tuple(step.token_id for step in self._steps),
            token_texts=tuple(self._pieces),
            expert_counts=_stack([step.expert_counts[-1:] for step in self._steps], self._empty),
            raw_counts=_stack([step.raw_counts[-1:] for step in self._steps], self._empty),
            prompt_expert_counts=_stack([step.expert_counts[:-1] for step in first], self._empty),
            prompt_raw_counts=_stack([step.raw_counts[:-1] for step in first], self._empty),
            token_seconds=np.cumsum([step.seconds for step in self._steps], dtype=np.float64),
            finish_reason=reason,
            **self._kept(),
        )
        return SideFinished(self._side, tail, record)

    def _decision(self, step: Step, rows: slice) -> Decision | None:
        """What was decided at some of the rows that a step has read."""
        decided = step.decided
        if decided is None:
            return None
        logits = decided.router_logits[rows] if self._keep is Keep.LOGITS else None
        return Decision(decided.experts[rows], logits)

    def _kept(self) -> dict[str, Any]:
        """What the record has beside the counts, by the names of SideRecord."""
        decided = [step.decided for step in self._steps if step.decided is not None]
        if not decided:
            return {}
        kept: dict[str, Any] = {
            "routed_experts": np.concatenate([part.experts for part in decided]),
            "choices": TokenChoices.of([part.choice for part in decided]),
        }
        if self._keep is Keep.LOGITS:
            logits = np.concatenate([part.router_logits for part in decided])
            kept["router_logits"] = HeldRows(logits)
            kept["drift"] = drift_of(self._recording, logits)
        return kept


def _stack(rows: list[np.ndarray], empty: np.ndarray) -> np.ndarray:
    return np.concatenate([empty, *rows])
