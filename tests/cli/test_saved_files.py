"""What the commands have saved is read again as the engine made it, and damage is told of."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bh_studio import cli
from bh_studio.__main__ import build_parser
from bh_studio.engine.calibration.recorder import calibration_text
from bh_studio.engine.errors import InputError
from bh_studio.engine.experiments import kept, runner
from bh_studio.engine.protocol.events import Finished
from bh_studio.engine.protocol.experiments import kind_of
from bh_studio.engine.reading import Result, read
from bh_studio.engine.records.batch import BatchResult
from bh_studio.engine.records.benchmark.document import document as bench_document
from bh_studio.engine.records.benchmark.result import BenchResult
from bh_studio.engine.records.budget import BudgetResult
from bh_studio.engine.records.evaluation import ContenderRow, EvaluationResult
from bh_studio.engine.records.recording import RecordedLogits
from bh_studio.engine.records.replays import ArenaRow
from bh_studio.engine.records.same_text.result import SameTextResult
from bh_studio.engine.records.same_text.side_reading import SideReading
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.sweep import SweepResult, SweepRow
from bh_studio.engine.routing.recordings import load_recording
from tests.tiny_olmoe import CONTEXT

pytestmark = pytest.mark.filterwarnings("ignore:The null holds")

KINDS = ("sweep", "batch", "same-text", "evaluation", "budget", "replay", "bench")
RULES = ("--rule", "bh:0.3,max_k=6", "--rule", "top-p:0.5,max_k=6")
FOREIGN: tuple[Any, ...] = (None, "x", -1, 0, 0.5, 10**400, math.nan, True, [], {}, [[]], {"x": 1})


class Saved:
    """A file of each kind in `folder`; `made`: by kind, what the engine had made of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[str, Any] = {}

    def path(self, kind: str) -> Path:
        return self.folder / f"{kind}.json"

    def document(self, kind: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.path(kind).read_bytes())
        return document

    def result(self, kind: str) -> Result:
        found = read(self.path(kind))
        assert isinstance(found, Result)
        assert found.kind == kind
        assert found.is_complete
        assert found.document == self.document(kind)
        return found


