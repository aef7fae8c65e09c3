"""A full-size checkpoint on this machine: what has to be identical is, and how fast it decodes.

    python -m benchmarks.full_size FOLDER --device auto --out FILE.json

Loads the model (its null is fitted if this machine has none yet), checks that nothing changes where
nothing should, evaluates a rule on a few windows, and measures what `bh-studio bench` does. Exits
with 1 if a check fails.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bh_studio.engine.calibration.recorder import calibration_text
from bh_studio.engine.experiments.environment import describe_environment
from bh_studio.engine.experiments.runner import run
from bh_studio.engine.loading import LoadedModel, load_model
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.protocol.events import Finished, LoadProgress
from bh_studio.engine.protocol.experiments import Benchmark, Evaluation, Experiment
from bh_studio.engine.protocol.texts import Text
from bh_studio.engine.records.benchmark.document import document
from bh_studio.engine.records.evaluation import EvaluationResult
from bh_studio.engine.rules.parameters import Mode, RuleParameters


def main(argv: Sequence[str] | None = None) -> int:
    """Check, measure, print and write; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prefill", type=int, default=512, help="tokens of a long prompt")
    parser.add_argument("--windows", type=int, default=8, help="to evaluate, of 256 tokens")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(argv)
    stages = Stages()
    loaded = load_model(arguments.folder, stages.take, device=arguments.device)
    stages.end()
    result: dict[str, Any] = {
        "model": loaded.info.name,
        "dtype": loaded.info.dtype,
        "device": loaded.info.device,
        "load_seconds": stages.seconds,
        "checks": checks(loaded),
    }
    write(result, arguments.out)
    result["evaluation"] = evaluated(loaded, arguments.windows)
    # Of loading, first calibration, checks and evaluation.
    result["peak_rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if torch.cuda.is_available():
        result["peak_gpu_bytes"] = torch.cuda.max_memory_allocated()
    result["environment"] = describe_environment()
    write(result, arguments.out)
    benchmark = Benchmark(
        tokens=arguments.tokens, rounds=arguments.rounds, prefill_tokens=arguments.prefill
    )
    result["bench"] = document(result_of(loaded, benchmark))
    write(result, arguments.out)
    print(json.dumps(result, indent=1))
    return 0 if all(result["checks"].values()) else 1


class Stages:
    """How long each step of loading took, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stage = "Checking"
        self._since = time.perf_counter()

    def take(self, progress: LoadProgress) -> None:
        """Note that `progress` has begun or goes on."""
        if progress.stage != self._stage:
            self.end()
            self._stage = progress.stage

    def end(self) -> None:
        """The present step is over."""
        now = time.perf_counter()
        self.seconds[self._stage] = round(now - self._since, 2)
        self._since = now


def checks(loaded: LoadedModel) -> dict[str, bool]:
    """What must hold bit for bit, in a pass over many tokens and one token at a time."""
    model, top_k = loaded.model, loaded.shape.top_k
    tokens = loaded.tokenizer(calibration_text()[:400], return_tensors="pt").input_ids
    tokens = tokens[:, :200].to(model.device)

    def outputs() -> list[Tensor]:
        with torch.inference_mode():
            whole = model(tokens[:, :-3], use_cache=True)
            cache, found = whole.past_key_values, [whole.logits]
            for place in range(3):
                one = tokens[:, tokens.shape[1] - 3 + place :][:, :1]
                found.append(model(one, past_key_values=cache, use_cache=True).logits)
        return found

    def same(left: list[Tensor], right: list[Tensor]) -> bool:
        return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))

    def routed(**values: Any) -> RoutingIntegration:
        return RoutingIntegration(model, RuleParameters(**values), recording=loaded.recording)

    before = outputs()
    with routed(mode=Mode.ANALYZE):
        analyzed = outputs()
    with routed(min_k=top_k, max_k=top_k):
        identical = outputs()
    strict = routed(level=0.001, max_k=top_k)
    with strict:
        changed = outputs()
        fewer = strict.get_routing_stats()["mean_experts_per_token"] < top_k
    try:
        with strict:
            raise KeyError
    except KeyError:
        pass
    return {
        "same_pass_twice": same(before, outputs()),
        "analyze_changes_nothing": same(before, analyzed),
        "bh_with_the_models_own_k_changes_nothing": same(before, identical),
        "bh_changes_something": fewer and not same(before, changed),
        "restored_after_an_error": same(before, outputs()) and not strict.is_patched,
        "logits_are_finite": all(bool(logits.isfinite().all()) for logits in before),
    }


def evaluated(loaded: LoadedModel, count: int) -> dict[str, Any]:
    """Two rules on a few windows; the losses of random weights mean nothing, that it runs does."""
    top_k = loaded.shape.top_k
    rules = (RuleParameters(level=0.001), RuleParameters(min_k=top_k, max_k=top_k))
    text = Text("calibration.txt", calibration_text())
    definition = Evaluation(texts=(text,), rules=rules, window=256, tokens=count * 128)
    start = time.perf_counter()
    evaluation: EvaluationResult = result_of(loaded, definition)
    labels = [contender.label for contender in evaluation.contenders]
    scores = [score.to_dict() for score in evaluation.scores()]
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "scores": dict(zip(labels, scores, strict=True)),
    }


def result_of(loaded: LoadedModel, definition: Experiment) -> Any:
    """The document at the end of `definition`."""
    *_, last = run(loaded, definition)
    assert isinstance(last, Finished)
    return last.document


def write(result: dict[str, Any], out: Path | None) -> None:
    """Write what there is so far."""
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
