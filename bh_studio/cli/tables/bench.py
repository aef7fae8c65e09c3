"""A benchmark as a table for the terminal. Knows no torch."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from bh_studio.cli.tables.table import aligned
from bh_studio.engine.records.benchmark.result import (
    BASELINE,
    BH_MEAN,
    BOTH_SIDES,
    STOCK,
    BenchResult,
    ContenderResult,
    PrefillResult,
    RouterTimes,
    Spread,
    ratio,
    spread,
)
from bh_studio.engine.units import byte_unit, counted, format_bytes

_TITLES = (
    "tok/s", "quartiles", "x stock", "x baseline", "experts", "answer", "first", "reads",
    "of limit",
)  # fmt: skip
_WIDTH = 100
# Columns before the text of a finding.
_INDENT = 20


def table(result: BenchResult) -> str:
    """A line a contender, what else was measured, and how to read it."""
    rows: list[tuple[str, ...]] = [("", *_TITLES)]
    rows += [(each.name, *_cells(result, each)) for each in result.contenders]
    findings = [
        textwrap.fill(f"{name:<{_INDENT}}{text}", _WIDTH, subsequent_indent=" " * _INDENT)
        for name, text in _findings(result)
    ]
    legend = textwrap.fill(" ".join(_legend(result)), _WIDTH)
    title = textwrap.fill(_title(result), _WIDTH)
    return "\n".join([title, "", *aligned(rows, left=1), "", *findings, "", legend])


def _title(result: BenchResult) -> str:
    rounds = counted(result.rounds, "round")
    if result.rounds < result.rounds_asked:
        rounds = f"stopped after {result.rounds} of {result.rounds_asked} rounds"
    return (
        f"{result.model.name} in {result.model.dtype} on {result.device}: {result.tokens} greedy "
        f"tokens after a prompt of {result.prompt_tokens}, {rounds}."
    )


def _cells(result: BenchResult, contender: ContenderResult) -> Iterator[str]:
    speed = contender.tokens_per_second
    yield _speed(speed.median)
    yield f"{_speed(speed.q25)} to {_speed(speed.q75)}"
    for of in (STOCK, BASELINE):
        yield f"{result.speed_ratio(contender.name, of).median:.2f}"
    yield f"{contender.mean_experts:.2f}"
    yield _speed(contender.answer_tokens_per_second.median)
    yield _seconds(spread(contender.first_token_seconds).median)
    yield _bytes(contender.token_bytes)
    share = result.share_of_limit(contender)
    yield "-" if share is None else f"{share:.0%}"


def _findings(result: BenchResult) -> Iterator[tuple[str, str]]:
    """What the table has no column for: what it is about, and a sentence."""
    level = result.mean_level
    if level is not None:
        yield (
            BH_MEAN,
            f"alpha {level.level:g}, found in {counted(level.runs, 'run')}; decodes "
            f"{_times(result.speed_ratio(BH_MEAN, BASELINE))} as fast as the baseline",
        )
    fastest = result.fastest_stock
    if fastest.name != STOCK:
        ours = BASELINE if level is None else BH_MEAN
        faster = _times(result.speed_ratio(ours, fastest.name))
        yield "fastest stock", f"{fastest.name}; {ours} decodes {faster} as fast"
    if result.pair_step_seconds is not None:
        yield BOTH_SIDES, _both_sides(result, result.pair_step_seconds)
    limit = result.memory_limit
    if limit is not None:
        speed = format_bytes(spread(limit.bytes_per_second).median)
        yield "memory limit", f"{speed}/s are read at most ({limit.way})"
    else:
        yield "memory limit", result.no_limit
    yield "router call", _router_call(result.router_times)
    if result.prefill is not None:
        yield f"prompt of {result.prefill.tokens:,}", _prefill(result.prefill)
    yield "experts", _expert_paths(result)
    reason = result.decode_path_reason
    yield "decoding", result.decode_path + (f": {reason}" if reason else "")
    yield "threads", _threads(result)
    for note in result.notes:
        yield "note", note
    for name, why in result.left_out.items():
        yield "left out", f"{name}: {why}"


def _both_sides(result: BenchResult, pair: list[float]) -> str:
    return (
        f"baseline and {BH_MEAN}, {_seconds(spread(pair).median)} for a token of each: "
        f"{_times(result.over_steps(pair, BASELINE))} as long as a token of the baseline alone, "
        f"{_times(result.over_steps(pair, BASELINE, BH_MEAN))} as long as both alone"
    )


def _router_call(times: RouterTimes) -> str:
    return (
        f"{_seconds(spread(times.own).median)} for one row; {_times(ratio(times.bh, times.own))} "
        f"as long with BH, {_times(ratio(times.bh_with_statistics, times.own))} with statistics"
    )


def _prefill(prefill: PrefillResult) -> str:
    stock, ours = prefill.stock_seconds, prefill.our_seconds
    return (
        f"read in {_seconds(spread(ours).median)}; stock takes {_seconds(spread(stock).median)}, "
        f"{_times(ratio(stock, ours))} as long; memory grew by {format_bytes(prefill.our_bytes)}, "
        f"with stock by {format_bytes(prefill.stock_bytes)}"
    )


def _expert_paths(result: BenchResult) -> str:
    """By which computation; for stock the one that its tokens, not its prompt, came from."""
    paths: dict[str, list[str]] = {}
    for contender in result.contenders:
        paths.setdefault(contender.expert_path, []).append(contender.name)
    return "; ".join(f"{', '.join(names)}: {path}" for path, names in paths.items())


def _threads(result: BenchResult) -> str:
    names: dict[int, list[str]] = {}
    for contender in result.contenders:
        names.setdefault(contender.threads, []).append(contender.name)
    if len(names) == 1:
        return str(next(iter(names)))
    return "; ".join(f"{', '.join(users)}: {count}" for count, users in names.items())


def _legend(result: BenchResult) -> Iterator[str]:
    yield "tok/s: from the first token to the last, median and quartiles over rounds."
    yield "x stock, x baseline: how many times as fast, median of the rounds' ratios."
    yield f"experts: mean of a token in a layer, of {result.model.experts}."
    yield "answer: tok/s with the prompt included. first: time to the first token."
    yield "reads: weights, keys and values that a token needs."
    if result.memory_limit is not None:
        yield "of limit: reads x tok/s, as a share of the memory limit."


def _times(of: Spread) -> str:
    return f"{of.median:.2f} ({of.q25:.2f} to {of.q75:.2f}) times"


def _speed(value: float) -> str:
    return f"{value:,.0f}" if value >= 999.5 else f"{value:.1f}"


def _bytes(count: float) -> str:
    size, unit = byte_unit(count)
    return f"{count / size:.3g} {unit}"


def _seconds(value: float) -> str:
    """A time with three digits, in the unit that suits it."""
    if value >= 10:
        return f"{value:.1f} s"
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e3:.3g} ms" if value >= 0.9995e-3 else f"{value * 1e6:.3g} us"
