"""Baseline and BH answer one prompt, taking turns token by token: a generator of events."""

from __future__ import annotations

from collections.abc import Generator
from datetime import datetime

from bh_studio.engine.errors import CancelToken
from bh_studio.engine.experiments.environment import describe_environment
from bh_studio.engine.experiments.prompt import encode_prompt
from bh_studio.engine.experiments.side_run import SideRun
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.protocol.events import Event, Notice, RunFinished, RunStarted
from bh_studio.engine.protocol.experiments import RunComparison
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import FinishReason, Side


def compare(loaded: LoadedModel, request: RunComparison) -> Generator[Event, None, None]:
    """Run `request`; the last event is RunFinished, also when it was cancelled.

    Raises EngineError for a prompt that encode_prompt refuses, ValueError for rule parameters
    that do not fit the model.
    """
    started_at = _now()
    prompt_ids = {
        side: encode_prompt(loaded, request.prompt, request.conversation, side) for side in Side
    }
    integration = RoutingIntegration(loaded.model, request.rule, recording=loaded.recording)
    if (shortage := integration.rule.shortage()) is not None:
        yield Notice(shortage)
    yield RunStarted(request.run_id)
    runs = [
        SideRun(loaded, prompt_ids[side], request.generation, side, routing, request.run_id)
        for side, routing in ((Side.BASELINE, None), (Side.BH, integration))
    ]
    # A run that fails, or that nobody listens to any longer, gives its buffers back too.
    try:
        yield from _turns(runs, request.cancel)
    finally:
        for run in runs:
            run.close()
    yield RunFinished(
        request.run_id,
        Session(
            model=loaded.info,
            rule=request.rule,
            generation=request.generation,
            prompt=request.prompt,
            conversation=request.conversation,
            sides={run.side: run.record for run in runs if run.record is not None},
            environment=describe_environment(),
            started_at=started_at,
            finished_at=_now(),
        ),
    )


def _turns(runs: list[SideRun], cancel: CancelToken) -> Generator[Event, None, None]:
    while any(run.is_active for run in runs):
        for run in runs:
            if not run.is_active:
                continue
            if cancel.is_cancelled:
                yield run.finish(FinishReason.STOPPED)
                continue
            token, reason = run.step()
            yield token
            if reason is not None:
                yield run.finish(reason)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
