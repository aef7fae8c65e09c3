"""What every rule costs in quality on held-out books: the numbers of docs/science.md.

    python -m tools.measure_quality main --test TEXTS/test --out FILE [--tokens N] [--stride N]
    python -m tools.measure_quality sensitivity --calibration BOOKS.npz ...
    python -m tools.measure_quality variants ...
    python -m tools.measure_quality curves ...

TEXTS: what tools.science_texts writes. Levels are set so that the mean on the test books is that
asked for, by counting alone; the loss is looked at only once they are set. Nulls come from the text
that ships with the program ("bundled"); where BOOKS.npz is given, also from what bh-studio
calibrate made of other passages ("books").
"""

from __future__ import annotations

import argparse
import functools
import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bh_studio.engine.calibration.recorder import calibration_text, make_recording
from bh_studio.engine.errors import EngineError
from bh_studio.engine.experiments.budget.level_search import answered, loosened
from bh_studio.engine.experiments.budget.mean_experts import Replay
from bh_studio.engine.experiments.evaluation.teacher_forcing import encode
from bh_studio.engine.experiments.evaluation.windows import batches, thinned, windows
from bh_studio.engine.experiments.runner import run
from bh_studio.engine.loading import LoadedModel, load_model
from bh_studio.engine.moe.fingerprint import check_recording
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.protocol.events import Finished
from bh_studio.engine.protocol.experiments import Evaluation
from bh_studio.engine.protocol.texts import Text
from bh_studio.engine.records.estimates import PairedBootstrap
from bh_studio.engine.records.evaluation import EvaluationResult
from bh_studio.engine.routing.recordings import load_recording
from bh_studio.engine.rules.parameters import RuleParameters, ScoreName
from bh_studio.engine.rules.text import format_rule, parse_rule

WINDOW = 1024
TARGETS = (5.0, 4.0)
# Rules whose level is set to the target means; the level written here is only a beginning.
MAIN = ("bh:0.01", "bh:0.01,null=pooled", "cut:0.03", "top-p:0.4", "min-p:0.2")
REFERENCES = ("bh:0.01", "cut:0.03")
SENSITIVE = ("bh:0.05,score=sensitivity,null=pooled", "cut:0.03,score=sensitivity")
VARIANTS = (
    "by:0.05", "storey:0.01", "bh:0.01,max_k=16", "bh:0.01,min_k=2", "bh:0.01,on_empty=top_k",
    "bh:0.01,weights=renormalize", "bh:0.01,weights=match", "bh:0.1,score=logit",
    "bh:0.01,null=per-expert", "bh:0.1,null=gaussian", "bh:0.3,null=robust", "bh:0.7,null=all",
    "bh:0.05,score=output,null=pooled", "cut:0.04,score=output", *SENSITIVE,
)  # fmt: skip
# The whole curve of each rule, without a target.
CURVES = (
    *(f"top-k:{k}" for k in (3, 4, 5, 6, 7, 8, 16, 64)),
    *(f"bh:{a}" for a in (0.0001, 0.0005, 0.002, 0.01, 0.05, 0.2)),
    *(f"hc:{a}" for a in (0.06, 0.1)),
    *(f"cut:{t}" for t in (0.025, 0.03, 0.035, 0.045, 0.06)),
    *(f"top-p:{p}" for p in (0.3, 0.4, 0.5, 0.6)),
    *(f"min-p:{b}" for b in (0.1, 0.15, 0.2, 0.3)),
    *(f"entropy:{h},min_k=4" for h in (0.7, 0.8, 0.9)),
    "bh:0.5,score=logit,null=all",
    "bh:0.05,null=softmax",
)
SENSITIVE_CURVES = tuple(f"bh:{a},score=sensitivity,null=pooled" for a in (0.003, 0.015, 0.05, 0.2))


_HEADER = ("model", "texts", "window", "stride", "scored_tokens", "interval", "environment")


@dataclass(slots=True)
class Result:
    """One contender. nats: (window,)."""

    row: dict[str, Any]
    nats: np.ndarray


