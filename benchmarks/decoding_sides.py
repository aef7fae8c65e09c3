"""What it costs to decode several sides in turns, and to record what is decided.

    python -m benchmarks.decoding_sides embedded --out benchmarks/results/decoding_sides_cpu.json

In each round every contender writes --tokens tokens after the same prompt, in an order drawn anew:
single sides without a record and with one, and one to four sides in turns, all with a record, as a
comparison has them. Ratios are of one round: `recording` is a single side with a record over the
same side without; `turns` is so many sides in turns over the sum of the single ones. What is timed
is the time that passes from the first token to the last, and beside it that of the processor, which
other programs on the machine change less.
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
    for contender in contenders.values():
        contender()
    drawn, rounds = random.Random(0), []
    for _ in range(arguments.rounds):
        order = drawn.sample([*contenders], len(contenders))
        times = {name: contenders[name]() for name in order}
        rounds.append({name: times[name] for name in contenders})
    summary = {
        "model": loaded.info.name,
        "device": loaded.info.device,
        "device_name": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "dtype": loaded.info.dtype,
        "decode_path": loaded.info.decode_path,
        "tokens": arguments.tokens,
        "rounds": len(rounds),
        "recording": {
            name: _ratio(rounds, f"{name}, recorded", (name,)) for name in _names(loaded)
        },
        "turns": {
            str(sides): _ratio(
                rounds, f"{sides} sides", [f"{n}, recorded" for n in _names(loaded)[:sides]]
            )
            for sides in range(2, len(_RULES) + 1)
        },
        "seconds": {
            name: spread([times[name]["seconds"] for times in rounds]) for name in contenders
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


def _contenders(loaded: LoadedModel, tokens: int) -> dict[str, Callable[[], Times]]:
    """By name, what writes an answer and says how long it took."""
    routings = [
        None
        if rule is None
        else RoutingIntegration(loaded.model, parse_rule(rule), recording=loaded.recording)
        for rule in _RULES
    ]
    prompt = torch.tensor([loaded.tokenizer(_PROMPT).input_ids])
    parameters = GenerationParameters(tokens, sampling=False)

    def writing(sides: Sequence[RoutingIntegration | None], records: bool) -> Callable[[], Times]:
        def write() -> Times:
            decoders = [
                SideDecoder(
                    loaded.model, prompt, parameters, frozenset(), loaded.shape, side,
                    records=records,
                )
                for side in sides
            ]  # fmt: skip
            for decoder in decoders:
                decoder.step()
            begun, begun_computing = time.perf_counter(), time.process_time()
            for _ in range(tokens - 1):
                for decoder in decoders:
                    decoder.step()
            return {
                "seconds": time.perf_counter() - begun,
                "processor_seconds": time.process_time() - begun_computing,
            }

        return write

    found = {}
    for name, routing in zip(_names(loaded), routings, strict=True):
        found[name] = writing([routing], records=False)
        found[f"{name}, recorded"] = writing([routing], records=True)
    for sides in range(2, len(routings) + 1):
        found[f"{sides} sides"] = writing(routings[:sides], records=True)
    return found


def _ratio(rounds: list[dict[str, Times]], of: str, over: Sequence[str]) -> dict[str, Any]:
    """The time of a contender over that of others together, by round."""
    return {
        clock: spread([t[of][clock] / sum(t[name][clock] for name in over) for t in rounds])
        for clock in rounds[0][of]
    }


if __name__ == "__main__":
    sys.exit(main())
