"""A benchmark's result with figures that are easy to follow."""

from __future__ import annotations

from typing import Any

from bh_studio.engine.records.benchmark.result import (
    BASELINE,
    BH,
    BH_MEAN,
    STOCK,
    STOCK_STATIC,
    BenchResult,
    ContenderResult,
    MeanLevel,
    MemoryLimit,
    PrefillResult,
    RouterTimes,
)
from bh_studio.engine.records.terms import ModelInfo

LAYERS, TOKENS = 16, 65


def contender(
    name: str,
    *,
    decode: tuple[float, ...],
    first: tuple[float, ...] | None = None,
    tokens: int = TOKENS,
    experts: float = 8.0,
    reads: float = 2.36e9,
    threads: int = 2,
    path: str = "bh_selected",
) -> ContenderResult:
    """decode, first: seconds, (round,)."""
    first = first or (0.25,) * len(decode)
    return ContenderResult(
        name=name,
        tokens=tokens,
        threads=threads,
        expert_path=path,
        mean_experts=experts,
        expert_rows=experts * LAYERS,
        token_bytes=reads,
        decode_seconds=decode,
        first_token_seconds=first,
        answer_seconds=tuple(a + b for a, b in zip(first, decode, strict=True)),
    )


CONTENDERS = (
    contender(STOCK, decode=(12.8, 14.4, 12.8), path="grouped_mm"),
    contender(BASELINE, decode=(6.4, 6.4, 8.0)),
    contender(BH, decode=(6.0, 5.6, 7.2), experts=6.5, reads=2.06e9),
    contender(BH_MEAN, decode=(4.0, 4.0, 4.8), experts=4.02, reads=1.55e9),
)


def result(**values: Any) -> BenchResult:
    """`values` in place of fields."""
    fields: dict[str, Any] = {
        "model": ModelInfo(
            id="a/folder", name="full", architecture="OlmoeForCausalLM", fingerprint="f",
            layers=LAYERS, experts=64, top_k=8, context_length=4096, parameter_count=6_919_161_856,
            dtype="bfloat16", device="cpu", expert_path="bh_selected", null_sha256="n",
            null_samples=1000,
        ),
        "device": "A Processor",
        "rounds": 3,
        "rounds_asked": 3,
        "tokens": TOKENS,
        "prompt_tokens": 32,
        "decode_path": "own step",
        "decode_path_reason": "one device, OLMoE's layers",
        "contenders": CONTENDERS,
        "pair_seconds": (10.24, 10.24, 12.8),
        "mean_level": MeanLevel(4.0, 0.0007, 4.02, 2),
        "memory_limit": MemoryLimit("largest of int32", 2**30, (36e9, 35e9, 34e9)),
        "no_limit": "",
        "router_times": RouterTimes((30e-6,) * 3, (36e-6,) * 3, (45e-6,) * 3),
        "prefill": PrefillResult(512, (30.0, 32.0, 30.0), (15.0, 15.0, 16.0), 300_000, 90_000),
        "left_out": {STOCK_STATIC: "No compiler."},
        "notes": ("A note.",),
        "environment": {"processor": "A Processor"},
    }  # fmt: skip
    return BenchResult(**{**fields, **values})
