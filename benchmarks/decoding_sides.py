"""What it costs to decode several sides in turns, and to record what is decided.

    python -m benchmarks.decoding_sides embedded --out benchmarks/results/decoding_sides_cpu.json

In each round every contender writes --tokens tokens after the same prompt, in an order drawn anew:
single sides, and two to four sides in turns, all with a record, as a comparison has them; and of
each side a pair, with a record and without, which take turns token by token, so that both meet the
same machine, or answer by answer on a GPU, which computes ahead. Ratios are of one round:
`recording` is the tokens with a record over those without; `turns` is so many sides in turns over
the sum of the single ones. What is timed is the time that passes from the first token to the last,
and beside it that of the processor, which other programs on the machine change less.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.summary import publish, spread
from bh_studio.engine.decoding.side import SideDecoder
from bh_studio.engine.experiments.environment import describe_environment
from bh_studio.engine.loading import LoadedModel, load_model
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules.text import format_rule, parse_rule

_PROMPT = "The old fisherman rowed out to the island, and there he found"
_RULES = (None, "bh:0.05", "bh:0.005", "cut:0.04")
Times = dict[str, float]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(argv)
    loaded = load_model(arguments.model, device=arguments.device)
    contenders = _contenders(loaded, arguments.tokens)
    # The first answer of each is everyone's first: caches fill and kernels are compiled.
    pairs = _pairs(loaded, arguments.tokens)
    for contender in (*contenders.values(), *pairs.values()):
        contender()
    drawn, rounds = random.Random(0), []
    for _ in range(arguments.rounds):
        both = {**contenders, **pairs}
        times: dict[str, Times] = {}
        for name in drawn.sample([*both], len(both)):
            if name in pairs:
                times[_plain(name)], times[_recorded(name)] = pairs[name]()
            else:
                times[name] = contenders[name]()
        rounds.append(times)
    summary = {
        "model": loaded.info.name,
        "device": loaded.info.device,
        "device_name": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "dtype": loaded.info.dtype,
        "decode_path": loaded.info.decode_path,
        "tokens": arguments.tokens,
        "rounds": len(rounds),
        "recording": {
            name: _ratio(rounds, _recorded(pair), (_plain(pair),))
            for name, pair in zip(_names(loaded), pairs, strict=True)
        },
        "turns": {
            str(sides): _ratio(rounds, f"{sides} sides", _names(loaded)[:sides])
            for sides in range(2, len(_RULES) + 1)
        },
        "seconds": {
            name: spread([times[name]["seconds"] for times in rounds]) for name in sorted(rounds[0])
        },
        # Of whatever else the machine does: it has as many processes to run at once.
        "load_average": os.getloadavg()[0],
        "environment": describe_environment(),
    }
    publish(summary, arguments.out)
    return 0


def _names(loaded: LoadedModel) -> list[str]:
    return [_name(loaded, rule) for rule in _RULES]


def _name(loaded: LoadedModel, rule: str | None) -> str:
    return f"top-{loaded.info.top_k}" if rule is None else format_rule(parse_rule(rule))


def _plain(pair: str) -> str:
    return f"{pair}: without"


def _recorded(pair: str) -> str:
    return f"{pair}: with"


def _routings(loaded: LoadedModel) -> list[RoutingIntegration | None]:
    return [
        None
        if rule is None
        else RoutingIntegration(loaded.model, parse_rule(rule), recording=loaded.recording)
        for rule in _RULES
    ]


def _begun(
    loaded: LoadedModel, side: RoutingIntegration | None, tokens: int, *, records: bool
) -> SideDecoder:
    """A side that has its first token."""
    decoder = SideDecoder(
        loaded.model,
        torch.tensor([loaded.tokenizer(_PROMPT).input_ids]),
        GenerationParameters(tokens, sampling=False),
        frozenset(),
        loaded.shape,
        side,
        records=records,
    )
    decoder.step()
    return decoder


class _Clock:
    """Adds up what passes within it."""

    def __init__(self) -> None:
        self.times = {"seconds": 0.0, "processor_seconds": 0.0}

    def __enter__(self) -> None:
        self._begun = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        passed = time.perf_counter() - self._begun[0], time.process_time() - self._begun[1]
        for name, seconds in zip(self.times, passed, strict=True):
            self.times[name] += seconds


def _contenders(loaded: LoadedModel, tokens: int) -> dict[str, Callable[[], Times]]:
    """By name, what writes an answer and says how long it took."""
    routings = _routings(loaded)

    def writing(sides: Sequence[RoutingIntegration | None]) -> Callable[[], Times]:
        def write() -> Times:
            decoders = [_begun(loaded, side, tokens, records=True) for side in sides]
            clock = _Clock()
            with clock:
                for _ in range(tokens - 1):
                    for decoder in decoders:
                        decoder.step()
            return clock.times

        return write

    found = {n: writing([side]) for n, side in zip(_names(loaded), routings, strict=True)}
    for sides in range(2, len(routings) + 1):
        found[f"{sides} sides"] = writing(routings[:sides])
    return found


def _pairs(loaded: LoadedModel, tokens: int) -> dict[str, Callable[[], tuple[Times, Times]]]:
    """By name, what writes an answer twice in turns, without a record and with one."""
    at_once = 1 if loaded.info.device == "cpu" else tokens - 1

    def writing(side: RoutingIntegration | None) -> Callable[[], tuple[Times, Times]]:
        def write() -> tuple[Times, Times]:
            plain, recorded = (
                _begun(loaded, side, tokens, records=records) for records in (False, True)
            )
            without, within = _Clock(), _Clock()
            for begin in range(0, tokens - 1, at_once):
                turn = range(begin, min(begin + at_once, tokens - 1))
                for decoder, clock in ((plain, without), (recorded, within)):
                    with clock:
                        for _ in turn:
                            decoder.step()
            return without.times, within.times

        return write

    names = [f"{name}, in pairs" for name in _names(loaded)]
    return {n: writing(side) for n, side in zip(names, _routings(loaded), strict=True)}


def _ratio(rounds: list[dict[str, Times]], of: str, over: Sequence[str]) -> dict[str, Any]:
    """The time of a contender over that of others together, by round."""
    return {
        clock: spread([t[of][clock] / sum(t[name][clock] for name in over) for t in rounds])
        for clock in rounds[0][of]
    }


if __name__ == "__main__":
    sys.exit(main())
