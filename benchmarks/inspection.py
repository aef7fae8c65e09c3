"""How long it takes to look inside a token, and to replay a side, also while a model decodes.

    python -m benchmarks.inspection embedded --out benchmarks/results/inspection_embedded_cpu.json

A clerk is asked as the window asks it: BH at one position in all layers, at each of 300 positions,
and at each of 1,024 of two sides. The router logits are those of the model on the calibration
text. Each is measured alone and while another thread decodes with the model. The first request of
all reads the recording and fits the null; it is told apart. Beside the time that passes stands what
the asking thread computes, which other programs and threads change less.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.summary import publish, spread
from bh_studio.engine.errors import CancelToken
from bh_studio.engine.execution.clerk import Clerk
from bh_studio.engine.experiments.environment import describe_environment
from bh_studio.engine.experiments.runner import run
from bh_studio.engine.loading import LoadedModel, load_model
from bh_studio.engine.protocol.events import TokenGenerated
from bh_studio.engine.protocol.experiments import Comparison
from bh_studio.engine.protocol.requests import InspectToken, ReplaySide
from bh_studio.engine.records.decisions.router_rows import HeldRows
from bh_studio.engine.records.session import SideRecord
from bh_studio.engine.records.terms import FinishReason, GenerationParameters
from bh_studio.engine.rules.parameters import RuleParameters

PROMPT = "The old fisherman rowed out to the island, and there he found"
SHORT, LONG = 300, 1024
# Milliseconds.
TARGETS = {"one position": 16, f"{SHORT} positions": 50, f"{LONG} positions, two sides": 200}
Asked = Callable[[], object]
Times = dict[str, float]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(argv)
    loaded = load_model(arguments.model, device=arguments.device)
    asked = _requests(loaded)
    first = _milliseconds(next(iter(asked.values())))
    alone = {name: _rounds(ask, arguments.rounds) for name, ask in asked.items()}
    with _decoding(loaded) as tokens:
        beside = {name: _rounds(ask, arguments.rounds) for name, ask in asked.items()}
    summary = {
        "model": loaded.info.name,
        "device": loaded.info.device,
        "dtype": loaded.info.dtype,
        "layers": loaded.info.layers,
        "experts": loaded.info.experts,
        "null_scores_of_a_layer": loaded.info.null_samples,
        "rounds": arguments.rounds,
        "target_ms": TARGETS,
        "first_ms": first,
        "alone_ms": alone,
        "while_decoding_ms": beside,
        "tokens_decoded_meanwhile": len(tokens),
        # Of whatever else the machine does: it has as many processes to run at once.
        "load_average": os.getloadavg()[0],
        "environment": describe_environment(),
    }
    publish(summary, arguments.out)
    return 0


def _requests(loaded: LoadedModel) -> dict[str, Asked]:
    """What is asked of one clerk, under the names of the targets."""
    rule, clerk = RuleParameters(), Clerk()
    # A side has read other positions than the other.
    sides = [_side(loaded, LONG, first) for first in (0, LONG)]
    short = _side(loaded, SHORT, 0)

    def answer(body: InspectToken | ReplaySide) -> object:
        (event,) = clerk.answer(body, CancelToken())
        return event

    one = InspectToken(loaded.info, short.router_logits, SHORT // 2, rule)
    asked: tuple[Asked, ...] = (
        lambda: answer(one),
        lambda: answer(ReplaySide(loaded.info, short, rule)),
        lambda: [answer(ReplaySide(loaded.info, side, rule)) for side in sides],
    )
    return dict(zip(TARGETS, asked, strict=True))


def _side(loaded: LoadedModel, positions: int, first: int) -> SideRecord:
    """A side of one prompt token whose routers gave what they gave on the calibration text."""
    logits = loaded.recording.logits[:, first : first + positions].transpose(0, 1).contiguous()
    counts = np.full((positions, loaded.info.layers), loaded.info.top_k, np.uint8)
    return SideRecord(
        prompt_token_ids=(0,),
        text="",
        token_ids=(0,) * positions,
        token_texts=("",) * positions,
        expert_counts=counts,
        raw_counts=counts,
        prompt_expert_counts=counts[:0],
        prompt_raw_counts=counts[:0],
        token_seconds=np.arange(positions, dtype=np.float64),
        finish_reason=FinishReason.MAX_NEW_TOKENS,
        router_logits=HeldRows(logits.numpy()),
    )


@contextmanager
def _decoding(loaded: LoadedModel) -> Iterator[list[int]]:
    """Inside the block another thread answers again and again; yields the tokens it has made."""
    generation = GenerationParameters(max_new_tokens=200, sampling=False)
    definition = Comparison(prompt=PROMPT, sides=(None, RuleParameters()), generation=generation)
    cancel, has_begun = CancelToken(), threading.Event()
    tokens: list[int] = []

    def answer() -> None:
        while not cancel.is_cancelled:
            for event in run(loaded, definition, cancel=cancel):
                if isinstance(event, TokenGenerated):
                    tokens.append(event.token_id)
                    has_begun.set()

    thread = threading.Thread(target=answer)
    thread.start()
    has_begun.wait(60)
    try:
        yield tokens
    finally:
        cancel.cancel()
        thread.join()


def _rounds(ask: Asked, rounds: int) -> dict[str, Any]:
    times = [_milliseconds(ask) for _ in range(rounds)]
    return {name: spread([of_round[name] for of_round in times], 2) for name in times[0]}


def _milliseconds(ask: Asked) -> Times:
    begun, begun_computing = time.perf_counter(), time.thread_time()
    ask()
    return {
        "passed": round((time.perf_counter() - begun) * 1000, 2),
        "computing": round((time.thread_time() - begun_computing) * 1000, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
