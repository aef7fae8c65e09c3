"""Decoding speed on the embedded model: transformers' generate, our baseline and BH, in one run.

    python benchmarks/decode_speed.py --out benchmarks/results/decode_speed.json

Every round measures every contender once on the same prompt, in an order that rotates, so that
what else the machine does falls on all of them alike. Reported are the median over rounds, the
quartiles, and ratios computed round by round. Two speeds are told apart: "whole answer" divides
tokens by the time an answer takes, prompt included, for `generate` has no other clock; "decode" is
what the program shows, from a side's first token to its last. Our sides' times are the sums of
their steps: what happens between two steps serves both sides and the display, and is left out.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from bh_studio import paths
from bh_studio.engine.comparison import compare
from bh_studio.engine.environment import describe_environment
from bh_studio.engine.messages import GenerationParameters, RunComparison, RunFinished, Side
from bh_studio.engine.models import LoadedModel, load_model
from bh_studio.engine.rule_parameters import RuleParameters
from bh_studio.engine.session import Session

PROMPTS = (
    "Once upon a time there was a little girl who",
    "The old man opened the door and",
    "In the middle of the forest stood a house",
    "The king had three sons,",
    "It was a dark night, and the ship",
)
ALPHAS = (0.05, 0.005)
GENERATE = ("generate", "generate, one thread", "generate, one thread, batched_mm")
BASELINE = f"baseline beside BH {ALPHAS[0]}, whole answer"
RATIOS = (
    *((BASELINE, name) for name in GENERATE),
    *((f"BH {alpha}, decode", f"baseline beside BH {alpha}, decode") for alpha in ALPHAS),
    *(
        (f"BH {alpha}, whole answer", f"baseline beside BH {alpha}, whole answer")
        for alpha in ALPHAS
    ),
)


def main() -> None:
    """Measure, print a table, write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    threads = torch.get_num_threads()
    loaded = load_model()
    stock = AutoModelForCausalLM.from_pretrained(
        paths.resource("models/olmoe-nano"), dtype=loaded.model.dtype
    )
    speeds, means = measure(loaded, stock, threads, arguments.rounds, arguments.tokens)
    result = {
        "model": loaded.info.name,
        "dtype": loaded.info.dtype,
        "rounds": arguments.rounds,
        "tokens": arguments.tokens,
        "generate_threads": threads,
        "mean_experts": {name: float(np.mean(values)) for name, values in means.items()},
        "tokens_per_second": {name: summary(values) for name, values in speeds.items()},
        "ratios": {
            f"{left} / {right}": summary((np.array(speeds[left]) / speeds[right]).tolist())
            for left, right in RATIOS
        },
        "environment": describe_environment(),
    }
    print_table(result)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


def measure(
    loaded: LoadedModel, stock: Any, threads: int, rounds: int, tokens: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Tokens per second of each contender in each round, and mean experts of each BH rule."""
    speeds: dict[str, list[float]] = {}
    means: dict[str, list[float]] = {}

    def generate(prompt: str, implementation: str, thread_count: int, name: str) -> None:
        stock.set_experts_implementation(implementation)
        torch.set_num_threads(thread_count)
        token_ids = loaded.tokenizer(prompt, return_tensors="pt").input_ids
        start = time.perf_counter()
        stock.generate(
            token_ids,
            attention_mask=torch.ones_like(token_ids),
            do_sample=False,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            pad_token_id=0,
        )
        speeds.setdefault(name, []).append(tokens / (time.perf_counter() - start))
        torch.set_num_threads(1)

    def both_sides(prompt: str, alpha: float) -> None:
        session = run(loaded, prompt, alpha, tokens)
        for side, name in (
            (Side.BASELINE, f"baseline beside BH {alpha}"),
            (Side.BH, f"BH {alpha}"),
        ):
            record = session.sides[side]
            whole = len(record.token_ids) / float(record.token_seconds[-1])
            speeds.setdefault(f"{name}, whole answer", []).append(whole)
            decode = record.tokens_per_second
            assert decode is not None
            speeds.setdefault(f"{name}, decode", []).append(decode)
            if side is Side.BH:
                means.setdefault(name, []).append(float(record.expert_counts.mean()))

    contenders: list[Callable[[str], None]] = [
        lambda prompt: generate(prompt, "grouped_mm", threads, GENERATE[0]),
        lambda prompt: generate(prompt, "grouped_mm", 1, GENERATE[1]),
        lambda prompt: generate(prompt, "batched_mm", 1, GENERATE[2]),
        *(lambda prompt, alpha=alpha: both_sides(prompt, alpha) for alpha in ALPHAS),
    ]
    for contender in contenders:  # first calls are slow
        contender(PROMPTS[0])
    speeds.clear()
    means.clear()
    for number in range(rounds):
        first = number % len(contenders)
        for contender in contenders[first:] + contenders[:first]:
            contender(PROMPTS[number % len(PROMPTS)])
    return speeds, means


def run(loaded: LoadedModel, prompt: str, alpha: float, tokens: int) -> Session:
    """One comparison as the program does it."""
    request = RunComparison(
        0, prompt, RuleParameters(level=alpha), GenerationParameters(tokens, sampling=False)
    )
    *_, last = compare(loaded, request)
    assert isinstance(last, RunFinished)
    return last.session


def summary(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return {"median": float(middle), "q25": float(low), "q75": float(high)}


def print_table(result: dict[str, Any]) -> None:
    """The figures as Markdown."""
    print(f"{result['environment']['processor']}, {result['rounds']} rounds\n")
    print("| | median | quartiles |\n|---|---|---|")
    for group, unit, digits in (("tokens_per_second", " tok/s", 1), ("ratios", "", 3)):
        for name, value in result[group].items():
            low, middle, high = (f"{value[key]:.{digits}f}" for key in ("q25", "median", "q75"))
            print(f"| {name} | {middle}{unit} | {low} to {high} |")
    for name, mean in result["mean_experts"].items():
        print(f"| {name}: mean experts | {mean:.2f} | |")


if __name__ == "__main__":
    main()
