"""Every reader of files that may be anyone's, and whole files for each of them to be damaged.

A reader goes through what a person would ask for: a command, a request of the window, a call in a
notebook. Knows no damage and no bound.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bh_studio
from bh_studio.__main__ import build_parser
from bh_studio.cli import run
from bh_studio.cli.terminal.streams import CommandError
from bh_studio.engine.errors import CancelToken, EngineError
from bh_studio.engine.execution.clerk import Clerk
from bh_studio.engine.execution.host import Host
from bh_studio.engine.protocol import events
from bh_studio.engine.protocol.definition_file import load_definition
from bh_studio.engine.protocol.prompts_file import read_prompts
from bh_studio.engine.protocol.requests import (
    InspectModel,
    ListRuns,
    LoadModel,
    ReadSession,
    WriteSession,
)
from bh_studio.engine.reading import Result
from bh_studio.engine.records.batch import BatchResult
from bh_studio.engine.records.recording import RecordingError
from bh_studio.engine.records.session import Session, SessionError
from bh_studio.settings import load_settings

ROOT = Path(__file__).parents[1]
FORMER = ROOT / "tests" / "data" / "former"
MODEL, RESULTS = FORMER / "model", FORMER / "results" / "116cce4"
NULL = FORMER / "calibrations" / "probability.npz"
PLACE = ("--model", str(MODEL), "--device", "cpu", "--dtype", "float32")
LOADING = (*PLACE, "--calibration", str(NULL))
FIT, READING = FORMER / "calibration.txt", FORMER / "reading.txt"
FORMER_PROMPTS = (
    "compare", "--prompts-file", str(FORMER / "prompts.jsonl"), *LOADING, "--alpha", "0.1",
    "--temperature", "1.25", "--min-k", "2", "--max-k", "5", "--weights", "match", "--seed", "9",
    "--max-new-tokens", "12", "--system", "Be brief.",
)  # fmt: skip
# The commands that keep rows at --out, and what the file is called there.
KEEPING: dict[str, tuple[str, ...]] = {
    "batch.json": (
        "compare", "--prompts-file", str(FORMER / "prompts.jsonl"), *LOADING,
        "--max-k", "5", "--max-new-tokens", "4",
    ),
    "sweep.json": (
        "sweep", "Once", "--alphas", "0.1", "0.2", *LOADING,
        "--max-k", "5", "--max-new-tokens", "4",
    ),
    "same_text.json": (
        "compare", "--text", str(READING), "--rule", "bh:0.1,max_k=5", "--rule", "top-k:1",
        *LOADING,
    ),
    "evaluation.json": (
        "evaluate", str(READING), "--rule", "bh:0.1,max_k=5", "--controls", *LOADING,
    ),
    "budget.json": (
        "budget", "1.5", "--fit", str(FIT), "--check", str(READING), "--rule", "bh:0.1,max_k=6",
        "--per-layer", *LOADING,
    ),
    "calibration.npz": ("calibrate", str(FIT), "--score", "sensitivity", *PLACE),
}  # fmt: skip


class Refused(Exception):  # noqa: N818 - it is what is wanted
    """A file was not taken, with the sentence that a person reads."""


@dataclass(frozen=True, slots=True)
class Case:
    """A file that is damaged, and who reads it.

    reader: of READERS. file: the whole one. form: of mutations. name: its own in the folder where
    it is read. beside: what must lie there too, by its name there; a folder is copied with all.
    may_write: patterns of names that the reader may leave there.
    """

    reader: str
    file: Path
    form: str
    name: str
    beside: dict[str, Path]
    may_write: tuple[str, ...] = ()


def cases(fresh: Path) -> tuple[Case, ...]:
    """A case for each whole file and reader; `fresh` is a folder for those that are made now."""
    _make(fresh)
    found = [
        Case(reader, path, "zip", f"a{path.suffix}", {}, ("again.bhsession", "again.json"))
        for path in sorted((FORMER / "sessions").glob("*.bhsession"))
        for reader in ("session", "read")
    ]
    month = "runs/2026/11"
    found += [
        Case(
            "run", folder / name, form, f"{month}/run/{name}", {f"{month}/run": folder},
            (f"{month}/again.bhsession",),
        )
        for folder in sorted((FORMER / "runs").iterdir())
        for name, form in (("run.json", "json"), ("events.jsonl", "lines"))
    ]  # fmt: skip
    calibrations = [*sorted((FORMER / "calibrations").glob("*.npz")), fresh / "calibration.npz"]
    logits = ROOT / "tests" / "data" / "olmoe_router_logits_160.npz"
    found += [
        Case(reader, path, "zip", "a.npz", {})
        for path in (*calibrations, logits)
        for reader in ("read", "replay", *(("calibration",) if path != logits else ()))
    ]
    results = [
        *(fresh / name for name in KEEPING if name.endswith(".json")),
        *sorted(RESULTS.glob("*.json")), fresh / "replay.json",
        ROOT / "benchmarks" / "results" / "bench_embedded_cpu.json",
    ]  # fmt: skip
    found += [Case("read", path, "json", "a.json", {}) for path in results]
    found += [Case("read", path, "lines", "a.json", {}) for path in RESULTS.glob("*.rows.jsonl")]
    for name in KEEPING:
        rows = f"{name}.rows.jsonl"
        if name.endswith(".json"):
            found.append(Case(name, fresh / name, "json", name, {}, (rows,)))
        found.append(Case(name, fresh / rows, "lines", rows, {}, (name, rows)))
    found.append(Case("former", RESULTS / "whole_prompts.json", "json", "whole.json", {}))
    found += [
        Case(
            "former", RESULTS / f"{name}.csv.rows.jsonl", "lines", "whole.json.rows.jsonl", {},
            ("whole.json", "whole.json.rows.jsonl"),
        )
        for name in ("prompts", "whole_prompts")
    ]  # fmt: skip
    found += [
        Case("definition", path, "json", path.name, {"calibration.npz": fresh / "calibration.npz"})
        for path in sorted((fresh / "definitions").glob("*.json"))
    ]
    found += [
        Case("prompts", path, form, path.name, {})
        for path, form in (
            (FORMER / "prompts.jsonl", "lines"), (fresh / "prompts.txt", "bytes"),
            (fresh / "prompts.csv", "bytes"),
        )
    ]  # fmt: skip
    found += [
        Case("settings", path, "json", "settings.json", {}, ("settings unreadable *.json",))
        for path in sorted((FORMER / "settings").glob("*.json"))
    ]
    for folder in (MODEL, fresh / "sharded"):
        for path in sorted(folder.iterdir()):
            form = {".json": "json", ".safetensors": "safetensors"}.get(path.suffix, "bytes")
            # Those by which a checkpoint is judged before its weights are read.
            for reader in ("model", *(("inspection",) if path.name == "config.json" else ())):
                found.append(Case(reader, path, form, f"model/{path.name}", {"model": folder}))
    return tuple(found)


def _make(fresh: Path) -> None:
    """Whole files of each kind that this version writes, and a checkpoint in several files."""
    fresh.mkdir(parents=True, exist_ok=True)
    for name, command in KEEPING.items():
        out = fresh / name
        _run(*command, "--out", str(out))
        if name.endswith(".json"):
            document = json.loads(out.read_bytes())
            header = ("schema_version", "kind", "settings", "model", "computation", "environment",
                      "started_at", "prompts_file", "skipped")  # fmt: skip
            lines = [{key: document[key] for key in header if key in document}, *document["rows"]]
            _write_lines(out, lines[:-1])
        else:
            _write_lines(out, _stopped(command))
    null = str(fresh / "calibration.npz")
    replay = ("replay", null, "--rule", "top-k:2", "--rule", "bh:0.1,max_k=5")
    _run(*replay, "--out", str(fresh / "replay.json"))
    (fresh / "prompts.txt").write_text("Once\nDer König 👑\n\nThe end\n", encoding="utf-8")
    (fresh / "prompts.csv").write_text('id,prompt\n1,Once\n2,"a, ""b""\nc"\n', encoding="utf-8")
    (fresh / "definitions").mkdir(exist_ok=True)
    shutil.copy(FIT, fresh / "definitions")
    for name, command in (*KEEPING.items(), ("replay.json", replay)):
        words = tuple(word for word in command if word not in LOADING or word == "--calibration")
        words = tuple(word for word in words if word != "--calibration")
        _run(*words, "--save-definition", str(fresh / "definitions" / f"{Path(name).stem}.json"))
    _make_sharded(fresh / "sharded")


def _stopped(command: tuple[str, ...]) -> list[Any]:
    """The rows of a calibration, which its result does not hold."""
    from bh_studio.engine.experiments.kept import run_kept
    from bh_studio.engine.loading import load_model
    from bh_studio.engine.protocol.experiments import Calibration
    from bh_studio.engine.protocol.texts import read_texts
    from bh_studio.engine.records.journal import Journal
    from bh_studio.engine.rules.names import ScoreName

    loaded = load_model(str(MODEL), device="cpu", dtype="float32")
    definition = Calibration(texts=read_texts([FIT]), factors=(ScoreName.SENSITIVITY,))
    with Journal(None) as journal:
        list(run_kept(loaded, definition, journal))
    rows = [{"key": key, **row} for key, row in journal.rows.items()]
    return [journal.header, *rows]


def _write_lines(out: Path, lines: list[Any]) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    out.with_name(f"{out.name}.rows.jsonl").write_text(text, encoding="utf-8")


def _make_sharded(folder: Path) -> None:
    if not folder.is_dir():
        shutil.copytree(MODEL, folder)
        data = (folder / "model.safetensors").read_bytes()
        length = int.from_bytes(data[:8], "little")
        names = [name for name in json.loads(data[8 : 8 + length]) if name != "__metadata__"]
        shard = "model-00001-of-00001.safetensors"
        (folder / "model.safetensors").rename(folder / shard)
        index = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    special = {"eos_token": "<|endoftext|>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))


def _run(*words: str) -> None:
    """Run a command silently; what goes wrong comes as what was raised."""
    raised: list[Exception] = []
    told = events.failure

    def note(error: Exception) -> events.Failed:
        raised.append(error)
        return told(error)

    with _silence() as said:
        vars(events)["failure"] = note
        try:
            code = run(build_parser().parse_args(words))
        finally:
            vars(events)["failure"] = told
    if raised:
        raise raised[0]
    if code:
        raise Refused(said.getvalue().strip().rpartition("bh-studio: ")[2])


@contextmanager
def _silence() -> Iterator[io.StringIO]:
    """Nothing is printed; what would have been."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        yield said


