"""What rules cost on texts of many kinds: the numbers of docs/science.md on other texts.

    python -m tools.measure_kinds levels --books VALIDATION --calibration BOOKS.npz --out FOLDER
    python -m tools.measure_kinds measure --texts TEXTS --calibration BOOKS.npz --out FOLDER

`levels` sets every contender to the same mean on books and writes FOLDER/contenders.json: what a
person has who carries a level from one text to another. `measure` reads TEXTS/KIND.txt, a file a
kind, with those levels, and with levels that give each contender BH's mean on that very kind. Each
evaluation is a result of `bh-studio evaluate` in FOLDER, written as it is read; the same command
goes on from there. FOLDER/kinds.json has what follows from all of them.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bh_studio.engine.experiments.budget.level_search import loosened, looseness_of
from bh_studio.engine.experiments.budget.mean_experts import Replay
from bh_studio.engine.experiments.kept import run_kept
from bh_studio.engine.loading import LoadedModel, load_model
from bh_studio.engine.moe.fingerprint import check_recording
from bh_studio.engine.protocol.events import Finished
from bh_studio.engine.protocol.experiments import Evaluation
from bh_studio.engine.protocol.texts import Text
from bh_studio.engine.records.evaluation import EvaluationResult
from bh_studio.engine.records.journal import Journal
from bh_studio.engine.records.result_document import file_of, result_document
from bh_studio.engine.routing.recordings import load_recording
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.text import format_rule, parse_rule
from tools.kind_statistics import across_kinds, of_kind
from tools.measure_quality import WINDOW, LevelSetter, read_folder

MEAN = 5.0
REFERENCE = "BH"
# By the name that tables have; levels are only where a search begins.
_ONE_LEVEL = {
    REFERENCE: "bh:0.01",
    "BH, pooled null": "bh:0.01,null=pooled",
    "cut": "cut:0.03",
}
# Factors and null come from passages of training books.
_SENSITIVE = {"BH, sensitivity": "bh:0.05,score=sensitivity,null=pooled"}
_FIXED, _CUT_BY_LAYER, _BH_BY_LAYER = "fixed top-k", "cut by layer", "BH by layer"
_FIXED_BY_LAYER = "fixed top-k by layer"
_ROUNDS = 8


class Model:
    """The model with both recordings."""

    def __init__(self, calibration: Path) -> None:
        # As the embedded model is on a processor, where most people have it.
        self.bundled = load_model(dtype="float32")
        self.books = replace(self.bundled, recording=load_recording(calibration))
        check_recording(self.books.recording, self.books.model)

    def of(self, name: str) -> LoadedModel:
        """With the recording that the contender `name` takes its null and factors from."""
        return self.books if name in _SENSITIVE else self.bundled


def levels(model: Model, books: Sequence[Text], fitted: str, tokens: int | None) -> dict[str, str]:
    """Every contender at MEAN experts on `books`, by name. fitted: BH with a level for each layer,
    what `bh-studio budget --per-layer` found."""
    setter = LevelSetter(model.bundled, books, WINDOW, tokens)
    found = {_FIXED: f"top-k:{MEAN:g}"}
    for name, text in (_ONE_LEVEL | _SENSITIVE).items():
        found[name] = at_mean(setter, model.of(name), name, parse_rule(text), MEAN)
    means = setter.means(model.bundled, parse_rule(found[REFERENCE]))
    found[_CUT_BY_LAYER] = format_rule(
        matched(model.bundled, setter, parse_rule(found["cut"]), means)
    )
    found[_FIXED_BY_LAYER] = "top-k:" + "/".join(map(str, whole_numbers(means)))
    found[_BH_BY_LAYER] = at_mean(setter, model.bundled, _BH_BY_LAYER, parse_rule(fitted), MEAN)
    return found


def at_mean(
    setter: LevelSetter, loaded: LoadedModel, name: str, rule: RuleParameters, target: float
) -> str:
    """`rule` with its level or levels moved until its mean is `target`.

    Raises ValueError if there is no such level.
    """
    step = moved if isinstance(rule.level, tuple) else loosened
    found = setter.at(loaded, functools.partial(step, rule), target)
    if found is None:
        raise ValueError(f"{name} cannot be set to {target:g} experts.")
    return format_rule(found)


def moved(rule: RuleParameters, further: float) -> RuleParameters:
    """`rule`, which has a level for each layer, with all of them as much looser."""
    assert isinstance(rule.level, tuple)
    return loosened(rule, [looseness_of(rule.rule, level) + further for level in rule.level])


def matched(
    loaded: LoadedModel, setter: LevelSetter, rule: RuleParameters, means: np.ndarray
) -> RuleParameters:
    """`rule` with a level for each layer, so that each uses as many experts as in `means`.

    Layers depend on those before them, so what is missing is made up for a few times.
    """
    replay, goals = Replay(loaded), means.copy()
    grid = np.linspace(-12, 12, 97)
    curves = np.array([replay.means(loosened(rule, float(x))) for x in grid])  # (place, layer)
    for _ in range(_ROUNDS):
        places = [np.interp(g, curve, grid) for g, curve in zip(goals, curves.T, strict=True)]
        found = loosened(rule, list(map(float, places)))
        missing = means - setter.means(loaded, found)
        if np.abs(missing).max() < 0.01:
            break
        goals += missing
    return found


def whole_numbers(means: np.ndarray) -> list[int]:
    """`means` rounded so that their sum is that of the means."""
    down = np.floor(means).astype(int)
    up = round(float(means.sum())) - int(down.sum())
    for layer in np.argsort(down - means)[:up]:
        down[layer] += 1
    return [int(number) for number in down]


def evaluated(
    loaded: LoadedModel, text: Text, rules: Sequence[str], out: Path, *, controls: bool = False
) -> EvaluationResult:
    """`rules` on `text`, from what is at `out` already."""
    definition = Evaluation(
        texts=(text,), rules=tuple(map(parse_rule, rules)), with_controls=controls,
        with_temperatures=True, window=WINDOW, stride=WINDOW,
    )  # fmt: skip
    with Journal(out) as journal:
        *_, last = run_kept(loaded, definition, journal)
        assert isinstance(last, Finished)
        result: EvaluationResult = last.document
        journal.finish(file_of(result_document(journal, result)), holds_rows=True)
    return result


def measure(model: Model, text: Text, contenders: dict[str, str], folder: Path) -> dict[str, Any]:
    """One kind: with levels carried over, and at BH's mean on it."""
    kind = Path(text.name).stem
    bundled = {name: rule for name, rule in contenders.items() if model.of(name) is model.bundled}
    books = {name: rule for name, rule in contenders.items() if name not in bundled}
    own = evaluated(model.bundled, text, list(bundled.values()), folder / f"{kind}_carried.json")
    sensitive = evaluated(
        model.books, text, list(books.values()), folder / f"{kind}_carried_books.json"
    )
    carried = of_kind([own, sensitive], [[*bundled], [*books]], REFERENCE)
    target = carried["contenders"][REFERENCE]["mean_experts"]["value"]

    levels_path = folder / f"{kind}_levels.json"
    if levels_path.exists():
        at_target = json.loads(levels_path.read_text())
    else:
        setter = LevelSetter(model.bundled, [text], WINDOW, None)
        at_target = {
            name: at_mean(setter, model.of(name), name, parse_rule(rule), target)
            for name, rule in contenders.items()
            if name not in (REFERENCE, _FIXED, _FIXED_BY_LAYER)
        }
        levels_path.write_text(json.dumps(at_target, indent=1) + "\n")
    reference = contenders[REFERENCE]
    same = {REFERENCE: reference, **{n: r for n, r in at_target.items() if n not in books}}
    at_mean_own = evaluated(
        model.bundled, text, list(same.values()), folder / f"{kind}_same_mean.json"
    )
    at_mean_books = evaluated(
        model.books, text, [at_target[n] for n in books], folder / f"{kind}_same_mean_books.json"
    )
    fixed = evaluated(
        model.bundled, text, [reference], folder / f"{kind}_controls.json", controls=True
    )
    names_of_controls = [REFERENCE, "baseline again", "BH's counts shuffled", _FIXED,
                         _FIXED_BY_LAYER]  # fmt: skip
    return {
        "kind": kind,
        "carried": carried,
        "same_mean": of_kind(
            [at_mean_own, at_mean_books, fixed],
            [[*same], [*books], names_of_controls],
            REFERENCE,
        ),
    }


