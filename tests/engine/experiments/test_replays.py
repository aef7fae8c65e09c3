"""Many rules on one recording, without a model: rows, fixed top-k at the same mean, threads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bh_studio.engine.errors import Cancelled, CancelToken, EngineError, InputError
from bh_studio.engine.experiments import replays
from bh_studio.engine.experiments.replays import default_rules
from bh_studio.engine.experiments.runner import run
from bh_studio.engine.protocol.events import Finished, Progress, RowReady
from bh_studio.engine.protocol.experiments import Evaluation, NullSource, Replay
from bh_studio.engine.protocol.logits_files import LogitsFile, read_logits_file
from bh_studio.engine.protocol.texts import Text
from bh_studio.engine.records.recording import unpacked_router_logits
from bh_studio.engine.records.replays import ArenaRow, NullKind, ReplayedNull, ReplayResult
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.replay import replay, replay_leave_one_out
from bh_studio.engine.rules.parameters import RuleName
from bh_studio.engine.rules.text import parse_rule
from tests.engine.experiments.running import result_of, rows_of
from tests.tiny_olmoe import EXPERTS, LAYERS, TOP_K

REAL = read_logits_file(Path(__file__).parents[2] / "data" / "olmoe_router_logits_160.npz")


@pytest.fixture
def file(recording: Recording) -> LogitsFile:
    return LogitsFile("tiny.npz", recording.arrays.packed())


def definition(file: LogitsFile, *rules: str, **values: Any) -> Replay:
    return Replay(logits=file, rules=tuple(map(parse_rule, rules)), **values)


def replayed(file: LogitsFile, *rules: str, **values: Any) -> tuple[ArenaRow, ...]:
    result: ReplayResult = result_of(None, definition(file, *rules, **values))
    return result.rows


def test_a_row_has_the_numbers_of_its_rule(file: LogitsFile, recording: Recording) -> None:
    (row,) = replayed(file, "bh:0.05,score=logit,max_k=4")
    expected = replay(recording.logits, row.rule, recording, TOP_K)
    values = row.to_json()
    assert values["rule"] == "bh:0.05,score=logit,max_k=4"
    assert values["mean"] == pytest.approx(expected.counts.mean())
    assert values["std"] == pytest.approx(expected.counts.std())
    assert values["per_layer_mean"] == pytest.approx(expected.counts.mean(axis=0).tolist())
    assert len(values["per_layer_mean"]) == LAYERS
    assert values["share_empty"] == pytest.approx((expected.raw_counts == 0).mean())
    assert values["share_empty"] > 0.1
    assert values["share_clamped_min"] == values["share_empty"]
    assert values["relative_mass"] == pytest.approx(
        expected.mass.mean() / expected.native_mass.mean(), rel=1e-5
    )
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_fixed_top_k_is_on_its_own_line_and_cut_above_it(file: LogitsFile) -> None:
    rows = replayed(file, "top-k:1", "top-k:3", f"top-k:{TOP_K}", "cut:0.12,max_k=16")
    for row in rows[:3]:
        assert row.relative_mass == pytest.approx(row.fixed_relative_mass, rel=1e-6)
    assert rows[2].relative_mass == pytest.approx(1)
    assert rows[3].relative_mass > rows[3].fixed_relative_mass
    assert 1 < (rows[3].statistics.mean or 0) < 16


@pytest.mark.parametrize("top_k", [1, 4, 8])
def test_default_rules_use_no_more_than_the_model(top_k: int) -> None:
    rules = default_rules(top_k)
    assert {rule.rule for rule in rules} >= set(RuleName) - {RuleName.TOP_K}
    assert all(rule.max_k == top_k for rule in rules)
    assert all(max(r.levels(1)) <= top_k for r in rules if r.rule is RuleName.TOP_K)
    assert len(set(rules)) == len(rules)


def test_default_rules_are_replayed_one_by_one(file: LogitsFile) -> None:
    events = list(run(None, definition(file)))
    rules = default_rules(TOP_K)
    steps = [event for event in events if isinstance(event, Progress)]
    assert steps == [Progress("rules", done, len(rules)) for done in range(len(rules) + 1)]
    end = events[-1]
    assert isinstance(end, Finished)
    assert end.is_complete
    assert [row.rule for row in end.document.rows] == rules
    assert any(row.on_front for row in end.document.rows)
    assert not all(row.on_front for row in end.document.rows)
    # A row that is ready before others are knows of no front.
    assert not any(event.row["on_front"] for event in events if isinstance(event, RowReady))


def test_it_goes_on_from_the_rows_there_are(file: LogitsFile) -> None:
    whole = definition(file, "bh:0.1", "top-k:3", "cut:0.12")
    rows = rows_of(None, whole, most=2)
    assert list(rows) == ["bh:0.1", "top-k:3"]
    computed = [event.key for event in run(None, whole, rows) if isinstance(event, RowReady)]
    assert computed == ["cut:0.12"]
    assert result_of(None, whole, rows) == result_of(None, whole)


def test_where_nulls_come_from(file: LogitsFile, recording: Recording) -> None:
    null = (recording.origin.tokens, recording.sha256)
    own = result_of(None, definition(file, "bh:0.1", skip=3))
    assert own.null == ReplayedNull(NullKind.OWN, *null)
    assert (own.file, own.layers, own.experts, own.skipped) == ("tiny.npz", LAYERS, EXPERTS, 3)
    assert own.tokens == recording.origin.tokens - 3
    assert own.top_k == TOP_K
    other = result_of(None, definition(file, "bh:0.1", skip=3, null=file))
    assert other.null == ReplayedNull(NullKind.OTHER, *null)
    assert other.rows == own.rows
    none = result_of(None, definition(REAL, "cut:0.04"))
    assert (none.null, none.top_k) == (ReplayedNull(NullKind.NONE), 8)


def test_leaving_one_out_has_a_null_for_each_token() -> None:
    values = {"skip": 1, "null": NullSource.LEAVE_ONE_OUT}
    result = result_of(None, definition(REAL, "bh:0.05", **values))
    assert result.null == ReplayedNull(NullKind.LEAVE_ONE_OUT)
    logits = unpacked_router_logits(REAL.content, REAL.name).logits[:, 1:]
    expected = replay_leave_one_out(logits, parse_rule("bh:0.05"), 8)
    assert result.rows[0].statistics.mean == pytest.approx(expected.counts.mean())
    assert result.rows[0].shortage == expected.shortage is not None


@pytest.fixture
def _two_threads() -> Iterator[None]:
    former = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(former)


@pytest.mark.usefixtures("_two_threads")
def test_one_thread_replays_and_the_others_are_given_back(
    file: LogitsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def look(*arguments: Any) -> Any:
        seen.append(torch.get_num_threads())
        return replay(*arguments)

    monkeypatch.setattr(replays, "replay", look)
    # Also between two rules, where whoever listens computes something else.
    assert {torch.get_num_threads() for _ in run(None, definition(file, "bh:0.1", "cut:0.1"))} == {
        2
    }
    assert set(seen) == {1}
    with pytest.raises(InputError):
        replayed(file, "bh:0.1,max_k=17")
    assert torch.get_num_threads() == 2


def test_stopped_before_the_last_rule_there_is_no_front(file: LogitsFile) -> None:
    cancel = CancelToken()
    events = run(None, definition(file, "bh:0.1", "cut:0.1"), None, cancel)
    assert any(isinstance(event, RowReady) for event in events)
    cancel.cancel()
    with pytest.raises(Cancelled):
        list(events)


@pytest.mark.parametrize(
    ("rules", "values", "sentence"),
    [
        (["bh:0.1", "bh:0.1,max_k=17"], {}, "bh:0.1,max_k=17 cannot be replayed: max_k must not"),
        ([], {"skip": 10**6}, "--skip 1000000 leaves none."),
        ([], {"top_k": 0}, "--top-k must lie between 1 and 15; got 0."),
        ([], {"top_k": EXPERTS}, "--top-k must lie between 1 and 15; got 16."),
        ([], {"null": REAL}, "olmoe_router_logits_160.npz was not saved by bh-studio calibrate."),
        ([], {"null": LogitsFile("a.npz", b"a")}, "a.npz is not an .npz file of router logits."),
    ],
)
def test_what_does_not_fit_is_refused(
    rules: list[str], values: dict[str, Any], sentence: str, file: LogitsFile
) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        replayed(file, *rules, **values)


def test_nulls_of_another_model_are_refused(file: LogitsFile, recording: Recording) -> None:
    origin = replace(recording.origin, model_fingerprint="another")
    other = LogitsFile("other.npz", Recording(recording.logits, origin).arrays.packed())
    with pytest.raises(InputError, match=r"other.npz and tiny.npz were recorded from two models\."):
        replayed(file, "bh:0.1", null=other)


def test_rules_that_need_a_null_are_refused_without_one() -> None:
    with pytest.raises(InputError, match="holds no null; give --calibration FILE or"):
        replayed(REAL)


def test_what_takes_a_model_is_refused_without_one() -> None:
    evaluation = Evaluation(texts=(Text("a", "a"),), rules=(parse_rule("bh:0.1"),))
    with pytest.raises(EngineError, match="Without a model nothing can be run of the kind eval"):
        next(run(None, evaluation))


def test_rows_of_something_else_are_refused(file: LogitsFile) -> None:
    with pytest.raises(ValueError, match="is none of this experiment"):
        next(run(None, definition(file), {"bh:0.1": {"rule": "bh:0.1"}}))


def test_logits_are_read_in_float32(recording: Recording, tmp_path: Path) -> None:
    np.savez(tmp_path / "bare.npz", logits=recording.logits.numpy().astype(">f8"))
    bare = read_logits_file(tmp_path / "bare.npz")
    null = LogitsFile("tiny.npz", recording.arrays.packed())
    assert replayed(bare, "bh:0.1", null=null) == replayed(null, "bh:0.1")