# --- readers --------------------------------------------------------------------------------


def _session(path: Path) -> None:
    session = _answer(Clerk(), ReadSession(path), events.SessionRead).session
    again = path.with_name("again.bhsession")
    _answer(Clerk(), WriteSession(session, again, ".bhsession"), events.SessionWritten)
    session.to_json()
    # What is taken can be kept and opened again.
    _answer(Clerk(), ReadSession(again), events.SessionRead)


def _run_folder(path: Path) -> None:
    history = path.parents[3]
    _answer(Clerk(), ListRuns(history, history), events.RunsListed)
    _session(path.parent)


def _answer(owner: Clerk, body: Any, wanted: type[Any]) -> Any:
    (event,) = owner.answer(body, CancelToken())
    if isinstance(event, events.Failed):
        # Details are those of what Python itself has raised.
        raise (AssertionError if event.details else Refused)(f"{event.advice} {event.details}")
    assert isinstance(event, wanted)
    return event


def _read(path: Path) -> None:
    found = bh_studio.read(path)
    if isinstance(found, Session):
        found.to_json()
    elif isinstance(found, Result):
        for row in found.rows:
            if hasattr(row, "to_json"):
                row.to_json()
        if isinstance(found.record, BatchResult):
            found.record.summary.to_json()


def _calibration(path: Path) -> None:
    _run("compare", "Once", *PLACE, "--calibration", str(path), "--max-new-tokens", "2",
         "--max-k", "5", "--no-history")  # fmt: skip


