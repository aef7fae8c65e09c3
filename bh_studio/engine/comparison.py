"""Baseline and BH answer one prompt, taking turns token by token: a generator of events."""

from __future__ import annotations

from collections.abc import Generator
from datetime import datetime

import numpy as np
import torch

from bh_studio.engine.detokenizer import StreamingDetokenizer
from bh_studio.engine.environment import describe_environment
from bh_studio.engine.errors import EngineError
from bh_studio.engine.generation import SideDecoder, Step
from bh_studio.engine.messages import (
    Event,
    FinishReason,
    RunComparison,
    RunFinished,
    RunStarted,
    Side,
    SideFinished,
    TokenGenerated,
)
from bh_studio.engine.models import LoadedModel
from bh_studio.engine.routing import BHRoutingIntegration
from bh_studio.engine.session import Session, SideRecord


def compare(loaded: LoadedModel, request: RunComparison) -> Generator[Event, None, None]:
    """Run `request`; the last event is RunFinished, also when it was cancelled.

    Raises EngineError for a prompt that is empty or too long for the model, ValueError for rule
    parameters that do not fit it.
    """
    started_at = _now()
    prompt_ids = _encode(loaded, request.prompt)
    integration = BHRoutingIntegration(
        loaded.model,
        request.rule.alpha,
        request.rule.temperature,
        request.rule.min_k,
        request.rule.max_k,
        request.rule.mode,
        weights=request.rule.weights,
        null=loaded.null,
    )
    yield RunStarted(request.run_id, tuple(prompt_ids))
    runs = [
        _SideRun(loaded, request, Side.BASELINE, prompt_ids, None),
        _SideRun(loaded, request, Side.BH, prompt_ids, integration),
    ]
    while any(run.is_active for run in runs):
        for run in runs:
            if not run.is_active:
                continue
            if request.cancel.is_cancelled:
                yield run.finish(FinishReason.STOPPED)
                continue
            step = run.decoder.step()
            yield run.add(step)
            if step.finish_reason is not None:
                yield run.finish(step.finish_reason)
    yield RunFinished(
        request.run_id,
        Session(
            model=loaded.info,
            rule=request.rule,
            generation=request.generation,
            prompt=request.prompt,
            prompt_token_ids=tuple(prompt_ids),
            sides={run.side: run.record for run in runs if run.record is not None},
            environment=describe_environment(),
            started_at=started_at,
            finished_at=_now(),
        ),
    )


class _SideRun:
    """One side of a run: what it has produced so far."""

    def __init__(
        self,
        loaded: LoadedModel,
        request: RunComparison,
        side: Side,
        prompt_ids: list[int],
        integration: BHRoutingIntegration | None,
    ) -> None:
        self.side = side
        self.record: SideRecord | None = None
        self.decoder = SideDecoder(
            loaded.model,
            torch.tensor([prompt_ids]),
            request.generation,
            loaded.end_token_ids,
            loaded.shape,
            integration,
        )
        self._run_id = request.run_id
        self._detokenizer = StreamingDetokenizer(loaded.tokenizer, prompt_ids)
        self._empty = np.empty((0, loaded.shape.layers), dtype=np.uint8)
        self._steps: list[Step] = []
        self._pieces: list[str] = []
        self._seconds = 0.0

    @property
    def is_active(self) -> bool:
        return self.record is None

    def add(self, step: Step) -> TokenGenerated:
        """Take in the next step."""
        self._seconds += step.seconds
        self._steps.append(step)
        self._pieces.append(self._detokenizer.add(step.token_id))
        return TokenGenerated(
            run_id=self._run_id,
            side=self.side,
            index=len(self._steps) - 1,
            token_id=step.token_id,
            text=self._pieces[-1],
            expert_counts=step.expert_counts[-1],
            raw_counts=step.raw_counts[-1],
            seconds=self._seconds,
        )

    def finish(self, reason: FinishReason) -> SideFinished:
        """Close the side; `record` is set from here on."""
        tail = self._detokenizer.finish()
        if tail:
            self._pieces[-1] += tail
        first = self._steps[:1]
        self.record = SideRecord(
            text="".join(self._pieces),
            token_ids=tuple(step.token_id for step in self._steps),
            token_texts=tuple(self._pieces),
            expert_counts=_stack([step.expert_counts[-1:] for step in self._steps], self._empty),
            raw_counts=_stack([step.raw_counts[-1:] for step in self._steps], self._empty),
            prompt_expert_counts=_stack([step.expert_counts[:-1] for step in first], self._empty),
            prompt_raw_counts=_stack([step.raw_counts[:-1] for step in first], self._empty),
            token_seconds=np.cumsum([step.seconds for step in self._steps], dtype=np.float64),
            finish_reason=reason,
        )
        return SideFinished(self._run_id, self.side, tail, self.record)


def _encode(loaded: LoadedModel, prompt: str) -> list[int]:
    if not prompt.strip():
        raise EngineError("The prompt is empty.", "Type the beginning of a text.")
    token_ids: list[int] = loaded.tokenizer(prompt, verbose=False).input_ids
    if len(token_ids) >= loaded.info.context_length:
        raise EngineError(
            f"The prompt has {len(token_ids)} tokens; this model reads at most "
            f"{loaded.info.context_length}, the answer included.",
            "Shorten the prompt.",
        )
    return token_ids


def _stack(rows: list[np.ndarray], empty: np.ndarray) -> np.ndarray:
    return np.concatenate([empty, *rows])


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
