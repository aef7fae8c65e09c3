"""Rules applied to the router logits that a session has, without its model.

Knows no thread and no job.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from bh_studio.engine.calibration.diagnostics import null_fit
from bh_studio.engine.errors import InputError, as_sentence
from bh_studio.engine.protocol.requests import InspectToken, JudgeSessionNull, ReplaySide
from bh_studio.engine.records.decisions.router_rows import RouterRows
from bh_studio.engine.records.decisions.session_null import session_recording
from bh_studio.engine.records.decisions.side_replay import ReplayedSide
from bh_studio.engine.records.decisions.token_inspection import InspectedToken
from bh_studio.engine.records.diagnostics import NullFit
from bh_studio.engine.records.terms import ModelInfo
from bh_studio.engine.routing.inspection import inspect_layers
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.replay import check_recording, replayed_counts
from bh_studio.engine.routing.selection import RoutingRule, own_routing
from bh_studio.engine.rules.parameters import MixingWeights, RouterShape, RuleParameters
from bh_studio.engine.rules.text import format_rule

_NO_LOGITS = (
    "This answer has no router logits: they were not kept when it was made, or not all of them are "
    "left."
)
_KEEP_THEM = "Answer the prompt again, with an up-to-date version and without --keep counts."
# What a session and another one to compare it with have. Of each a recording keeps a few nulls.
_MOST_RECORDINGS = 2
# Of several sides of a few runs; each takes some kilobytes.
_MOST_FITS = 16

_Asked = InspectToken | ReplaySide | JudgeSessionNull
_K = TypeVar("_K")
_V = TypeVar("_V")


class RecordedRouting:
    """Keeps the recordings that were needed last, with the nulls that were fitted on them: reading
    one and sorting its scores takes longer than all else."""

    def __init__(self) -> None:
        self._recordings: dict[tuple[str, str], Recording] = {}
        self._fits: dict[tuple[str, str, RuleParameters], NullFit] = {}

    def inspect(self, asked: InspectToken) -> InspectedToken:
        """The answer to InspectToken. Raises InputError with a sentence for what cannot be."""
        logits = _kept_logits(asked.logits, asked.model)
        if not 0 <= asked.position < logits.shape[0]:
            raise InputError(
                f"There is no position {asked.position}; this side has read {logits.shape[0]}, "
                "which are counted from 0."
            )
        shape = _shape(asked.model)
        rule = asked.rule
        try:
            prepared = self._prepared(asked, shape)
            (row,) = logits.rows(asked.position, asked.position + 1)
            has_weights = asked.model.norm_topk_prob is not None or (
                rule is not None and rule.weights is MixingWeights.RENORMALIZE
            )
            layers = inspect_layers(prepared, row, has_weights)
        except (OSError, ValueError) as error:
            raise _unusable(asked, error) from error
        return InspectedToken(rule, asked.position, layers, prepared.shortage())

    def replay(self, asked: ReplaySide) -> ReplayedSide:
        """The answer to ReplaySide. Raises InputError with a sentence for what cannot be."""
        record = asked.record
        logits = _kept_logits(record.router_logits, asked.model)
        recorded = np.concatenate([record.prompt_expert_counts, record.expert_counts])
        if logits.shape[0] < len(recorded):
            raise InputError(
                f"The router logits of this answer are damaged: it has read {len(recorded)} "
                f"positions, and they are of {logits.shape[0]}."
            )
        try:
            rule = self._prepared(asked, _shape(asked.model))
            counts, raw_counts = replayed_counts(rule, logits, len(recorded))
        except (OSError, ValueError) as error:
            raise _unusable(asked, error) from error
        return ReplayedSide(
            rule=asked.rule,
            counts=counts,
            raw_counts=raw_counts,
            prompt_positions=len(record.prompt_expert_counts),
            equal_counts=int((counts == recorded).sum()),
            shortage=rule.shortage(),
        )

    def judge_null(self, asked: JudgeSessionNull) -> NullFit:
        """The answer to JudgeSessionNull. Raises InputError with a sentence for what cannot be."""
        rule, model = asked.rule, asked.model
        if rule is None or not rule.is_test:
            raise InputError(
                f"{_name(rule)} has no null: it tests nothing.",
                "Choose a side with a rule that does, such as bh.",
            )
        key = model.fingerprint, model.null_sha256, rule
        return _newest(self._fits, key, lambda: self._fit(asked, rule), _MOST_FITS)

    def _fit(self, asked: JudgeSessionNull, rule: RuleParameters) -> NullFit:
        try:
            return null_fit(self._prepared(asked, _shape(asked.model)))
        except (OSError, ValueError) as error:
            raise InputError(
                f"The null of {_name(rule)} cannot be judged: {as_sentence(error)}"
            ) from error

    def _prepared(self, asked: _Asked, shape: RouterShape) -> RoutingRule:
        """The rule that is asked for. Raises InputError, ValueError."""
        parameters = asked.rule
        if parameters is None:
            return own_routing(shape)
        parameters.check_shape(shape.layers, shape.experts)
        recording = None
        if parameters.needs_calibration:
            recording = self._recording(asked)
            check_recording(recording, shape)
        return RoutingRule(parameters, recording, shape)

    def _recording(self, asked: _Asked) -> Recording:
        model = asked.model

        def read() -> Recording:
            return Recording.of(session_recording(model, asked.calibration))

        key = model.fingerprint, model.null_sha256
        return _newest(self._recordings, key, read, _MOST_RECORDINGS)


def _newest(kept: dict[_K, _V], key: _K, make: Callable[[], _V], most: int) -> _V:
    """What is kept under `key`, made where it is not; of the others those needed last stay."""
    found = kept.pop(key, None)
    if found is None:
        found = make()
    # The last one is the newest.
    kept[key] = found
    while len(kept) > most:
        del kept[next(iter(kept))]
    return found


def _kept_logits(logits: RouterRows | None, model: ModelInfo) -> RouterRows:
    if logits is None:
        raise InputError(_NO_LOGITS, _KEEP_THEM)
    if logits.shape[1:] != (model.layers, model.experts):
        layers, experts = logits.shape[1:]
        raise InputError(
            f"The router logits of this answer are damaged: they are of {layers} layers of "
            f"{experts} experts, and the model has {model.layers} of {model.experts}."
        )
    return logits


def _shape(model: ModelInfo) -> RouterShape:
    return RouterShape(model.layers, model.experts, model.top_k, bool(model.norm_topk_prob))


def _unusable(asked: InspectToken | ReplaySide, error: OSError | ValueError) -> InputError:
    return InputError(f"{_name(asked.rule)} cannot be replayed: {as_sentence(error)}")


def _name(rule: RuleParameters | None) -> str:
    return "The model's own routing" if rule is None else format_rule(rule)
