"""How long it takes to have two sides read the same text.

    python -m benchmarks.same_text embedded --out benchmarks/results/same_text_embedded_cpu.json

The model's own routing and BH read a text of --tokens tokens, as `compare --text` has them do: from
the request to the whole result, the tokens' texts included, with the model loaded before. The first
reading of all is everyone's first and is told apart. Beside the time that passes stands that of the
processor, which other programs on the machine change less.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.summary import publish, spread
from bh_studio.engine.calibration.recorder import calibration_text
from bh_studio.engine.experiments.environment import describe_environment
from bh_studio.engine.experiments.runner import run
from bh_studio.engine.loading import LoadedModel, load_model
from bh_studio.engine.protocol.events import Finished
from bh_studio.engine.protocol.experiments import SameText
from bh_studio.engine.protocol.texts import Text
from bh_studio.engine.records.same_text.result import SameTextResult
from bh_studio.engine.rules.parameters import RuleParameters

Times = dict[str, float]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(argv)
    loaded = load_model(arguments.model, device=arguments.device)
    definition = SameText(text=_text(loaded, arguments.tokens), sides=(None, RuleParameters()))
    first, result = _read(loaded, definition)
    rounds = [_read(loaded, definition)[0] for _ in range(arguments.rounds)]
    summary = {
        "model": loaded.info.name,
        "device": loaded.info.device,
        "dtype": loaded.info.dtype,
        "tokens": len(result.token_ids),
        "sides": len(result.sides),
        "rounds": len(rounds),
        "first": first,
        **{name: spread([times[name] for times in rounds]) for name in first},
        # Of whatever else the machine does: it has as many processes to run at once.
        "load_average": os.getloadavg()[0],
        "environment": describe_environment(),
    }
    publish(summary, arguments.out)
    return 0


def _text(loaded: LoadedModel, tokens: int) -> Text:
    """The beginning of the calibration text, of so many tokens."""
    ids = loaded.tokenizer(calibration_text(), verbose=False).input_ids
    return Text("calibration.txt", loaded.tokenizer.decode(ids[:tokens]))


def _read(loaded: LoadedModel, definition: SameText) -> tuple[Times, SameTextResult]:
    begun, begun_computing = time.perf_counter(), time.process_time()
    *_, last = run(loaded, definition)
    assert isinstance(last, Finished)
    result: SameTextResult = last.document
    times = {
        "seconds": round(time.perf_counter() - begun, 4),
        "processor_seconds": round(time.process_time() - begun_computing, 4),
    }
    return times, result


if __name__ == "__main__":
    sys.exit(main())
