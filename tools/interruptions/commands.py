"""Commands that write a file, small enough to be run many times, and how two results compare."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bh_studio.engine.records.journal import rows_path
from tools.interruptions.programs import PROGRAM

ROOT = Path(__file__).parents[2]
TEXT = ROOT / "resources" / "texts" / "calibration.txt"
# Of two layers, for what goes through every layer, and with a chat template.
FORMER = ROOT / "tests" / "data" / "former"
_SMALL = (
    "--model", str(FORMER / "model"), "--dtype", "float32",
    "--calibration", str(FORMER / "calibrations" / "probability.npz"),
)  # fmt: skip
PROMPTS, TEXTS = "prompts.txt", ("first.txt", "second.txt", "third.txt")
DEFINITION, LINES, RECORDING = "definition.json", "lines.txt", "recording.npz"
_BEGINNINGS = ("One day", "At last", "Then", "But why")
_CHARACTERS = 700
# What differs from one undisturbed run to the next.
_TIMES = (
    "started_at", "finished_at", "tokens_per_second", "time_to_first_token_s", "environment",
    "_seconds", "speed_ratio",
)  # fmt: skip
_LAST = ("compare", "One day said the fox to the", "--max-new-tokens", "40")
_MANY = ("compare", "--prompts-file", PROMPTS, "--max-new-tokens", "12")
_SWEEP = ("sweep", "--prompts-file", PROMPTS, "--seeds", "2", "--max-new-tokens", "6")
_RULES = ("--rule", "bh:0.01", "--rule", "top-k:5")


@dataclass(frozen=True, slots=True)
class Command:
    """A command line without its --out.

    keeps_rows: whether it goes on where it was stopped. has_first_use: whether its nulls are fitted
    by each run, in a cache of its own. is_saved_often: whether its file is written more than once,
    each time a whole one. is_made_anew: whether its finished file is not gone on with, for it does
    not hold the rows. given: standard input. program: as of programs.Running.
    """

    name: str
    arguments: tuple[str, ...]
    ending: str
    keeps_rows: bool = True
    has_first_use: bool = False
    is_saved_often: bool = False
    is_made_anew: bool = False
    given: str = ""
    program: str = PROGRAM

    @property
    def out(self) -> str:
        """The file that it writes."""
        return f"result{self.ending}"

    @property
    def line(self) -> list[str]:
        """All arguments."""
        return [*self.arguments, "--out", self.out]


COMMANDS = (
    Command("compare .bhsession", _LAST, ".bhsession", keeps_rows=False),
    Command(
        "evaluate",
        ("evaluate", *TEXTS[:2], "--controls", "--rule", "bh:0.05",
         "--window", "64", "--batch", "1"),
        ".json",
    ),
    Command("compare many .json", _MANY, ".json"),
    Command(
        "budget",
        ("budget", "1.5", "--fit", TEXTS[0], "--check", TEXTS[1], "--rule", "bh:0.1,max_k=6",
         "--per-layer", *_SMALL),
        ".json",
    ),
    Command("compare .json", _LAST, ".json", keeps_rows=False),
    Command(
        "calibrate", ("calibrate", *TEXTS, "--score", "sensitivity"), ".npz", is_made_anew=True
    ),
    Command("sweep .json", (*_SWEEP, *_RULES), ".json"),
    Command("run", ("run", DEFINITION), ".json"),
    Command("compare many .csv", _MANY, ".csv"),
    Command("compare .csv", _LAST, ".csv", keeps_rows=False),
    Command("sweep .csv", (*_SWEEP, *_RULES), ".csv"),
    Command("compare, first use", _LAST, ".bhsession", keeps_rows=False, has_first_use=True),
    Command("replay", ("replay", RECORDING, "--rule", "top-k:5"), ".json", keeps_rows=False),
    Command(
        "chat",
        ("chat", *_SMALL, "--max-new-tokens", "8"),
        ".bhsession",
        keeps_rows=False,
        is_saved_often=True,
        given="Who mends the net?\nAnd who mends the boat?\n",
    ),
)  # fmt: skip
# Run once before all others, in the folder of the inputs; they make some of them.
PREPARING = (
    (*_SWEEP, "--rule", "bh:0.02", "--rule", "top-p:0.5", "--save-definition", DEFINITION),
    ("calibrate", *TEXTS, "--out", RECORDING),
)


def write_inputs(folder: Path) -> None:
    """Write what the commands read, but what PREPARING makes."""
    words = TEXT.read_text(encoding="utf-8")
    for number, name in enumerate(TEXTS):
        start = 2 * number * _CHARACTERS
        (folder / name).write_text(words[start : start + _CHARACTERS], encoding="utf-8")
    lines = (f"{beginning} said the fox to the\n" for beginning in _BEGINNINGS)
    (folder / PROMPTS).write_text("".join(lines), encoding="utf-8")


def content(path: Path) -> Any:
    """What a result says but for times; raises whatever reading it raises."""
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_bytes()))
    if path.suffix == ".csv":
        return [_timeless(row) for row in csv.DictReader(io.StringIO(path.read_text()))]
    if path.suffix == ".npz":
        return _arrays(path.read_bytes())
    with zipfile.ZipFile(path) as bundle:
        session = _timeless(json.loads(bundle.read("session.json")))
        return session, _arrays(bundle.read("arrays.npz"))


def kept_rows(out: Path) -> dict[str, Any] | None:
    """The rows beside `out`, by key, but for times; None if there is no file of rows.

    A last line that was cut short is none. Raises ValueError for another that is no row, and for a
    key that is there twice.
    """
    try:
        lines = rows_path(out).read_bytes().split(b"\n")[1:-1]
    except FileNotFoundError:
        return None
    rows: dict[str, Any] = {}
    for line in lines:
        row = json.loads(line)
        key = row["key"]
        if key in rows:
            raise ValueError(f"the row {key} is there twice.")
        rows[key] = _timeless(row)
    return rows


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {n: _timeless(v) for n, v in value.items() if not n.endswith(_TIMES)}
        # Rows may come in any order.
        if isinstance(kept.get("rows"), list):
            kept["rows"] = sorted(kept["rows"], key=lambda row: str(row.get("key")))
        return kept
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def _arrays(data: bytes) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    with np.load(io.BytesIO(data)) as arrays:
        return {
            name: (str(arrays[name].dtype), arrays[name].shape, arrays[name].tobytes())
            for name in arrays.files
            if not name.endswith(_TIMES)
        }