def _replay(path: Path) -> None:
    rules = ("--rule", "top-k:2", "--rule", "bh:0.1,max_k=5,null=pooled")
    null = ("--leave-one-out",) if b"header.npy" not in path.read_bytes() else ()
    _run("replay", str(path), *rules, *null)


def _definition(path: Path) -> None:
    load_definition(path).settings()


def _settings(path: Path) -> None:
    load_settings(path)


def _prompts(path: Path) -> None:
    read_prompts(path)


def _keeping(command: tuple[str, ...]) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        _run(*command, "--out", str(path.with_name(path.name.removesuffix(".rows.jsonl"))))

    return read


def _model(path: Path) -> None:
    """Load, and answer a little. What is wrong with a side file is known before the weights."""
    host, has_read = Host(), False
    request = LoadModel(str(path.parent), "cpu", "float32", calibration=NULL)
    try:
        for event in host.answer(request, CancelToken()):
            has_read = has_read or getattr(event, "stage", "").startswith("Reading")
    except EngineError as error:
        is_side = path.suffix != ".safetensors" and "another dtype" not in str(error)
        if has_read and is_side:
            raise AssertionError(f"Refused after the weights: {error}") from error
        raise
    _run("compare", "Once", "--model", str(path.parent), *LOADING[2:], "--max-new-tokens", "2",
         "--max-k", "2", "--no-chat", "--no-history")  # fmt: skip


def _inspection(path: Path) -> None:
    (event,) = Host().answer(InspectModel(str(path.parent), "cpu"), CancelToken())
    assert isinstance(event, events.ModelInspected)
    if event.problem:
        raise EngineError(event.problem)


READERS: dict[str, Callable[[Path], None]] = {
    "run": _run_folder,
    "session": _session,
    "read": _read,
    "calibration": _calibration,
    "replay": _replay,
    "definition": _definition,
    "settings": _settings,
    "prompts": _prompts,
    "model": _model,
    "inspection": _inspection,
    "former": _keeping(FORMER_PROMPTS),
    **{name: _keeping(command) for name, command in KEEPING.items()},
}
# What a person is told in a sentence.
TOLD = (Refused, EngineError, SessionError, RecordingError, CommandError)
