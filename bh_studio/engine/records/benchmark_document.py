"""A benchmark as a JSON document: what was done, what was measured, and the ratios."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from bh_studio.engine.records.benchmark_result import (
    BASELINE,
    BH_MEAN,
    SCHEMA_VERSION,
    STOCK,
    BenchResult,
    ContenderResult,
    MemoryLimit,
    PrefillResult,
    RouterTimes,
    ratio,
    spread,
)


def document(result: BenchResult) -> dict[str, Any]:
    """Everything that `result` knows; medians and quartiles, and the rounds they are of."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "bench",
        "is_complete": result.rounds == result.rounds_asked,
        "model": asdict(result.model),
        "device": result.device,
        "rounds": result.rounds,
        "rounds_asked": result.rounds_asked,
        "tokens": result.tokens,
        "prompt_tokens": result.prompt_tokens,
        "paths": {
            "experts": result.model.expert_path,
            "decoding": result.decode_path,
            "why": result.decode_path_reason,
        },
        "mean_level": None if result.mean_level is None else asdict(result.mean_level),
        "contenders": [_contender(result, contender) for contender in result.contenders],
        "left_out": result.left_out,
        "decoding_ratios": _decoding_ratios(result),
        "both_sides": _both_sides(result),
        "memory_limit": None if result.memory_limit is None else _limit(result.memory_limit),
        "no_memory_limit": result.no_limit,
        "router_call": _router_call(result.router_times),
        "prefill": None if result.prefill is None else _prefill(result.prefill),
        "notes": list(result.notes),
        "environment": result.environment,
    }


def _contender(result: BenchResult, contender: ContenderResult) -> dict[str, Any]:
    return {
        "name": contender.name,
        "threads": contender.threads,
        "expert_path": contender.expert_path,
        "tokens_per_second": asdict(contender.tokens_per_second),
        "answer_tokens_per_second": asdict(contender.answer_tokens_per_second),
        "first_token_seconds": asdict(spread(contender.first_token_seconds)),
        "mean_experts": contender.mean_experts,
        "expert_rows_per_token": contender.expert_rows,
        "bytes_per_token": contender.token_bytes,
        "share_of_memory_limit": result.share_of_limit(contender),
        "rounds": {
            "decode_seconds": contender.decode_seconds,
            "first_token_seconds": contender.first_token_seconds,
            "answer_seconds": contender.answer_seconds,
        },
    }


def _decoding_ratios(result: BenchResult) -> dict[str, Any]:
    """Speed of each contender over that of stock, and over that of the baseline."""
    return {
        f"{contender.name} / {of}": asdict(result.speed_ratio(contender.name, of))
        for of in (STOCK, BASELINE)
        for contender in result.contenders
        if contender.name != of
    }


def _both_sides(result: BenchResult) -> dict[str, Any] | None:
    pair = result.pair_step_seconds
    if pair is None:
        return None
    return {
        "seconds_per_pair": asdict(spread(pair)),
        "pair / baseline step": asdict(result.over_steps(pair, BASELINE)),
        "pair / (2 x baseline step)": asdict(result.over_steps(pair, BASELINE, BASELINE)),
        "pair / (baseline step + BH step)": asdict(result.over_steps(pair, BASELINE, BH_MEAN)),
        "rounds": {"seconds_per_pair": pair},
    }


def _limit(limit: MemoryLimit) -> dict[str, Any]:
    return {
        "bytes_per_second": asdict(spread(limit.bytes_per_second)),
        "buffer_bytes": limit.buffer_bytes,
        "way": limit.way,
        "rounds": {"bytes_per_second": limit.bytes_per_second},
    }


def _router_call(times: RouterTimes) -> dict[str, Any]:
    return {
        "own_seconds": asdict(spread(times.own)),
        "BH / own": asdict(ratio(times.bh, times.own)),
        "BH with statistics / own": asdict(ratio(times.bh_with_statistics, times.own)),
        "blocks": asdict(times),
    }


def _prefill(prefill: PrefillResult) -> dict[str, Any]:
    return {
        "tokens": prefill.tokens,
        "stock_seconds": asdict(spread(prefill.stock_seconds)),
        "our_seconds": asdict(spread(prefill.our_seconds)),
        "stock / our seconds": asdict(ratio(prefill.stock_seconds, prefill.our_seconds)),
        "stock_peak_growth_bytes": prefill.stock_bytes,
        "our_peak_growth_bytes": prefill.our_bytes,
        "rounds": {
            "stock_seconds": prefill.stock_seconds,
            "our_seconds": prefill.our_seconds,
        },
    }
