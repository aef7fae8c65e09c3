"""Speed of decoding on this machine: stock `generate`, both sides and what limits them, in one run.

Every round measures every contender once on the same prompt, in an order that rotates, so that
what else the machine does falls on all of them alike.
"""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace

import psutil
import torch
from torch import Tensor

from bh_studio.engine import loading
from bh_studio.engine.calibration.recorder import calibration_text
from bh_studio.engine.decoding.paths import decode_path
from bh_studio.engine.errors import Cancelled, EngineError
from bh_studio.engine.experiments.benchmark.contenders import Contender, both_sides, one_side, stock
from bh_studio.engine.experiments.benchmark.decoded_level import level_for_mean
from bh_studio.engine.experiments.benchmark.memory_bandwidth import ReadBandwidth
from bh_studio.engine.experiments.benchmark.prefill import PrefillClock
from bh_studio.engine.experiments.benchmark.rounds import Rounds
from bh_studio.engine.experiments.benchmark.router_times import RouterClock
from bh_studio.engine.experiments.benchmark.stock_generate import (
    default_expert_path,
    is_compiled,
    without_traces,
)
from bh_studio.engine.experiments.environment import describe_environment
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.models.memory import bytes_by_device
from bh_studio.engine.models.plan import SMALL_MODEL_PARAMETERS
from bh_studio.engine.protocol.events import BenchProgress
from bh_studio.engine.protocol.experiments import BenchRequest
from bh_studio.engine.records.benchmark_result import (
    BASELINE,
    BH,
    BH_MEAN,
    BOTH_SIDES,
    STOCK,
    STOCK_BATCHED,
    STOCK_STATIC,
    BenchResult,
    MeanLevel,
    MemoryLimit,
)
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.units import format_bytes

_LEVEL, _MEAN = 0.05, 4.0
# Smaller weights stay in caches, where memory is not what decoding waits for.
_CACHED_BYTES = 256_000_000
_READINGS = 3
_ROUTER_BLOCKS = 3


def run_bench(
    loaded: LoadedModel, request: BenchRequest, report: Report = lambda progress: None
) -> BenchResult:
    """Measure; if it is cancelled, the rounds that were complete by then are the result.

    Raises EngineError for what does not fit the model, Cancelled if no round was complete. The
    model is as it was, also then.
    """
    request.check_context(loaded.info.context_length)
    with without_traces(loaded.model):
        bench = _Bench(loaded, request, report)
        bench.warm_up()
        try:
            for _ in range(request.rounds):
                bench.measure_round()
        except Cancelled:
            if not bench.rounds.done:
                raise
        return bench.result()


