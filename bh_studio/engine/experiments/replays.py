"""Many rules on the same recorded router logits: how many experts each takes, and what they hold.

This is about selection, not about quality: probability mass says how much of the router's own
opinion a rule keeps, not what the text loses. Two things follow. Taking the largest probabilities
of all tokens first, the rule "cut", holds the most mass at its mean by construction. And what a
rule costs in loss is measured with the model: `bh-studio evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from bh_studio.engine.errors import Cancelled, CancelToken, InputError
from bh_studio.engine.experiments.stages import Stage, Stepped, Unit
from bh_studio.engine.protocol.events import UnitEvent
from bh_studio.engine.protocol.experiments import DEFAULT_TOP_K, NullSource, Replay
from bh_studio.engine.protocol.logits_files import LogitsFile
from bh_studio.engine.records.counts import count_statistics
from bh_studio.engine.records.recording import unpacked_router_logits
from bh_studio.engine.records.replays import (
    ArenaRow,
    NullKind,
    ReplayedNull,
    ReplayResult,
    with_front,
)
from bh_studio.engine.routing.recordings import Recording, RouterLogits, router_logits
from bh_studio.engine.routing.replay import ReplayedCounts, replay, replay_leave_one_out
from bh_studio.engine.rules.parameters import RuleName, RuleParameters
from bh_studio.engine.rules.text import format_rule, parse_rule

# Levels that span about 2 to 8 experts of 64 on OLMoE's routers.
_DEFAULT_RULES = (
    "bh:0.001", "bh:0.005", "bh:0.01", "bh:0.05", "bh:0.1",
    "bh:0.005,null=pooled", "bh:0.01,null=pooled", "bh:0.05,null=pooled",
    "bh:0.05,score=logit",
    "by:0.05", "storey:0.05", "hc:0.5",
    "top-k:2", "top-k:4", "top-k:5", "top-k:6", "top-k:8",
    "top-p:0.2", "top-p:0.3", "top-p:0.4",
    "min-p:0.1", "min-p:0.2", "min-p:0.3",
    "cut:0.02", "cut:0.03", "cut:0.04", "cut:0.06",
    "entropy:0.8",
)  # fmt: skip


def default_rules(top_k: int) -> list[RuleParameters]:
    """Rules and levels worth a look, none with more experts than the model's own `top_k`."""
    rules = [replace(parse_rule(text), max_k=top_k) for text in _DEFAULT_RULES]
    return [r for r in rules if r.rule is not RuleName.TOP_K or max(r.levels(1)) <= top_k]


class ReplayLaboratory:
    """Rules on recorded router logits, without a model.

    Raises InputError for a file that cannot be used, two files that do not belong together, and
    what does not fit them; `compute` for a rule that does not.
    """

    def __init__(self, definition: Replay) -> None:
        self._definition = definition
        found = _router_logits(definition.logits)
        self._logits, name = found.logits, definition.logits.name
        _, tokens, experts = self._logits.shape
        if definition.skip >= tokens:
            raise InputError(
                f"{name} has {tokens} positions; --skip {definition.skip} leaves none."
            )
        self._recording = _recording(definition, found.recording)
        self._top_k = _top_k(definition, self._recording, experts)
        self._rules = definition.rules or tuple(default_rules(self._top_k))
        if self._null.kind is NullKind.NONE and any(rule.is_test for rule in self._rules):
            raise InputError(f"{name} holds no null; give --calibration FILE or --leave-one-out.")
        self._fixed = _FixedMass(self._replayed)

    def stages(self, rows: Mapping[str, ArenaRow]) -> Generator[Stage, None, None]:
        """All rules at once: none depends on another."""
        del rows
        yield Stage("rules", tuple(Unit(format_rule(rule), 1, rule) for rule in self._rules))

    def compute(
        self, unit: Unit, cancel: CancelToken
    ) -> Generator[UnitEvent | Stepped, None, ArenaRow]:
        """Replay one rule, which is done at once."""
        yield from ()
        if cancel.is_cancelled:
            raise Cancelled
        rule: RuleParameters = unit.work
        try:
            with _one_thread():
                return _row(rule, self._replayed(rule), self._fixed)
        except ValueError as error:
            raise InputError(f"{format_rule(rule)} cannot be replayed: {error}") from error

    def document(self, rows: Mapping[str, ArenaRow], is_complete: bool) -> ReplayResult | None:
        """All rows; None as long as some are missing, for the front is one of all."""
        if not is_complete:
            return None
        layers, tokens, experts = self._logits.shape
        skipped = self._definition.skip
        return ReplayResult(
            file=self._definition.logits.name,
            layers=layers,
            tokens=tokens - skipped,
            experts=experts,
            skipped=skipped,
            top_k=self._top_k,
            null=self._null,
            rows=with_front([rows[format_rule(rule)] for rule in self._rules]),
        )

    def row_from_json(self, values: dict[str, Any]) -> ArenaRow:
        """The row that to_json wrote. Raises KeyError, TypeError or ValueError for others."""
        return ArenaRow.from_json(values)

    @property
    def _null(self) -> ReplayedNull:
        source, recording = self._definition.null, self._recording
        if source is NullSource.LEAVE_ONE_OUT:
            return ReplayedNull(NullKind.LEAVE_ONE_OUT)
        if recording is None:
            return ReplayedNull(NullKind.NONE)
        kind = NullKind.OWN if source is NullSource.OWN else NullKind.OTHER
        return ReplayedNull(kind, recording.origin.tokens, recording.sha256)

    def _replayed(self, rule: RuleParameters) -> ReplayedCounts:
        logits = self._logits[:, self._definition.skip :]
        if self._definition.null is NullSource.LEAVE_ONE_OUT:
            return replay_leave_one_out(logits, rule, self._top_k)
        return replay(logits, rule, self._recording, self._top_k)


