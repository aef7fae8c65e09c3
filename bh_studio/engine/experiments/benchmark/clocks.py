"""Everything that a benchmark times in a round, and what it has to find out before the first.

Nothing is yielded while a clock runs: who listens may take as long as it likes.
"""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

import psutil
import torch
from torch import Tensor

from bh_studio.engine import loading
from bh_studio.engine.calibration.recorder import calibration_text
from bh_studio.engine.decoding.paths import decode_path
from bh_studio.engine.errors import EngineError
from bh_studio.engine.experiments.benchmark.contenders import (
    BeforeToken,
    Contender,
    both_sides,
    one_side,
    stock,
)
from bh_studio.engine.experiments.benchmark.decoded_level import level_for_mean
from bh_studio.engine.experiments.benchmark.memory_bandwidth import ReadBandwidth
from bh_studio.engine.experiments.benchmark.prefill import PrefillClock
from bh_studio.engine.experiments.benchmark.rounds import Rounds
from bh_studio.engine.experiments.benchmark.router_times import RouterClock
from bh_studio.engine.experiments.benchmark.stock_generate import default_expert_path, is_compiled
from bh_studio.engine.experiments.environment import describe_environment
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.models.memory import bytes_by_device
from bh_studio.engine.models.plan import SMALL_MODEL_PARAMETERS
from bh_studio.engine.moe.vocabulary import check_token_ids
from bh_studio.engine.protocol.events import Activity
from bh_studio.engine.protocol.experiments import Benchmark
from bh_studio.engine.records.benchmark.result import (
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
    RouterTimes,
)
from bh_studio.engine.records.benchmark.round import RoundRow
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.units import format_bytes

_LEVEL, _MEAN = 0.05, 4.0
# Smaller weights stay in caches, where memory is not what decoding waits for.
_CACHED_BYTES = 256_000_000
_READINGS = 3
_ROUTER_BLOCKS = 3


class Clocks:
    """What `definition` measures of a model. before_token: what it raises ends the measurement."""

    def __init__(
        self, loaded: LoadedModel, definition: Benchmark, before_token: BeforeToken
    ) -> None:
        self._loaded, self._definition, self._before_token = loaded, definition, before_token
        self._left_out: dict[str, str] = {}
        self._notes = list(_busy())
        self._rule = RuleParameters(level=_LEVEL, max_k=min(8, loaded.shape.experts))
        self._prompt = _prompt(loaded, definition.prompt_tokens)
        self._level = self._mean_level()
        self._rounds = Rounds([*self._stock(), *self._ours()], self._prompt, definition.tokens)
        self._routers = RouterClock(loaded, self._rule, self._prompt)
        self._prefill = self._prefill_clock()
        self._bandwidth, self._no_limit = self._memory_limit()

    def warm_up(self) -> Generator[Activity, None, None]:
        """Everyone's slow first calls."""
        reason = yield from self._rounds.warm_up(STOCK_STATIC)
        if reason is not None:
            self._left_out[STOCK_STATIC] = reason
        elif not is_compiled(self._loaded.model):
            self._notes.append("transformers compiled nothing for the static cache on this device.")
        if self._prefill is not None:
            yield Activity("Warming up: the long prompt")
            self._prefill.warm_up(self._devices)

    def measure(self, number: int) -> Generator[Activity, None, RoundRow]:
        """The round of that `number`, from 0, which decides the order of turns."""
        answers = yield from self._rounds.measure(number)
        router_times = self._routers.measure(_ROUTER_BLOCKS)
        speed = None
        if self._bandwidth is not None:
            speed = statistics.median(self._bandwidth.measure() for _ in range(_READINGS))
        prefill = None
        if self._prefill is not None:
            yield Activity("the long prompt")
            prefill = self._prefill.measure(number)
        return RoundRow(answers, router_times, speed, prefill)

    def result(self, rows: Sequence[RoundRow]) -> BenchResult:
        """What `rows` say, at least one."""
        environment, path = describe_environment(), decode_path(self._loaded.model)
        loaded, answers = self._loaded, [row.answers for row in rows]
        pairs = [of_round[BOTH_SIDES].decode_seconds for of_round in answers if self._level]
        prefill = [row.prefill_seconds for row in rows if row.prefill_seconds is not None]
        return BenchResult(
            model=loaded.info,
            device=_device_name(self._devices[0]) or str(environment["processor"]),
            rounds=len(rows),
            rounds_asked=self._definition.rounds,
            tokens=self._definition.tokens,
            prompt_tokens=self._definition.prompt_tokens,
            decode_path=path.name,
            decode_path_reason=path.reason,
            contenders=self._rounds.results(loaded, answers, leave_out=BOTH_SIDES),
            pair_seconds=tuple(pairs) or None,
            mean_level=self._level,
            memory_limit=self._limit(rows),
            no_limit=self._no_limit,
            router_times=RouterTimes.joined([row.router_times for row in rows]),
            prefill=None if self._prefill is None else self._prefill.result(prefill),
            left_out=self._left_out,
            notes=tuple(self._notes),
            environment=environment,
        )

    @property
    def _devices(self) -> tuple[torch.device, ...]:
        return tuple(torch.device(name) for name in bytes_by_device(self._loaded.model))

    def _mean_level(self) -> MeanLevel | None:
        """The level at which this very answer uses _MEAN experts; without one, two are left out."""

        def decoded_mean(rule: RuleParameters) -> float:
            side = one_side(self._loaded, BH_MEAN, rule, self._before_token)
            return side.answer(self._prompt, self._definition.tokens).mean_experts

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
        if not self._definition.prefill_tokens:
            return None
        path = default_expert_path(self._loaded.model)
        return PrefillClock(
            stock(self._loaded, STOCK, path, loading.DEFAULT_THREADS, self._before_token),
            one_side(self._loaded, BASELINE, None, self._before_token),
            _prompt(self._loaded, self._definition.prefill_tokens),
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

    def _limit(self, rows: Sequence[RoundRow]) -> MemoryLimit | None:
        if self._bandwidth is None:
            return None
        speeds = (row.bytes_per_second for row in rows)
        return MemoryLimit(
            self._bandwidth.way,
            self._bandwidth.buffer_bytes,
            tuple(speed for speed in speeds if speed is not None),
        )


def _prompt(loaded: LoadedModel, count: int) -> Tensor:
    """The first `count` tokens of the calibration text, again and again if need be."""
    ids = loaded.tokenizer(calibration_text(), verbose=False).input_ids
    check_token_ids(loaded.model, loaded.tokenizer, ids, "The calibration text")
    return torch.tensor([list(itertools.islice(itertools.cycle(ids), count))])


def _busy() -> Iterator[str]:
    """A note if other programs keep this machine busy, which slows some ways more than others."""
    load, cores = psutil.getloadavg()[0], os.cpu_count() or 1
    if load > cores:
        yield f"The machine was busy when this began: load average {load:.1f} on {cores} cores."


def _device_name(device: torch.device) -> str | None:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None