class _Bench:
    """Everything that is measured in one benchmark."""

    def __init__(self, loaded: LoadedModel, request: BenchRequest, report: Report) -> None:
        self._loaded, self._request, self._report = loaded, request, report
        self._left_out: dict[str, str] = {}
        self._notes = list(_busy())
        self._rule = RuleParameters(level=_LEVEL, max_k=min(8, loaded.shape.experts))
        self._prompt = _prompt(loaded, request.prompt_tokens)
        self._say("Looking for the level", 0)
        self._level = self._mean_level()
        self.rounds = Rounds([*self._stock(), *self._ours()], self._prompt, request.tokens)
        self._routers = RouterClock(loaded, self._rule, self._prompt)
        self._prefill = self._prefill_clock()
        self._bandwidth, self._no_limit = self._memory_limit()
        self._speeds: list[float] = []

    def warm_up(self) -> None:
        """Everyone's slow first calls."""
        reason = self.rounds.warm_up(lambda name: self._say(f"Warming up: {name}", 0), STOCK_STATIC)
        if reason is not None:
            self._left_out[STOCK_STATIC] = reason
        elif not is_compiled(self._loaded.model):
            self._notes.append("transformers compiled nothing for the static cache on this device.")
        if self._prefill is not None:
            self._say("Warming up: the long prompt", 0)
            self._prefill.warm_up(self._devices)

    def measure_round(self) -> None:
        """One round of everything. Raises Cancelled."""
        done = self.rounds.done
        self.rounds.measure(lambda name: self._say(name, done))
        self._routers.measure(_ROUTER_BLOCKS)
        if self._bandwidth is not None:
            readings = [self._bandwidth.measure() for _ in range(_READINGS)]
            self._speeds.append(statistics.median(readings))
        if self._prefill is not None:
            self._say("the long prompt", done)
            self._prefill.measure(done)
        self._say("", self.rounds.done)

    def result(self) -> BenchResult:
        """What was measured so far; at least one round."""
        environment, path = describe_environment(), decode_path(self._loaded.model)
        bandwidth, loaded = self._bandwidth, self._loaded
        limit = None
        if bandwidth is not None:
            limit = MemoryLimit(bandwidth.way, bandwidth.buffer_bytes, tuple(self._speeds))
        return BenchResult(
            model=loaded.info,
            device=_device_name(self._devices[0]) or str(environment["processor"]),
            rounds=self.rounds.done,
            rounds_asked=self._request.rounds,
            tokens=self._request.tokens,
            prompt_tokens=self._request.prompt_tokens,
            decode_path=path.name,
            decode_path_reason=path.reason,
            contenders=self.rounds.results(loaded, leave_out=BOTH_SIDES),
            pair_seconds=None if self._level is None else self.rounds.decode_seconds(BOTH_SIDES),
            mean_level=self._level,
            memory_limit=limit,
            no_limit=self._no_limit,
            router_times=self._routers.times(),
            prefill=None if self._prefill is None else self._prefill.result(),
            left_out=self._left_out,
            notes=tuple(self._notes),
            environment=environment,
        )

    @property
    def _devices(self) -> tuple[torch.device, ...]:
        return tuple(torch.device(name) for name in bytes_by_device(self._loaded.model))

    def _say(self, stage: str, rounds: int) -> None:
        self._report(BenchProgress(stage, rounds))

    def _before_token(self) -> None:
        if self._request.cancel.is_cancelled:
            raise Cancelled

    def _mean_level(self) -> MeanLevel | None:
        """The level at which this very answer uses _MEAN experts; without one, two are left out."""

        def decoded_mean(rule: RuleParameters) -> float:
            side = one_side(self._loaded, BH_MEAN, rule, self._before_token)
            return side.answer(self._prompt, self._request.tokens).mean_experts

        try:
            return level_for_mean(self._loaded, _MEAN, self._rule, decoded_mean)
        except EngineError as error:
            self._left_out |= {BH_MEAN: error.message, BOTH_SIDES: error.message}
            return None

    def _stock(self) -> Iterator[Contender]:
        loaded, path = self._loaded, default_expert_path(self._loaded.model)
        threads = loading.DEFAULT_THREADS
        yield stock(loaded, STOCK, path, threads, self._before_token)
        on_cpu = loaded.model.device.type == "cpu"
        if on_cpu and loaded.info.parameter_count <= SMALL_MODEL_PARAMETERS:
            yield stock(loaded, STOCK_BATCHED, "batched_mm", 1, self._before_token)
        yield stock(
            loaded, STOCK_STATIC, path, threads, self._before_token, cache_implementation="static"
        )

    def _ours(self) -> Iterator[Contender]:
        loaded, check = self._loaded, self._before_token
        yield one_side(loaded, BASELINE, None, check)
        yield one_side(loaded, BH, self._rule, check)
        if self._level is not None:
            rule = replace(self._rule, level=self._level.level)
            yield one_side(loaded, BH_MEAN, rule, check)
            yield both_sides(loaded, BOTH_SIDES, rule, check)

    def _prefill_clock(self) -> PrefillClock | None:
        if not self._request.prefill_tokens:
            return None
        path = default_expert_path(self._loaded.model)
        return PrefillClock(
            stock(self._loaded, STOCK, path, loading.DEFAULT_THREADS, self._before_token),
            one_side(self._loaded, BASELINE, None, self._before_token),
            _prompt(self._loaded, self._request.prefill_tokens),
        )

    def _memory_limit(self) -> tuple[ReadBandwidth | None, str]:
        """The clock of the device's memory, or why there is none."""
        weights = sum(bytes_by_device(self._loaded.model).values())
        if weights < _CACHED_BYTES:
            return None, (
                f"The weights, {format_bytes(weights)}, fit into caches, so the speed of memory "
                "says nothing here."
            )
        try:
            return ReadBandwidth(self._devices[0]), ""
        except (MemoryError, torch.OutOfMemoryError) as error:
            return None, f"The speed of memory was not measured: {error}."


def _prompt(loaded: LoadedModel, count: int) -> Tensor:
    """The first `count` tokens of the calibration text, again and again if need be."""
    ids = loaded.tokenizer(calibration_text(), verbose=False).input_ids
    return torch.tensor([list(itertools.islice(itertools.cycle(ids), count))])


def _busy() -> Iterator[str]:
    """A note if other programs keep this machine busy, which slows some ways more than others."""
    load, cores = psutil.getloadavg()[0], os.cpu_count() or 1
    if load > cores:
        yield f"The machine was busy when this began: load average {load:.1f} on {cores} cores."


def _device_name(device: torch.device) -> str | None:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


Report = Callable[[BenchProgress], None]