def _router_logits(file: LogitsFile) -> RouterLogits:
    try:
        return router_logits(unpacked_router_logits(file.content, file.name))
    except ValueError as error:
        raise InputError(str(error)) from error


def _recording(definition: Replay, own: Recording | None) -> Recording | None:
    """What nulls are fitted on; None for leaving one out, and where there is nothing."""
    file = definition.null
    if file is NullSource.LEAVE_ONE_OUT:
        return None
    if not isinstance(file, LogitsFile):
        return own
    recording = _router_logits(file).recording
    if recording is None:
        raise InputError(f"{file.name} was not saved by bh-studio calibrate.")
    if own is not None and own.origin.model_fingerprint != recording.origin.model_fingerprint:
        raise InputError(f"{file.name} and {definition.logits.name} were recorded from two models.")
    return recording


def _top_k(definition: Replay, recording: Recording | None, experts: int) -> int:
    top_k = definition.top_k
    if top_k is None:
        top_k = DEFAULT_TOP_K if recording is None else recording.origin.top_k
    if not 1 <= top_k < experts:
        raise InputError(f"--top-k must lie between 1 and {experts - 1}; got {top_k}.")
    return top_k


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sorting rows of 64 numbers is not worth a second thread; on a busy machine it took ten times
    as long with one."""
    former = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(former)


class _FixedMass:
    """The mean mass of a fixed top-k for any mean, each whole k replayed once."""

    def __init__(self, replay_rule: Callable[[RuleParameters], ReplayedCounts]) -> None:
        self._replay_rule = replay_rule
        self._of: dict[int, float] = {}

    def __call__(self, mean: float) -> float:
        k = int(mean)
        share = mean - k
        if share == 0:
            return self._whole(k)
        return (1 - share) * self._whole(k) + share * self._whole(k + 1)

    def _whole(self, k: int) -> float:
        if k not in self._of:
            rule = RuleParameters(RuleName.TOP_K, k, max_k=k)
            self._of[k] = self._replay_rule(rule).mean_mass
        return self._of[k]


def _row(rule: RuleParameters, replayed: ReplayedCounts, fixed: _FixedMass) -> ArenaRow:
    statistics = count_statistics(replayed.counts, replayed.raw_counts)
    assert statistics.mean is not None  # there is at least one token
    native = replayed.mean_native_mass
    return ArenaRow(
        rule=rule,
        statistics=statistics,
        share_empty=float((replayed.raw_counts == 0).mean()),
        mass=replayed.mean_mass,
        relative_mass=replayed.mean_mass / native,
        fixed_relative_mass=fixed(statistics.mean) / native,
        overlap=float(replayed.overlap.mean(dtype="float64")),
        shortage=replayed.shortage,
    )
