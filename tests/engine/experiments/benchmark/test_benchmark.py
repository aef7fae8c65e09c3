"""A whole benchmark on a tiny model: who takes part, what is put back, when it stops."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch
from transformers import OlmoeForCausalLM, PreTrainedTokenizerFast

from bh_studio.engine import loading
from bh_studio.engine.errors import Cancelled, CancelToken, EngineError, InputError
from bh_studio.engine.experiments.benchmark import clocks, memory_bandwidth
from bh_studio.engine.experiments.benchmark.token_bytes import token_bytes
from bh_studio.engine.experiments.runner import run
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.moe.experts import use_selected_experts
from bh_studio.engine.protocol.events import Activity, Finished, Progress, RowReady
from bh_studio.engine.protocol.experiments import Benchmark, kind_of
from bh_studio.engine.records.benchmark.document import document
from bh_studio.engine.records.benchmark.result import (
    BASELINE,
    BH,
    BH_MEAN,
    BOTH_SIDES,
    STOCK,
    STOCK_BATCHED,
    STOCK_STATIC,
    BenchResult,
)
from bh_studio.engine.records.terms import ModelInfo
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.rules.parameters import RouterShape
from tests.engine.experiments.running import result_of
from tests.tiny_olmoe import CONTEXT, EXPERTS, LAYERS, TOP_K

TWICE = Benchmark(tokens=24, rounds=2, prompt_tokens=10)
ONCE = Benchmark(tokens=24, rounds=1, prompt_tokens=10)
ALL = [STOCK, STOCK_BATCHED, STOCK_STATIC, BASELINE, BH, BH_MEAN]


@pytest.fixture
def loaded(
    model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerFast, recording: Recording
) -> LoadedModel:
    use_selected_experts(model)
    info = ModelInfo(
        id="tiny", name="tiny", architecture="OlmoeForCausalLM",
        fingerprint=recording.origin.model_fingerprint, layers=LAYERS, experts=EXPERTS, top_k=TOP_K,
        context_length=CONTEXT, parameter_count=model.num_parameters(), dtype="float32",
        device="cpu", expert_path="bh_selected", null_sha256=recording.sha256,
        null_samples=recording.samples,
    )  # fmt: skip
    shape = RouterShape(LAYERS, EXPERTS, TOP_K, norm_topk_prob=False)
    return LoadedModel(model, tokenizer, recording, shape, info, frozenset([256]))


@pytest.fixture
def watch_generate(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """Lets a test look at every call of `generate`, and raise in it."""
    original = OlmoeForCausalLM.generate

    def install(look: Callable[..., None]) -> None:
        def generate(self: OlmoeForCausalLM, *arguments: Any, **options: Any) -> Any:
            look(self, **options)
            return original(self, *arguments, **options)

        monkeypatch.setattr(OlmoeForCausalLM, "generate", generate)

    return install


def bench(loaded: LoadedModel, definition: Benchmark = TWICE) -> BenchResult:
    with warnings.catch_warnings():
        # The null of these tests is small.
        warnings.filterwarnings("ignore", message="The null holds")
        return result_of(loaded, definition)


def test_everyone_takes_part_and_says_how_many_experts(loaded: LoadedModel) -> None:
    result = bench(loaded)
    assert [contender.name for contender in result.contenders] == ALL
    assert result.left_out == {}
    assert result.rounds == result.rounds_asked == 2
    for contender in result.contenders:
        assert len(contender.decode_seconds) == 2
        assert contender.first_token_seconds < contender.answer_seconds
        assert contender.expert_rows == pytest.approx(contender.mean_experts * LAYERS)
        bytes_read = token_bytes(loaded.model).of(contender.mean_experts, 10 + 24 / 2)
        assert contender.token_bytes == pytest.approx(bytes_read)
    means = {contender.name: contender.mean_experts for contender in result.contenders}
    assert means[STOCK] == means[STOCK_STATIC] == means[BASELINE] == TOP_K
    assert 1 <= means[BH] <= 8
    assert result.mean_level is not None
    assert means[BH_MEAN] == result.mean_level.mean == pytest.approx(4, abs=0.1)
    paths = {contender.name: contender.expert_path for contender in result.contenders}
    assert paths[STOCK] == "grouped_mm"
    assert paths[STOCK_BATCHED] == "batched_mm"
    assert paths[BH] == "bh_selected"
    assert result.pair_seconds is not None
    assert len(result.pair_seconds) == 2
    # Three ways of a router call, in blocks that took turns.
    assert len(result.router_times.own) == len(result.router_times.bh_with_statistics) >= 2
    assert result.prefill is None
    # All of these weights stay in caches.
    assert result.memory_limit is None
    assert "fit into caches" in result.no_limit
    assert all(result.share_of_limit(contender) is None for contender in result.contenders)


def test_large_weights_get_a_share_of_what_memory_gives(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clocks, "_CACHED_BYTES", 0)
    monkeypatch.setattr(memory_bandwidth, "_BUFFER_BYTES", {"cpu": 2**20})
    monkeypatch.setattr(memory_bandwidth, "_LEAST_BYTES", 2**20)
    result = bench(loaded)
    assert result.memory_limit is not None
    assert len(result.memory_limit.bytes_per_second) == 2
    baseline = result.contender(BASELINE)
    needed = [baseline.token_bytes / step for step in baseline.step_seconds]
    limits = result.memory_limit.bytes_per_second
    middle = sum(a / b for a, b in zip(needed, limits, strict=True)) / 2
    assert result.share_of_limit(baseline) == pytest.approx(middle)


def test_no_room_to_measure_memory_is_said(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clocks, "_CACHED_BYTES", 0)
    monkeypatch.setattr(memory_bandwidth, "free_bytes", lambda device: 2**20)
    assert "was not measured: no room" in bench(loaded, ONCE).no_limit


def test_a_long_prompt_is_read_by_both(loaded: LoadedModel) -> None:
    prefill = bench(loaded, Benchmark(tokens=24, rounds=1, prefill_tokens=100)).prefill
    assert prefill is not None
    assert prefill.tokens == 100
    assert len(prefill.stock_seconds) == len(prefill.our_seconds) == 1
    assert prefill.stock_bytes >= 0
    assert prefill.our_bytes >= 0


def test_stock_gets_the_threads_it_would_have_alone(
    loaded: LoadedModel, watch_generate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, str]] = []

    def look(model: OlmoeForCausalLM, **_options: Any) -> None:
        seen.append((torch.get_num_threads(), model.config._experts_implementation))

    watch_generate(look)
    monkeypatch.setattr(loading, "DEFAULT_THREADS", 2)
    result = bench(loaded, ONCE)
    assert set(seen) == {(2, "grouped_mm"), (1, "batched_mm")}
    assert [contender.threads for contender in result.contenders] == [2, 1, 2, 1, 1, 1]
    assert torch.get_num_threads() == 1


def test_a_static_cache_that_fails_is_left_out(loaded: LoadedModel, watch_generate: Any) -> None:
    def look(_model: OlmoeForCausalLM, **options: Any) -> None:
        if options.get("cache_implementation") == "static":
            raise RuntimeError("No compiler.")

    watch_generate(look)
    result = bench(loaded, ONCE)
    assert [contender.name for contender in result.contenders] == [
        name for name in ALL if name != STOCK_STATIC
    ]
    assert "No compiler." in result.left_out[STOCK_STATIC]


def test_the_model_is_as_it_was_after_an_error(
    loaded: LoadedModel, watch_generate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "DEFAULT_THREADS", 2)
    before = dict(vars(loaded.model))

    def look(_model: OlmoeForCausalLM, **_options: Any) -> None:
        raise KeyError

    watch_generate(look)
    with pytest.raises(KeyError):
        bench(loaded)
    assert loaded.model.config._experts_implementation == "bh_selected"
    assert torch.get_num_threads() == 1
    assert logging.root.manager.disable == logging.NOTSET
    assert vars(loaded.model) == before


def test_the_model_is_as_it_was_after_a_benchmark(loaded: LoadedModel) -> None:
    tokens = torch.arange(12)[None]
    before, attributes = loaded.model(tokens).logits, dict(vars(loaded.model))
    bench(loaded, ONCE)
    assert torch.equal(loaded.model(tokens).logits, before)
    assert vars(loaded.model) == attributes


def test_a_mean_that_cannot_be_had_leaves_two_out(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clocks, "_MEAN", 12.0)
    result = bench(loaded, ONCE)
    assert set(result.left_out) == {BH_MEAN, BOTH_SIDES}
    assert "No level was found" in result.left_out[BH_MEAN]
    assert result.pair_seconds is None
    assert [contender.name for contender in result.contenders] == ALL[:-1]
    assert document(result)["both_sides"] is None


def test_rounds_are_said_one_by_one_and_who_is_measured(loaded: LoadedModel) -> None:
    events = list(run(loaded, TWICE))
    assert [e for e in events if isinstance(e, Progress)] == [
        Progress("rounds", done, 2) for done in range(3)
    ]
    told = [event.text for event in events if isinstance(event, Activity)]
    everyone = [*ALL, BOTH_SIDES]
    assert told == [
        "Looking for the level",
        *(f"Warming up: {name}" for name in everyone),
        *everyone,
        *(*everyone[1:], everyone[0]),
    ]
    rows = {event.key: event.row for event in events if isinstance(event, RowReady)}
    assert list(rows) == ["round 0", "round 1"]
    assert list(rows["round 1"]["answers"]) == [*everyone[1:], everyone[0]]
    assert json.loads(json.dumps(rows, allow_nan=False))
    result = events[-1].document if isinstance(events[-1], Finished) else None
    assert isinstance(result, BenchResult)
    seconds = [row["answers"][BASELINE]["token_seconds"] for row in rows.values()]
    assert result.contender(BASELINE).answer_seconds == tuple(times[-1] for times in seconds)
    assert result.router_times.own == tuple(
        block for row in rows.values() for block in row["router_times"]["own"]
    )


def test_rounds_of_another_run_are_not_taken_over(loaded: LoadedModel) -> None:
    events = run(loaded, ONCE, {"round 0": {}})
    with pytest.raises(InputError, match="Timings of two runs do not mix"):
        next(events)


def test_stopping_keeps_the_rounds_that_were_complete(loaded: LoadedModel) -> None:
    cancel = CancelToken()
    events = run(loaded, Benchmark(tokens=24, rounds=3, prompt_tokens=10), None, cancel)
    assert any(event == Progress("rounds", 1, 3) for event in events)
    assert isinstance(next(events), Activity)
    cancel.cancel()
    end = next(events)
    assert isinstance(end, Finished)
    assert not end.is_complete
    result = end.document
    assert (result.rounds, result.rounds_asked) == (1, 3)
    assert all(len(contender.decode_seconds) == 1 for contender in result.contenders)
    assert not document(result)["is_complete"]


@pytest.mark.parametrize("stage", ["Looking for the level", f"Warming up: {STOCK}", STOCK])
def test_stopping_before_that_is_cancelled(loaded: LoadedModel, stage: str) -> None:
    cancel = CancelToken()
    events = run(loaded, ONCE, None, cancel)
    assert any(event == Activity(stage) for event in events)
    cancel.cancel()
    with pytest.raises(Cancelled):
        list(events)
    assert loaded.model.config._experts_implementation == "bh_selected"


@pytest.mark.parametrize("stage", [f"Warming up: {BASELINE}", BASELINE])
def test_the_model_is_as_it_was_when_nobody_listens_any_more(
    loaded: LoadedModel, watch_generate: Any, stage: str
) -> None:
    def look(model: OlmoeForCausalLM, **_options: Any) -> None:
        # As transformers does where it compiles.
        model._compiled_call = None

    watch_generate(look)
    before = dict(vars(loaded.model))
    events = run(loaded, ONCE)
    assert any(event == Activity(stage) for event in events)
    assert "_compiled_call" in vars(loaded.model)
    events.close()
    assert vars(loaded.model) == before
    assert loaded.model.config._experts_implementation == "bh_selected"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"tokens": 100, "prompt_tokens": 29}, "has room for 128 tokens in all"),
        ({"prefill_tokens": 128}, "has room for 128 tokens in all"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(
    values: dict[str, Any], sentence: str, loaded: LoadedModel
) -> None:
    with pytest.raises(EngineError, match=sentence):
        bench(loaded, Benchmark(**values))


@pytest.mark.parametrize(
    "values", [{"tokens": 1}, {"rounds": 0}, {"prompt_tokens": 0}, {"prefill_tokens": -1}]
)
def test_values_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least"):
        Benchmark(**values)


def test_all_that_decides_the_rows_is_in_its_settings() -> None:
    definition = Benchmark(tokens=24, rounds=2, prompt_tokens=10, prefill_tokens=50)
    settings = {"tokens": 24, "rounds": 2, "prompt_tokens": 10, "prefill_tokens": 50}
    assert definition.settings() == settings
    data = msgspec.json.encode(definition)
    assert json.loads(data) == {"kind": "bench", **settings}
    assert msgspec.json.decode(data, type=Benchmark) == definition
    assert kind_of(definition) == "bench"