@pytest.fixture(scope="module")
def saved(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    saved = Saved(tmp_path_factory.mktemp("saved"))
    folder, run = saved.folder, runner.run

    def watched(loaded: Any, definition: Any, *others: Any, **named: Any) -> Any:
        for event in run(loaded, definition, *others, **named):
            if isinstance(event, Finished):
                saved.made[kind_of(definition)] = event.document
            yield event

    def command(*words: str) -> None:
        assert cli.run(build_parser().parse_args([*words, "--json"])) == 0

    prompts, texts = folder / "prompts.jsonl", [folder / "a.txt", folder / "b.txt"]
    too_long = "x" * (CONTEXT + 1)
    lines = [json.dumps({"prompt": text, "id": text[:1]}) for text in ("Once", too_long, "Über ☃")]
    prompts.write_text("\n".join([*lines, "no JSON"]), encoding="utf-8")
    for text, start in zip(texts, (0, 5000), strict=True):
        text.write_text(calibration_text()[start : start + 3 * CONTEXT])
    model = ("--model", checkpoint)
    few = ("--prompts-file", str(prompts), "--max-new-tokens", "6", *model)
    a, b = map(str, texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "run", watched)
        patch.setattr(kept, "run", watched)
        patch.setattr("bh_studio.engine.loading.DEFAULT_THREADS", 1)
        out = {kind: ("--out", str(saved.path(kind))) for kind in KINDS}
        command("sweep", *few, "--seeds", "2", *RULES, *out["sweep"])
        command("compare", *few, *out["batch"])
        (folder / "short.txt").write_text("Er sagt: ☃!", encoding="utf-8")
        command("compare", "--text", str(folder / "short.txt"), *RULES, *model, *out["same-text"])
        command("evaluate", a, *RULES, "--controls", "--batch", "2", *model, *out["evaluation"])
        command("budget", "3", "--fit", a, "--check", b, "--per-layer", *model, *out["budget"])
        command("calibrate", a, "--score", "output", *model, "--out", str(folder / "null.npz"))
        command("replay", str(folder / "null.npz"), *out["replay"])
        command(
            "bench", *model, "--tokens", "8", "--rounds", "2", "--prompt-tokens", "8",
            "--prefill-tokens", "20", *out["bench"],
        )  # fmt: skip
        command(
            "compare", "Once", "--max-new-tokens", "4", *model, "--out", str(folder / "x.bhsession")
        )
    return saved


def same(left: object, right: object) -> None:
    """Equal, arrays and their types included."""
    if isinstance(left, np.ndarray):
        assert isinstance(right, np.ndarray)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    elif isinstance(left, tuple):
        assert isinstance(right, tuple)
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            same(one, other)
    elif hasattr(left, "__dataclass_fields__"):
        assert type(left) is type(right)
        for name in left.__dataclass_fields__:
            same(getattr(left, name), getattr(right, name))
    else:
        assert left == right


def as_written(result: Any) -> Any:
    """A result without what no file holds: the decisions of what was read."""
    if not isinstance(result, SameTextResult):
        return result
    readings = tuple(dataclasses.replace(one, decision=None) for one in result.readings)
    return dataclasses.replace(result, readings=readings)


@pytest.mark.parametrize("kind", ["sweep", "batch", "same-text", "evaluation", "budget"])
def test_a_result_is_what_the_engine_made(kind: str, saved: Saved) -> None:
    found, document = saved.result(kind), saved.document(kind)
    same(found.record, as_written(saved.made[kind]))
    assert found.settings == document["settings"]
    assert found.environment == document["environment"]
    assert (found.started_at, found.finished_at) == (
        document["started_at"], document["finished_at"],
    )  # fmt: skip
    assert found.model is not None
    assert found.model.fingerprint == document["model"]["fingerprint"]


def test_rows_and_summaries_are_those_of_the_file(saved: Saved) -> None:
    sweep, document = saved.result("sweep"), saved.document("sweep")
    assert isinstance(sweep.record, SweepResult)
    assert list(sweep.record.refused) == [1]
    assert len(sweep.rows) == 2 * 2 * 3
    assert [r.to_json() for r in sweep.rows if isinstance(r, SweepRow)] == document["rows"]
    assert [summary.to_json() for summary in sweep.summaries] == document["summaries"]

    batch, document = saved.result("batch"), saved.document("batch")
    assert isinstance(batch.record, BatchResult)
    assert [r.to_json() | {"key": str(r.line)} for r in batch.record.answered] == document["rows"]
    assert [row.line for row in batch.record.refused] == [2]

    text, document = saved.result("same-text"), saved.document("same-text")
    assert isinstance(text.record, SameTextResult)
    assert [r.rule for r in text.rows if isinstance(r, SideReading)] == list(text.record.sides)
    own, *rules = text.record.readings
    assert document["totals"][1] == {
        "side": "B", "rule": "bh:0.3,max_k=6", "nats": rules[0].nats, "kl": rules[0].mean_kl,
        "perplexity": rules[0].perplexity, "experts": rules[0].statistics.to_dict(),
        "drift": rules[0].drift and rules[0].drift.to_json(),
    }  # fmt: skip
    assert document["rows"][0] == {"key": "side 0", **own.to_json()}
    assert "".join(document["token_texts"]) == "Er sagt: ☃!"
    assert document["predicted_tokens"] == len(document["token_ids"]) - 1 == len(own.ranks)

    evaluation = saved.result("evaluation")
    assert isinstance(evaluation.record, EvaluationResult)
    drifts = [text["drift"] for text in saved.document("evaluation")["texts"]]
    assert [drift and drift.to_json() for drift in evaluation.record.drifts] == drifts != [None]
    rows = [row for row in evaluation.rows if isinstance(row, ContenderRow)]
    assert [row.contender for row in rows] == list(evaluation.record.contenders)
    assert [row.scores for row in rows] == evaluation.record.scores()

    budget = saved.result("budget")
    assert isinstance(budget.record, BudgetResult)
    same(budget.rows, budget.record.solutions)
    assert budget.record.gain() is not None


def test_a_replay_is_its_rows(saved: Saved) -> None:
    replay, document = saved.result("replay"), saved.document("replay")
    assert (replay.record, replay.model, replay.settings) == (None, None, {})
    assert [r.to_json() for r in replay.rows if isinstance(r, ArenaRow)] == document["rows"]


def test_a_benchmark_says_the_same(saved: Saved) -> None:
    bench, document = saved.result("bench"), saved.document("bench")
    assert isinstance(bench.record, BenchResult)
    again = json.loads(json.dumps(bench_document(bench.record)))
    close(again, document)


def close(left: Any, right: Any) -> None:
    """Equal, but for the last digits of what is the product of a quotient."""
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for name in left:
            close(left[name], right[name])
    elif isinstance(left, list):
        for one, other in zip(left, right, strict=True):
            close(one, other)
    else:
        assert left == (pytest.approx(right, rel=1e-12) if isinstance(right, float) else right)


def test_what_was_printed_by_a_run_that_was_stopped(saved: Saved, tmp_path: Path) -> None:
    """It has the rows that there were; of an evaluation, those of its first stage."""
    document = saved.document("evaluation")
    (tmp_path / "e.json").write_text(
        json.dumps(
            {
                **document,
                "complete": False,
                "is_complete": False,
                "contenders": [
                    one
                    for one in document["contenders"]
                    if one["control"] in (None, "again", "shuffled")
                ],
            }
        )
    )
    found = read(tmp_path / "e.json")
    assert isinstance(found, Result)
    assert not found.is_complete
    assert isinstance(found.record, EvaluationResult)
    assert not found.record.is_complete
    assert len(found.record.scores()) == len(found.rows) == 1 + 2 + 1 + 2

    document = saved.document("same-text")
    lacking = {**document, "rows": document["rows"][:2]}
    for rows, complete, sentence in (
        (document["rows"][:2], True, "its rows are not those of its sides."),
        (document["rows"][1:], False, "its rows are not those of its sides."),
        ([], False, "its rows are not those of its sides."),
        ([*document["rows"], {**document["rows"][0], "key": "side 3"}], True, "of its sides."),
        ([document["rows"][0], {**document["rows"][0], "key": "side 1"}], False, "of its text."),
    ):
        (tmp_path / "t.json").write_text(
            json.dumps({**document, "rows": rows, "complete": complete})
        )
        with pytest.raises(InputError, match=rf"t\.json is damaged: .*{sentence}"):
            read(tmp_path / "t.json")
    (tmp_path / "t.json").write_text(json.dumps({**lacking, "complete": False}))
    found = read(tmp_path / "t.json")
    assert isinstance(found, Result)
    assert isinstance(found.record, SameTextResult)
    assert (found.is_complete, found.record.is_complete, len(found.rows)) == (False, False, 2)

    document = saved.document("sweep")
    lacking = {**document, "rows": document["rows"][1:]}
    (tmp_path / "s.json").write_text(json.dumps(lacking))
    with pytest.raises(InputError, match=r"s\.json is damaged: 1 of its 12 answers are missing\."):
        read(tmp_path / "s.json")
    (tmp_path / "s.json").write_text(json.dumps({**lacking, "complete": False}))
    found = read(tmp_path / "s.json")
    assert isinstance(found, Result)
    assert (found.is_complete, len(found.rows)) == (False, 11)


def test_a_sweep_that_asks_for_more_than_can_be_is_refused(saved: Saved, tmp_path: Path) -> None:
    """Its answers are looked for one by one."""
    document = {**saved.document("sweep"), "complete": False}
    document["settings"]["seeds"] = 10**12
    (tmp_path / "s.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"s\.json is damaged: seeds is 1000000000000\."):
        read(tmp_path / "s.json")


def test_a_recording_is_what_calibrate_saved(saved: Saved) -> None:
    recording, made = read(saved.folder / "null.npz"), saved.made["calibration"]
    assert isinstance(recording, RecordedLogits)
    assert isinstance(made, RecordedLogits)
    same(recording.logits, made.logits)
    assert recording.origin == made.origin
    assert recording.factors.keys() == made.factors.keys()
    assert recording.sha256 == made.sha256 == load_recording(saved.folder / "null.npz").sha256


def test_a_session_is_what_compare_saved(saved: Saved) -> None:
    session = read(saved.folder / "x.bhsession")
    assert isinstance(session, Session)
    assert session.prompt == "Once"


# --- damage ---------------------------------------------------------------------------------


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The steps to every value inside `value`."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for step, found in inside:
        yield (*place, step)
        if isinstance(found, dict | list):
            yield from places(found, (*place, step))


def damaged(document: dict[str, Any], most: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """`document` with a key less or another value somewhere, in `most` ways; what was done."""
    chosen = random.Random(0)
    everywhere = list(places(document))
    # Lists of numbers are most of a file.
    names = [place for place in everywhere if isinstance(place[-1], str)]
    for number in range(most):
        place = chosen.choice(names if number % 4 else everywhere)
        changed = copy.deepcopy(document)
        inside: Any = changed
        for step in place[:-1]:
            inside = inside[step]
        if chosen.random() < 0.25:
            del inside[place[-1]]
            yield f"without {place}", changed
        else:
            inside[place[-1]] = chosen.choice(FOREIGN)
            yield f"{place} is {inside[place[-1]]!r}", changed


def refusal(path: Path) -> str | None:
    """The sentence that `path` is refused with; None if all that is in it can be looked at."""
    try:
        found = read(path)
    except InputError as error:
        return error.message
    if isinstance(found, Result):
        repr((found.rows, found.record))
        for row in (*found.rows, *found.summaries):
            json.dumps(
                [getattr(row, name)() for name in ("to_json", "to_dict") if hasattr(row, name)]
            )
    return None


@pytest.mark.parametrize("kind", KINDS)
def test_damage_anywhere_is_said_in_a_sentence(kind: str, saved: Saved, tmp_path: Path) -> None:
    path, refusals = tmp_path / "a.json", 0
    for change, document in damaged(saved.document(kind), 240):
        path.write_text(json.dumps(document), encoding="utf-8")
        try:
            sentence = refusal(path)
        except Exception as error:
            raise AssertionError(change) from error
        if sentence is not None:
            refusals += 1
            assert re.fullmatch(
                r"a\.json (is damaged: |cannot be read: |has schema ).*[.…]", sentence
            )
    # Much of a file is only for people, so not all damage is seen.
    assert refusals > 40


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_was_cut_is_said_to_be_damaged(kind: str, saved: Saved, tmp_path: Path) -> None:
    data, path = saved.path(kind).read_bytes().rstrip(), tmp_path / "a.json"
    for part in (2, len(data) // 3, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:part])
        with pytest.raises(InputError, match=r"^a\.json is damaged: it is not valid JSON\.$"):
            read(path)


@pytest.mark.parametrize("name", ["null.npz", "x.bhsession"])
def test_an_archive_that_was_cut_or_altered(name: str, saved: Saved, tmp_path: Path) -> None:
    data, path = (saved.folder / name).read_bytes(), tmp_path / name
    chosen = random.Random(0)
    for part in (2, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:part])
        with pytest.raises(InputError, match=f"^{name} is damaged: it ends before it should\\.$"):
            read(path)
    for place in chosen.choices(range(len(data)), k=100):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        sentence = refusal(path)
        assert sentence is None or name in sentence or "BH Studio session" in sentence
