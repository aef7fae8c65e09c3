"""Campaigns against the program: what it does with what it was not made for.

    python -m tools.campaign mutations --seed 0 --count 6000 --out FILE.json [--case N ...]
    python -m tools.campaign interruptions --seed 0 --out FILE.json [--only SCENARIO ...]

`mutations` damages whole files in ways that are drawn, and has every reader read them, each in a
process of its own with a bound on memory and time. A damaged file is accepted or refused in a
sentence; all else is a fault: an error in Python's own words, more memory than 100 MB and four
times what was unpacked, more than five seconds, a file that was left where none belongs. The same
seed gives the same damage; --case does one again and shows what was raised.

`interruptions` stops commands and the window at moments that are drawn, and refuses them the disk;
what was there must be kept, and the same command again must come to the result of an undisturbed
run. tools/interruptions has the scenarios. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tools.interruptions import schedule
from tools.mutations import mutated

SECONDS = 5.0
ROOM, GROWTH = 100_000_000, 4
# Beyond the bound, so that what is over it is measured; below what the machine has.
MOST_MEMORY = 3 * 2**30
PYTHONS_WORDS = re.compile(
    r"object has no attribute|unhashable|not supported between|NoneType|inhomogeneous|"
    r"must be (str|int|real number)|is not (iterable|subscriptable|callable)|unexpected keyword|"
    r"argument|list index|Traceback|invalid literal for|could not convert|dtype='|TokenError|"
    r"<class "
)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    campaigns = parser.add_subparsers(required=True)
    mutations = campaigns.add_parser("mutations", help="damaged files, and all that read them")
    mutations.add_argument("--seed", type=int, default=0)
    mutations.add_argument("--count", type=int, default=6000)
    mutations.add_argument("--case", type=int, nargs="*", help="only these, with what was raised")
    mutations.add_argument("--out", type=Path)
    mutations.set_defaults(run=_mutations)
    stops = campaigns.add_parser("interruptions", help="programs that are stopped or refused")
    schedule.add_arguments(stops)
    stops.set_defaults(run=schedule.interruptions)
    arguments = parser.parse_args()
    arguments.run(arguments)


def _mutations(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        document = _mutated(arguments, Path(folder))
    print(json.dumps({name: document[name] for name in ("outcomes", "worst")}, indent=1))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(document, indent=1) + "\n")


def _mutated(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    _use_own_folders(folder)
    # The programs' own folders are read from the environment when these are imported.
    from tools.campaign_readers import cases

    whole = cases(folder / "fresh")
    numbers = arguments.case if arguments.case else range(arguments.count)
    started, found = time.time(), []
    for number in numbers:
        drawn = random.Random(f"{arguments.seed} {number}")
        case = whole[drawn.randrange(len(whole))]
        damage = mutated(case.file.read_bytes(), case.form, drawn)
        result = _in_a_process(case, damage.data, folder / "case")
        said = {"case": number, "reader": case.reader, "file": case.file.name, "what": damage.what}
        found.append({**said, "bytes": len(damage.data), **result})
        if arguments.case:
            print(json.dumps(found[-1], indent=1))
        elif result["outcome"] not in ("accepted", "refused"):
            print(json.dumps({**found[-1], "trace": None}), flush=True)
    return {
        "what": "damaged files and what their readers did with them",
        "seed": arguments.seed,
        "count": len(found),
        "bounds": {"seconds": SECONDS, "bytes": ROOM, "times unpacked": GROWTH},
        "outcomes": dict(Counter(one["outcome"] for one in found)),
        "by_reader": _by_reader(found),
        "worst": {
            "seconds": max(one["seconds"] for one in found),
            "grown_bytes": max(one["grown_bytes"] for one in found),
        },
        "faults": [one for one in found if one["outcome"] not in ("accepted", "refused")],
        "took_s": round(time.time() - started),
    }


def _use_own_folders(folder: Path) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        os.environ[name] = str(folder / name.lower())
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def _by_reader(found: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for one in found:
        counts.setdefault(one["reader"], Counter())[one["outcome"]] += 1
    return {name: dict(counts[name]) for name in sorted(counts)}


# --- one file, one process ------------------------------------------------------------------


def _in_a_process(case: Any, data: bytes, folder: Path) -> dict[str, Any]:
    """What became of `data` in the place of the file of `case`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, source in case.beside.items():
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name)
    path = folder / case.name
    path.write_bytes(data)
    before = _files(folder.parent)
    receiving, sending = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        _be_the_child(case.reader, path, sending)
    os.close(sending)
    said = _received(receiving, child, started + SECONDS)
    seconds = time.monotonic() - started
    may_be = [str(folder / pattern) for pattern in case.may_write]
    left = {
        path
        for path in _files(folder.parent) - before
        if not any(fnmatchcase(path, pattern) for pattern in may_be)
    }
    result = {"grown_bytes": 0, "unpacked_bytes": 0, **said, "seconds": round(seconds, 3)}
    bound = ROOM + GROWTH * max(len(data), result["unpacked_bytes"])
    if result["grown_bytes"] > bound:
        result["outcome"] = "memory"
    if left:
        result |= {"outcome": "files", "left": sorted(left)}
    return result


