"""How long it takes to save a session with all that is kept of each position, and to open it.

    python -m benchmarks.session_file --out benchmarks/results/session_file.json

The session has --sides sides of --tokens tokens each after a prompt of 24, in the shape of OLMoE:
16 layers and 64 experts, counts, experts, probabilities and router logits of every position. Its
numbers are random, so that nothing is packed better than it would be. Opening ends when the session
is there; one position of each side is then read where it lies, and timed apart.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.summary import publish, spread
from bh_studio.engine.experiments.environment import describe_environment
from bh_studio.engine.records.decisions.router_rows import HeldRows
from bh_studio.engine.records.decisions.token_choices import TokenChoices
from bh_studio.engine.records.session import Session, SideRecord
from bh_studio.engine.records.session_file import load_session, save_session
from bh_studio.engine.records.terms import FinishReason, GenerationParameters, ModelInfo
from bh_studio.engine.rules.text import parse_rule

_LAYERS, _EXPERTS, _TOP_K, _PROMPT = 16, 64, 8, 24
_RULES = ("bh:0.05", "bh:0.01", "cut:0.04")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--sides", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(argv)
    session = _session(arguments.sides, arguments.tokens)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.bhsession"
        rounds = [_round(session, path) for _ in range(arguments.rounds)]
        size = path.stat().st_size
    summary = {
        "sides": arguments.sides,
        "tokens": arguments.tokens,
        "file_bytes": size,
        "rounds": len(rounds),
        **{name: spread([times[name] for times in rounds], 5) for name in rounds[0]},
        # Of whatever else the machine does: it has as many processes to run at once.
        "load_average": os.getloadavg()[0],
        "environment": describe_environment(),
    }
    publish(summary, arguments.out)
    return 0


def _round(session: Session, path: Path) -> dict[str, float]:
    found: list[Session] = []
    return {
        "save_seconds": _timed(lambda: save_session(session, path)),
        "open_seconds": _timed(lambda: found.append(load_session(path))),
        "position_of_each_side_seconds": _timed(lambda: _read_one(found[0])),
    }


def _read_one(session: Session) -> None:
    for record in session.records:
        assert record.router_logits is not None
        record.router_logits.rows(500, 501)


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _session(sides: int, tokens: int) -> Session:
    drawn = np.random.default_rng(0)
    model = ModelInfo(
        id="embedded", name="random", architecture="OlmoeForCausalLM", fingerprint="0" * 32,
        layers=_LAYERS, experts=_EXPERTS, top_k=_TOP_K, context_length=4096, parameter_count=1,
        dtype="float32", device="cpu", expert_path="", null_sha256="0" * 64, null_samples=1,
    )  # fmt: skip
    return Session(
        model=model,
        sides=(None, *map(parse_rule, _RULES))[:sides],
        generation=GenerationParameters(tokens),
        prompt="Once upon a time",
        conversation=None,
        records=tuple(_record(drawn, tokens) for _ in range(sides)),
        environment=describe_environment(),
        started_at="2026-01-01T00:00:00.000+00:00",
        finished_at="2026-01-01T00:00:10.000+00:00",
    )


def _record(drawn: np.random.Generator, tokens: int) -> SideRecord:
    positions = _PROMPT - 1 + tokens
    texts = tuple(f" word{number}" for number in range(tokens))
    raw = drawn.integers(0, 20, (positions, _LAYERS), dtype=np.uint8)
    scores = drawn.random((positions, _LAYERS, _EXPERTS), dtype=np.float32)
    top = np.sort(-10 * drawn.random((tokens, 5), dtype=np.float32))[:, ::-1]
    kept: dict[str, Any] = {
        "routed_experts": np.argsort(scores, axis=-1)[..., :_TOP_K].astype(np.uint8),
        "choices": TokenChoices(
            top[:, 0].copy(),
            drawn.integers(1, 9, tokens, dtype=np.int32),
            drawn.integers(0, 50000, (tokens, 5), dtype=np.int32),
            top.copy(),
        ),
        "router_logits": HeldRows(scores),
    }
    return SideRecord(
        prompt_token_ids=tuple(range(_PROMPT)),
        text="".join(texts),
        token_ids=tuple(drawn.integers(0, 50000, tokens).tolist()),
        token_texts=texts,
        expert_counts=raw[_PROMPT - 1 :].clip(1, _TOP_K),
        raw_counts=raw[_PROMPT - 1 :],
        prompt_expert_counts=raw[: _PROMPT - 1].clip(1, _TOP_K),
        prompt_raw_counts=raw[: _PROMPT - 1],
        token_seconds=np.cumsum(drawn.random(tokens)),
        finish_reason=FinishReason.MAX_NEW_TOKENS,
        **kept,
    )


if __name__ == "__main__":
    sys.exit(main())
