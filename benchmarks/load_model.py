"""Loading a checkpoint against reading its files: time and peak memory, each in its own process.

    python -m benchmarks.load_model FOLDER --out benchmarks/results/load_model.json

Three ways take turns: the files read into one small buffer (`read`), the files read into new
memory of their size (`read_into_new_memory`, what any loader has to do at least), and the weights
loaded as the program does (`load`). The files are read once before, so that they come from the page
cache as far as it holds them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.summary import publish, spread

WAYS = ("read", "read_into_new_memory", "load")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, or with --child one measurement of it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child is not None:
        print(json.dumps(_measure(arguments.child, arguments.folder)))
        return 0
    _run("read", arguments.folder)
    rounds = [{way: _run(way, arguments.folder) for way in WAYS} for _ in range(arguments.rounds)]
    result = _summary(rounds, arguments.folder)
    publish(result, arguments.out)
    return 0


def _run(way: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.load_model", str(folder), "--child", way]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, float] = json.loads(done.stdout)
    print(way, measured, file=sys.stderr, flush=True)
    return measured


def _summary(rounds: list[dict[str, dict[str, float]]], folder: Path) -> dict[str, Any]:
    from bh_studio.engine.experiments.environment import describe_environment

    ratios = {
        f"load / {way}": spread([r["load"]["seconds"] / r[way]["seconds"] for r in rounds], 3)
        for way in WAYS[:-1]
    }
    return {
        "bytes": sum(path.stat().st_size for path in _files(folder)),
        "seconds": {way: spread([r[way]["seconds"] for r in rounds], 3) for way in WAYS},
        "ratio": ratios,
        "load_peak_rss_bytes": max(r["load"]["peak_rss_bytes"] for r in rounds),
        "rounds": rounds,
        "environment": describe_environment(),
    }


def _measure(way: str, folder: Path) -> dict[str, float]:
    import psutil
    import torch

    from bh_studio.engine.errors import CancelToken
    from bh_studio.engine.loading import read_model
    from bh_studio.engine.models.plan import plan_load
    from bh_studio.engine.steps import result_of_steps

    started = time.perf_counter()
    if way == "load":
        kept: object = result_of_steps(read_model(plan_load(str(folder)), CancelToken()))
    else:
        kept = [_read(path, torch, way == "read_into_new_memory") for path in _files(folder)]
    seconds = time.perf_counter() - started
    assert kept is not None or way == "read"
    return {"seconds": seconds, "peak_rss_bytes": _peak(psutil.Process())}


def _read(path: Path, torch: Any, new_memory: bool) -> Any:
    size = path.stat().st_size if new_memory else 16 * 2**20
    memory = torch.empty(size, dtype=torch.uint8)
    view = memory.numpy().data
    with path.open("rb", buffering=0) as file:
        done = 0
        while count := file.readinto(view[done:] if new_memory else view):
            done += count
            if new_memory and done == size:
                break
    return memory if new_memory else None


def _peak(process: Any) -> int:
    """Highest resident memory so far, files that are mapped included."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return int(process.memory_info().rss)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


if __name__ == "__main__":
    sys.exit(main())