class Measurement:
    """Everything measured so far on the same windows of the test books."""

    def __init__(self, texts: Sequence[Text], stride: int, tokens: int | None, out: Path) -> None:
        self._texts, self._stride, self._tokens, self._out = tuple(texts), stride, tokens, out
        self._results: dict[tuple[str, str], Result] = {}
        self._window_tokens = np.empty(0)
        self._header: dict[str, Any] = {}
        self._started = time.perf_counter()

    def add(
        self,
        loaded: LoadedModel,
        calibration: str,
        rules: Sequence[RuleParameters],
        targets: Sequence[float | None],
        with_controls: bool = False,
    ) -> None:
        """Evaluate `rules` and keep the result."""
        definition = Evaluation(
            texts=self._texts, rules=tuple(rules), with_controls=with_controls, window=WINDOW,
            stride=self._stride, tokens=self._tokens,
        )  # fmt: skip
        *_, last = run(loaded, definition)
        assert isinstance(last, Finished)
        found: EvaluationResult = last.document
        self._window_tokens = found.tokens
        self._header = self._header or header(found, self._tokens)
        wanted = {format_rule(p): t for p, t in zip(rules, targets, strict=True)}
        for contender, scores, sums in zip(
            found.contenders, found.scores(), found.sums, strict=True
        ):
            rule = contender.parameters and format_rule(contender.parameters)
            row = {
                "label": contender.label, "rule": rule, "control": contender.control,
                "calibration": calibration if contender.parameters else None,
                "target": wanted.get(rule) if rule else None, **scores.to_dict(),
            }  # fmt: skip
            self._results.setdefault(
                (calibration if rule else "", contender.label), Result(row, sums.nats)
            )
        self.save()

    def save(self) -> None:
        """Write everything, with the paired differences at the same mean."""
        rows = [result.row for result in self._results.values()]
        document = {
            **self._header, "seconds": round(time.perf_counter() - self._started),
            "rows": rows, "differences": list(self._differences()), "by_book": self._by_book(),
        }  # fmt: skip
        self._out.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
        print(f"{time.perf_counter() - self._started:6.0f} s, {len(rows)} rows", flush=True)

    def _differences(self) -> Iterator[dict[str, Any]]:
        """Each rule that was set to a target against the references at it, nats a token."""
        bootstrap = PairedBootstrap(self._window_tokens)
        for target in TARGETS:
            at_target = [
                r for r in self._results.values()
                if r.row["target"] == target and r.row["control"] is None
            ]  # fmt: skip
            fixed = self._results.get(("bundled", f"top-k:{target:g}"))
            references = [r for r in at_target if is_reference(r.row["rule"])]
            for result in at_target:
                for other in [fixed, *references]:
                    if other is not None and other is not result:
                        estimate = bootstrap.mean(result.nats - other.nats)
                        yield {
                            "target": target, "rule": result.row["rule"],
                            "calibration": result.row["calibration"],
                            "against": other.row["rule"], **estimate.to_dict(),
                        }  # fmt: skip

    def _by_book(self) -> list[dict[str, Any]]:
        """Perplexity change of the rules at a target in each book apart."""
        documents = self._header["window_documents"]
        baseline = self._results["", "baseline"].nats
        rows = []
        for result in self._results.values():
            if result.row["target"] is None and not str(result.row["rule"]).startswith("top-k"):
                continue
            changes = []
            for book in sorted(set(documents)):
                own = np.array(documents) == book
                gap = (result.nats - baseline)[own].sum() / self._window_tokens[own].sum()
                changes.append(float(np.expm1(gap)))
            rows.append({**{k: result.row[k] for k in ("label", "calibration")}, "change": changes})
        return rows


def is_reference(rule: str) -> bool:
    """Whether rules at a target are compared with this one: the plain rules without a null."""
    return rule.split(":")[0] in ("cut", "top-p", "min-p") and "score" not in rule


def header(found: EvaluationResult, tokens: int | None) -> dict[str, Any]:
    """What was measured on what. tokens: as in the request."""
    document = found.to_json()
    chosen = thinned(windows([t for _, _, t in found.texts], WINDOW, found.stride), tokens)
    return {
        **{key: document[key] for key in _HEADER},
        "window_documents": [window.document for window in chosen],
    }