def _received(pipe: int, child: int, until: float) -> dict[str, Any]:
    os.set_blocking(pipe, False)
    told = b""
    while time.monotonic() < until:
        try:
            piece = os.read(pipe, 2**16)
        except BlockingIOError:
            time.sleep(0.002)
            continue
        if not piece:
            break
        told += piece
    else:
        os.kill(child, signal.SIGKILL)
    os.close(pipe)
    _, status = os.waitpid(child, 0)
    if told:
        said: dict[str, Any] = json.loads(told)
        return said
    is_late = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return {"outcome": "time" if is_late else "crash", "message": f"ended with {status}"}


def _be_the_child(reader: str, path: Path, pipe: int) -> None:
    """Read, tell, and end; never returns."""
    from tools.campaign_readers import READERS

    os.chdir(path.parent)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    os.environ["TMPDIR"] = tempfile.tempdir = str(path.parent)
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + MOST_MEMORY,) * 2)
    unpacked = _count_unpacked()
    # From here on the highest resident size is counted anew.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    told: dict[str, Any] = {"outcome": "accepted", "message": ""}
    try:
        READERS[reader](path)
    except MemoryError:
        told = {"outcome": "memory", "message": "MemoryError", "trace": traceback.format_exc()}
    except BaseException as error:  # noqa: BLE001 - panics of libraries are none of Exception
        told = _judged(error)
    told |= {"grown_bytes": _status("VmHWM") - before, "unpacked_bytes": unpacked[0]}
    with os.fdopen(pipe, "wb") as file:
        file.write(json.dumps(told).encode())
    os._exit(0)


def _judged(error: BaseException) -> dict[str, Any]:
    from tools.campaign_readers import TOLD

    message = str(error)
    frames = traceback.extract_tb(error.__traceback__)
    # A ValueError of ours is a sentence wherever it is said.
    is_sentence = type(error).__module__ != "builtins" or message.endswith(".")
    is_ours = isinstance(error, TOLD) or (
        isinstance(error, ValueError) and is_sentence and "/bh_studio/" in frames[-1].filename
    )
    is_told = is_ours and not PYTHONS_WORDS.search(message)
    trace = "".join(traceback.format_exception(error))[-3000:]
    return {
        "outcome": "refused" if is_told else "python",
        "message": f"{type(error).__name__}: {message[:300]}",
        **({} if is_told else {"trace": trace}),
    }


def _count_unpacked() -> list[int]:
    """Bytes that archives give from now on, counted in the list's one number."""
    counted = [0]
    reads = zipfile.ZipExtFile.read

    def read(self: zipfile.ZipExtFile, n: int | None = -1) -> bytes:
        data = reads(self, n)
        counted[0] += len(data)
        return data

    zipfile.ZipExtFile.read = read  # type: ignore[method-assign]
    return counted


def _status(name: str) -> int:
    """A size of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _files(folder: Path) -> set[str]:
    """Everything below `folder` but what can be computed again."""
    return {
        os.path.join(place, name)
        for place, _, names in os.walk(folder)
        for name in names
        if "/xdg_cache_home/" not in place + "/"
    }


if __name__ == "__main__":
    sys.setrecursionlimit(1000)
    main()
