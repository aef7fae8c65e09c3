"""Decoding speed on the embedded model: transformers' generate, our baseline and BH, in one run.

    python benchmarks/decode_speed.py --out benchmarks/results/decode_speed.json

Every round measures every contender once on the same prompt, in an order that rotates, so that
what else the machine does falls on all of them alike. Reported are the median over rounds, the
quartiles, and ratios computed round by round. Speeds are tokens divided by the time of the whole
answer, prompt included, for every contender alike; `generate` has no other clock.
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
from bh_studio.engine.messages import (
    GenerationParameters,
    RuleParameters,
    RunComparison,
    RunFinished,
    Side,
)
from bh_studio.engine.models import LoadedModel, load_model
from bh_studio.engine.session import Session

PROMPTS = (
    "Once upon a time there was a little girl who",
    "The old man opened the door and",
    "In the middle of the forest stood a house",
    "The king had three sons,",
    "It was a dark night, and the ship",
)
ALPHAS = (0.05, 0.005)
RATIOS = (
    ("baseline", "generate"),
    ("baseline", "generate, one thread"),
    ("baseline", "generate, one thread, batched_mm"),
    *((f"BH {alpha}", f"baseline beside BH {alpha}") for alpha in ALPHAS),
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
            speed = len(record.token_ids) / float(record.token_seconds[-1])
            speeds.setdefault(name, []).append(speed)
            if side is Side.BASELINE and alpha == ALPHAS[0]:
                speeds.setdefault("baseline", []).append(speed)
            if side is Side.BH:
                means.setdefault(name, []).append(float(record.expert_counts.mean()))

    contenders: list[Callable[[str], None]] = [
        lambda prompt: generate(prompt, "grouped_mm", threads, "generate"),
        lambda prompt: generate(prompt, "grouped_mm", 1, "generate, one thread"),
        lambda prompt: generate(prompt, "batched_mm", 1, "generate, one thread, batched_mm"),
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
        0, prompt, RuleParameters(alpha=alpha), GenerationParameters(tokens, sampling=False)
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
    for group in ("tokens_per_second", "ratios"):
        for name, value in result[group].items():
            unit = " tok/s" if group == "tokens_per_second" else ""
            print(
                f"| {name} | {value['median']:.3g}{unit} | {value['q25']:.3g}-{value['q75']:.3g} |"
            )
    for name, mean in result["mean_experts"].items():
        print(f"| {name}: mean experts | {mean:.2f} | |")


if __name__ == "__main__":
    main()
