"""How often the drift meter speaks, on text like the calibration text and unlike it; and its cost.

    python -m tools.science_texts --data DATA --out TEXTS
    python -m benchmarks.drift embedded --calibration TEXTS/calibration --books TEXTS/validation \
        --kinds DATA/kinds/{code,law,maths}.txt --out benchmarks/results/drift_embedded_cpu.json

Two nulls: of the text that ships with the program, and of the calibration books. Each text is read
in windows of the context, of which stretches of 64 to 1,020 tokens without overlap are judged; the
first positions of a window are left out, as in the null. Of the calibration texts themselves
stretches are judged by what the other parts say. Of kinds only the first characters are read. Each
text is also read anew in windows of 128 tokens, as short texts are. And 18 prompts, most of them
out of the books, are answered by the model's own routing and two rules, sampled and greedy.

The cost is paired: in each round two sides answer, and both are judged then, as a run does it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.summary import publish, spread
from bh_studio.engine.calibration.recorder import make_recording, router_logits_of
from bh_studio.engine.experiments.environment import describe_environment
from bh_studio.engine.experiments.evaluation.teacher_forcing import encode
from bh_studio.engine.experiments.runner import run
from bh_studio.engine.loading import LoadedModel, load_model
from bh_studio.engine.protocol.events import SideFinished
from bh_studio.engine.protocol.experiments import Comparison
from bh_studio.engine.protocol.texts import Text, read_texts
from bh_studio.engine.records.terms import GenerationParameters, Keep
from bh_studio.engine.routing.drift import ALPHA, TOLERANCE, DriftMeter
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.text import format_rule

LENGTHS = (64, 128, 256, 512, 1020)
PROMPT = "The old fisherman rowed out to the island, and there he found"
ANSWER = 200
# Tokens of a window that is read anew.
SHORT = 128
# Of each book.
PROMPTS = 4


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--books", type=Path, required=True)
    parser.add_argument("--kinds", type=Path, nargs="*", default=[])
    parser.add_argument("--characters", type=int, default=60_000, help="of each kind")
    parser.add_argument("--windows", type=int, default=30, help="most of each text")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(argv)
    loaded = load_model(arguments.model, device=arguments.device)
    own = [text.content for text in read_texts([arguments.calibration])]
    started = time.perf_counter()
    meters = {"shipped text": DriftMeter(loaded.recording)}
    fit_seconds = time.perf_counter() - started
    recording = make_recording(loaded.model, loaded.tokenizer, own)
    meters["calibration books"] = DriftMeter(recording)
    texts = list(read_texts([arguments.books]))
    texts += [_beginning(path, arguments.characters) for path in arguments.kinds]
    alarms: dict[str, dict[str, Any]] = {
        name: {"held-out parts": _held_out(meter)} for name, meter in meters.items()
    }
    anew: dict[str, dict[str, Any]] = {name: {} for name in meters}
    for text in texts:
        windows = _windows(loaded, text, loaded.info.context_length, arguments.windows)
        short = _windows(loaded, text, SHORT, arguments.windows * 5)
        for name, meter in meters.items():
            alarms[name][text.name] = _alarms(meter, windows)
            judged = (meter.judge_numbers(meter.numbers(window)).factor for window in short)
            anew[name][text.name] = _summary(judged)
        print(text.name, {name: found[text.name] for name, found in alarms.items()}, flush=True)
    summary = {
        "model": loaded.info.name,
        "device": loaded.info.device,
        "dtype": loaded.info.dtype,
        "alpha": ALPHA,
        "tolerance": TOLERANCE,
        "characters_of_each_kind": arguments.characters,
        "tokens_of_nulls": {
            "shipped text": loaded.recording.origin.tokens,
            "calibration books": recording.origin.tokens,
        },
        "limits": {
            name: {str(length): round(meter.limit(length), 4) for length in LENGTHS}
            for name, meter in meters.items()
        },
        "alarms": alarms,
        f"alarms_read_anew_in_{SHORT}": anew,
        "alarms_of_answers": _answers(loaded, meters, read_texts([arguments.books])),
        "fit_shipped_seconds": round(fit_seconds, 3),
        "cost": _cost(loaded, meters["shipped text"], arguments.rounds),
        # Of whatever else the machine does: it has as many processes to run at once.
        "load_average": os.getloadavg()[0],
        "environment": describe_environment(),
    }
    publish(summary, arguments.out)
    return 0


def _beginning(path: Path, characters: int) -> Text:
    with path.open(encoding="utf-8") as file:
        return Text(path.name, file.read(characters))


def _windows(loaded: LoadedModel, text: Text, size: int, most: int) -> list[np.ndarray]:
    """Router logits of the text's windows, (token, layer, expert), first positions left out."""
    (ids,) = encode(loaded, [text])
    whole = [window for window in ids.split(size) if len(window) == size][:most]
    return [router_logits_of(loaded.model, ids).transpose(0, 1).numpy() for ids in whole]