class LevelSetter:
    """Sets the level of a rule by its mean on windows spread evenly over the texts."""

    def __init__(
        self, loaded: LoadedModel, texts: Sequence[Text], stride: int, tokens: int | None
    ) -> None:
        self._documents = encode(loaded, texts)
        self._windows = thinned(windows([len(d) for d in self._documents], WINDOW, stride), tokens)

    def at(
        self, loaded: LoadedModel, rule_at: Callable[[float], RuleParameters], target: float
    ) -> RuleParameters | None:
        """The rule at the looseness whose mean is nearest `target`; None if none is near."""
        replay = Replay(loaded)
        try:
            found = answered(
                lambda x: float(self.means(loaded, rule_at(x)).mean()),
                lambda x: float(replay.means(rule_at(x)).mean()),
                target,
            )
        except EngineError as error:
            print(f"{format_rule(rule_at(0.0))} at {target:g}: {error}", flush=True)
            return None
        return rule_at(found.looseness)

    @torch.inference_mode()
    def means(self, loaded: LoadedModel, parameters: RuleParameters) -> np.ndarray:
        """Mean experts of each layer over the scored tokens, (layer,)."""
        integration = RoutingIntegration(loaded.model, parameters, recording=loaded.recording)
        total, scored = np.zeros(loaded.shape.layers), 0
        for batch in batches(self._windows, 32 if loaded.model.device.type == "cuda" else 1):
            inputs = torch.stack([self._documents[w.document][w.start : w.end] for w in batch])
            with integration:
                loaded.model.base_model(inputs.to(loaded.model.device), use_cache=False)
            counts = integration.last_counts()[0].reshape(*inputs.shape, -1)
            for of_window, window in zip(counts, batch, strict=True):
                total += of_window[-window.scored :].sum(0, dtype=np.int64)
            scored += sum(w.scored for w in batch)
        return total / scored


def read_folder(folder: Path) -> list[Text]:
    return [
        Text(path.name, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.txt"))
    ]


def main() -> None:
    """Measure the group that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("group", choices=("main", "sensitivity", "variants", "curves"))
    parser.add_argument("--test", type=Path, required=True, help="folder with the test books")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, metavar="BOOKS.npz")
    parser.add_argument("--tokens", type=int, help="score about so many tokens of the test books")
    parser.add_argument("--stride", type=int, default=512)
    parser.add_argument("--level-tokens", type=int, help="set levels on about so many of them")
    parser.add_argument(
        "--fitted", nargs="*", default=[], metavar="TARGET=RULE",
        help="rules that bh-studio budget found, to measure too",
    )  # fmt: skip
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="The null holds")
    test, loaded = read_folder(arguments.test), load_model()
    setter = LevelSetter(loaded, test, arguments.stride, arguments.level_tokens)
    measurement = Measurement(test, arguments.stride, arguments.tokens, arguments.out)
    books = None
    if arguments.calibration is not None:
        books = replace(loaded, recording=load_recording(arguments.calibration))
        check_recording(books.recording, books.model)

    def at_targets(
        model: LoadedModel, name: str, texts: Sequence[str], with_controls: bool = False
    ) -> None:
        pairs = [
            (setter.at(model, functools.partial(loosened, parse_rule(text)), target), target)
            for text in texts
            for target in TARGETS
        ]
        found = [(rule, target) for rule, target in pairs if rule is not None]
        rules, targets = [rule for rule, _ in found], [target for _, target in found]
        measurement.add(model, name, rules, targets, with_controls)

    def without_target(model: LoadedModel, name: str, texts: Sequence[str]) -> None:
        measurement.add(model, name, [parse_rule(t) for t in texts], [None] * len(texts))

    without_target(loaded, "bundled", [f"top-k:{target:g}" for target in TARGETS])
    if arguments.group == "main":
        at_targets(loaded, "bundled", MAIN, with_controls=True)
    elif arguments.group == "sensitivity":
        assert books is not None, "--calibration is missing"
        at_targets(loaded, "bundled", REFERENCES)
        at_targets(books, "books", SENSITIVE)
        fitted = [text.split("=", 1) for text in arguments.fitted]
        rules, targets = [parse_rule(r) for _, r in fitted], [float(t) for t, _ in fitted]
        measurement.add(loaded, "bundled", rules, targets)
    elif arguments.group == "variants":
        at_targets(loaded, "bundled", REFERENCES)
        own = with_factors(loaded)
        for text in VARIANTS:
            at_targets(own, "bundled", [text])
    else:
        without_target(loaded, "bundled", CURVES)
        if books is not None:
            without_target(books, "books", SENSITIVE_CURVES)


def with_factors(loaded: LoadedModel) -> LoadedModel:
    """`loaded` with the factors of all scores, from the text that ships with the program."""
    factors = (ScoreName.OUTPUT, ScoreName.SENSITIVITY)
    recording = make_recording(loaded.model, loaded.tokenizer, calibration_text(), factors=factors)
    return replace(loaded, recording=recording)


if __name__ == "__main__":
    main()
