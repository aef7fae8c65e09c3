"""A benchmark as a JSON document: what was done, what was measured, and the ratios."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from bh_studio.engine.files.plain_json import convert
from bh_studio.engine.records.benchmark.result import (
    BASELINE,
    BH_MEAN,
    SCHEMA_VERSION,
    STOCK,
    BenchResult,
    ContenderResult,
    MeanLevel,
    MemoryLimit,
    PrefillResult,
    RouterTimes,
    ratio,
    spread,
)
from bh_studio.engine.records.terms import ModelInfo


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


def from_document(values: dict[str, Any]) -> BenchResult:
    """The result that `document` wrote; the time of a pair is rounded.

    Raises KeyError, TypeError or ValueError for others.
    """
    tokens = convert(int, values["tokens"], "tokens")
    if tokens < 2:
        raise ValueError(f"tokens is {tokens}.")
    rounds = convert(int, values["rounds"], "rounds")
    level, limit, prefill = values["mean_level"], values["memory_limit"], values["prefill"]
    paths, blocks = values["paths"], values["router_call"]["blocks"]
    return BenchResult(
        model=convert(ModelInfo, values["model"], "model"),
        device=convert(str, values["device"], "device"),
        rounds=rounds,
        rounds_asked=convert(int, values["rounds_asked"], "rounds_asked"),
        tokens=tokens,
        prompt_tokens=convert(int, values["prompt_tokens"], "prompt_tokens"),
        decode_path=convert(str, paths["decoding"], "decoding"),
        decode_path_reason=convert(str, paths["why"], "why"),
        contenders=tuple(_contender_from(one, tokens, rounds) for one in values["contenders"]),
        pair_seconds=_pair_from(values["both_sides"], tokens, rounds),
        mean_level=None if level is None else convert(MeanLevel, level, "mean_level"),
        memory_limit=None if limit is None else _limit_from(limit),
        no_limit=convert(str, values["no_memory_limit"], "no_memory_limit"),
        router_times=convert(RouterTimes, blocks, "blocks"),
        prefill=None if prefill is None else _prefill_from(prefill),
        left_out=convert(dict[str, str], values["left_out"], "left_out"),
        notes=convert(tuple[str, ...], values["notes"], "notes"),
        environment=convert(dict[str, Any], values["environment"], "environment"),
    )


def _contender_from(values: dict[str, Any], tokens: int, rounds: int) -> ContenderResult:
    times = ("decode_seconds", "first_token_seconds", "answer_seconds")
    plain = {
        "tokens": tokens,
        "expert_rows": values["expert_rows_per_token"],
        "token_bytes": values["bytes_per_token"],
        **{name: values[name] for name in ("name", "threads", "expert_path", "mean_experts")},
        **{name: _of_rounds(values, name, rounds) for name in times},
    }
    return convert(ContenderResult, plain, "contender")


def _of_rounds(values: dict[str, Any], name: str, rounds: int | None = None) -> tuple[float, ...]:
    """What was measured in each of `rounds`; None for any number of them."""
    found = convert(tuple[float, ...], values["rounds"][name], name)
    if rounds not in (None, len(found)) or not all(0 < one < math.inf for one in found):
        raise ValueError(f"{name} does not have a positive number for each round.")
    return found


def _pair_from(values: dict[str, Any] | None, tokens: int, rounds: int) -> tuple[float, ...] | None:
    if values is None:
        return None
    steps = _of_rounds(values, "seconds_per_pair", rounds)
    return tuple((tokens - 1) * step for step in steps)


def _limit_from(values: dict[str, Any]) -> MemoryLimit:
    return MemoryLimit(
        way=convert(str, values["way"], "way"),
        buffer_bytes=convert(int, values["buffer_bytes"], "buffer_bytes"),
        bytes_per_second=_of_rounds(values, "bytes_per_second"),
    )


def _prefill_from(values: dict[str, Any]) -> PrefillResult:
    return PrefillResult(
        tokens=convert(int, values["tokens"], "tokens"),
        stock_seconds=_of_rounds(values, "stock_seconds"),
        our_seconds=_of_rounds(values, "our_seconds"),
        stock_bytes=convert(int, values["stock_peak_growth_bytes"], "stock_peak_growth_bytes"),
        our_bytes=convert(int, values["our_peak_growth_bytes"], "our_peak_growth_bytes"),
    )


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