def main() -> None:
    """Set levels, or measure kinds with them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    setting, measuring = commands.add_parser("levels"), commands.add_parser("measure")
    setting.add_argument("--books", type=Path, required=True, help="folder with a file a book")
    setting.add_argument("--tokens", type=int, help="set levels on about so many")
    setting.add_argument("--fitted", required=True, metavar="RULE", help="BH by layer")
    measuring.add_argument("--texts", type=Path, required=True, help="folder with a file a kind")
    for each in (setting, measuring):
        each.add_argument("--calibration", type=Path, required=True, metavar="BOOKS.npz")
        each.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="The null holds")
    arguments.out.mkdir(parents=True, exist_ok=True)
    model, started = Model(arguments.calibration), time.perf_counter()
    path = arguments.out / "contenders.json"
    if arguments.command == "levels":
        books = read_folder(arguments.books)
        found = levels(model, books, arguments.fitted, arguments.tokens)
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(json.dumps(found, indent=1))
        return
    contenders = json.loads(path.read_text())
    kinds = []
    for text in read_folder(arguments.texts):
        kinds.append(measure(model, text, contenders, arguments.out))
        document = {"contenders": contenders, "kinds": kinds, "across": across_kinds(kinds)}
        (arguments.out / "kinds.json").write_text(json.dumps(document, indent=1) + "\n")
        print(f"{time.perf_counter() - started:6.0f} s  {kinds[-1]['kind']}", flush=True)


if __name__ == "__main__":
    main()