def _alarms(meter: DriftMeter, windows: Sequence[np.ndarray]) -> dict[str, Any]:
    numbers = [meter.numbers(window) for window in windows]
    found: dict[str, Any] = {}
    for length in LENGTHS:
        factors = [
            drift.factor
            for of_window in numbers
            for start in range(0, of_window.shape[2] - length + 1, length)
            if (drift := meter.judge_numbers(of_window[:, :, start : start + length])).factor
        ]
        found[str(length)] = _summary(factors)
    return found


def _answers(
    loaded: LoadedModel, meters: Mapping[str, DriftMeter], books: Sequence[Text]
) -> dict[str, Any]:
    """Answers that are found unlike, by how they are decoded and who answers."""
    prompts = [PROMPT, "Once upon a time"]
    for book in books:
        for number in range(1, PROMPTS + 1):
            start = book.content.find("\n", len(book.content) * number // (PROMPTS + 2)) + 1
            prompts.append(book.content[start : start + 200].rsplit(" ", 1)[0])
    sides = (None, RuleParameters(), RuleParameters(level=0.001))
    factors: dict[str, dict[str, list[float | None]]] = {name: {} for name in meters}
    for seed, prompt in enumerate(prompts):
        for is_sampled in (True, False):
            generation = GenerationParameters(300, sampling=is_sampled, seed=seed)
            definition = Comparison(
                prompt=prompt, sides=sides, generation=generation, keep=Keep.LOGITS
            )
            for event in run(loaded, definition):
                if not isinstance(event, SideFinished):
                    continue
                logits = event.record.router_logits
                assert logits is not None
                how = "sampled" if is_sampled else "greedy"
                rule = sides[event.side]
                key = f"{how}, {'own routing' if rule is None else format_rule(rule)}"
                for name, meter in meters.items():
                    judged = meter.judge(logits.rows(0, logits.shape[0]))
                    factors[name].setdefault(key, []).append(judged.factor)
    return {
        name: {key: _summary(values) for key, values in of_meter.items()}
        for name, of_meter in factors.items()
    }


def _held_out(meter: DriftMeter) -> dict[str, Any]:
    return {
        str(length): _summary(np.sqrt(meter.reference(length)) / meter.limit(length))
        for length in LENGTHS
    }


def _summary(factors: Iterable[float | None]) -> dict[str, Any]:
    """factors: distances over their limit."""
    values = np.array([factor for factor in factors if factor is not None])
    if not len(values):
        return {"stretches": 0}
    return {
        "stretches": len(values),
        "alarms": int((values > 1).sum()),
        "median_factor": round(float(np.median(values)), 3),
        "largest_factor": round(float(values.max()), 3),
    }


def _cost(loaded: LoadedModel, meter: DriftMeter, rounds: int) -> dict[str, Any]:
    """Milliseconds a token and side of decoding and of judging, and their ratio, round by round."""
    generation = GenerationParameters(max_new_tokens=ANSWER, sampling=False)
    sides = (None, RuleParameters())
    definition = Comparison(prompt=PROMPT, sides=sides, generation=generation, keep=Keep.LOGITS)
    decoding, judging = [], []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        records = [e.record for e in run(loaded, definition) if isinstance(e, SideFinished)]
        answered = time.perf_counter()
        for record in records:
            logits = record.router_logits
            assert logits is not None
            meter.judge(logits.rows(0, logits.shape[0]))
        judged = time.perf_counter()
        tokens = sum(len(record.token_ids) for record in records)
        decoding.append((answered - begun) / tokens * 1000)
        judging.append((judged - answered) / tokens * 1000)
    # The first round compiles and fills caches.
    percent = [100 * cost / time for cost, time in zip(judging[1:], decoding[1:], strict=True)]
    return {
        "rounds": rounds,
        "decoding_ms_a_token": spread(decoding[1:], 3),
        "judging_ms_a_token": spread(judging[1:], 4),
        "percent_of_decoding": spread(percent, 3),
    }


if __name__ == "__main__":
    sys.exit(main())
