"""Quality of routing rules on texts, teacher-forced: every contender reads the same windows.

A generator of events. The model reads the true text and is scored by how well it predicts each next
token; no text is generated, so nothing drifts and differences of 0.001 nats can be seen.
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from bh_studio.engine.errors import Cancelled, CancelToken
from bh_studio.engine.experiments.environment import describe_environment
from bh_studio.engine.experiments.evaluation.controls import MixedTopK, ShuffledCounts
from bh_studio.engine.experiments.evaluation.teacher_forcing import encode, readers
from bh_studio.engine.experiments.evaluation.windows import Window, thinned, windows
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.protocol.events import EvaluationProgress
from bh_studio.engine.protocol.experiments import EvaluationRequest
from bh_studio.engine.protocol.texts import DEFAULT_WINDOW, Text
from bh_studio.engine.records.evaluation import Contender, Control, Evaluation, WindowSums
from bh_studio.engine.routing.selection import RoutingRule, RuleFactory
from bh_studio.engine.rules.parameters import RuleName, RuleParameters


def evaluate(
    loaded: LoadedModel, request: EvaluationRequest
) -> Generator[EvaluationProgress, None, None]:
    """Run `request`; the last event holds the result, also when it was cancelled.

    Fixed controls need the mean of the rule they stand for, so they follow in a second round.

    Raises EngineError for texts that cannot be scored or a model whose output is not finite,
    ValueError for parameters that do not fit the model, Cancelled if it was cancelled before
    anything was known.
    """
    documents = encode(loaded, request.texts)
    window = request.window or DEFAULT_WINDOW
    window = min(window, int(loaded.model.config.max_position_embeddings))
    stride = request.stride or max(1, window // 2)
    found = thinned(windows([len(d) for d in documents], window, stride), request.tokens)
    blank = Evaluation(
        loaded.info, _described(request.texts, documents), window, stride,
        np.empty(0, dtype=np.int64), (), (), False, describe_environment(),
    )  # fmt: skip
    plan = _first_round(request)
    later = 2 * len(_controlled(request)) + 1 if request.with_controls else 0
    total = len(found) * (len(plan) + later)
    first = None
    for first in _round(loaded, documents, found, plan, blank, request.cancel):
        # Complete only with the controls that are still to come.
        known = replace(first, is_complete=first.is_complete and not later)
        yield EvaluationProgress(len(plan) * len(first.tokens), total, known)
    if first is None:
        raise Cancelled
    if not (later and first.is_complete):
        return
    second_plan = [Contender(None), *_fixed_controls(first)]
    for second in _round(loaded, documents, found, second_plan, blank, request.cancel):
        done = len(plan) * len(found) + len(second_plan) * len(second.tokens)
        known = _joined(first, second) if second.is_complete else replace(first, is_complete=False)
        yield EvaluationProgress(done, total, known)


def _first_round(request: EvaluationRequest) -> list[Contender]:
    plan = [Contender(None), *(Contender(parameters) for parameters in request.rules)]
    if request.with_controls:
        plan.append(Contender(None, Control.AGAIN))
        plan += [Contender(parameters, Control.SHUFFLED) for parameters in _controlled(request)]
    return plan


def _controlled(request: EvaluationRequest) -> list[RuleParameters]:
    return [parameters for parameters in request.rules if _is_controlled(parameters)]


def _is_controlled(parameters: RuleParameters | None) -> bool:
    """Whether there is a fixed top-k to compare with: not for the fixed top-k itself."""
    return parameters is not None and parameters.rule is not RuleName.TOP_K


def _round(
    loaded: LoadedModel,
    documents: Sequence[Tensor],
    found: Sequence[Window],
    plan: Sequence[Contender],
    blank: Evaluation,
    cancel: CancelToken,
) -> Generator[Evaluation, None, None]:
    """Every contender over every window, the baseline first; what is known after each batch."""
    integrations = [_integration(loaded, contender) for contender in plan]
    sums: list[WindowSums] = []
    tokens: list[int] = []
    for batch, reader in readers(loaded, documents, found):
        of_batch = []
        for integration in integrations:
            if cancel.is_cancelled:
                return  # the batch is dropped: every contender has read the same windows
            of_batch.append(reader.read(integration))
        sums = [a + b for a, b in zip(sums, of_batch, strict=True)] if sums else of_batch
        tokens += [window.scored for window in batch]
        yield replace(
            blank,
            tokens=np.array(tokens),
            contenders=tuple(plan),
            sums=tuple(sums),
            is_complete=len(tokens) == len(found),
        )


def _integration(loaded: LoadedModel, contender: Contender) -> RoutingIntegration | None:
    """The routing of `contender`; None for the model's own."""
    parameters = contender.parameters
    if parameters is None:
        return None
    make_rule: RuleFactory = RoutingRule
    if contender.control is Control.SHUFFLED:
        make_rule = ShuffledCounts
    elif contender.control is not None:
        make_rule = functools.partial(MixedTopK, contender.means)
        # The limits and mixing weights are the rule's; what it selects by is left out.
        parameters = RuleParameters(
            RuleName.TOP_K, 1, min_k=parameters.min_k, max_k=parameters.max_k,
            weights=parameters.weights,
        )  # fmt: skip
    return RoutingIntegration(
        loaded.model, parameters, recording=loaded.recording, make_rule=make_rule
    )


def _fixed_controls(evaluation: Evaluation) -> list[Contender]:
    """Both fixed controls of every rule, at the means that the rule turned out to have."""
    controls = []
    for contender, scores in zip(evaluation.contenders, evaluation.scores(), strict=True):
        if contender.control is not None or not _is_controlled(contender.parameters):
            continue
        by_layer = scores.per_layer_experts
        uniform = (scores.mean_experts.value,) * len(by_layer)
        controls.append(replace(contender, control=Control.FIXED, means=uniform))
        controls.append(replace(contender, control=Control.FIXED_BY_LAYER, means=by_layer))
    return controls


def _joined(first: Evaluation, second: Evaluation) -> Evaluation:
    """Both rounds as one evaluation; the second one's baseline is the first's."""
    return replace(
        first,
        contenders=first.contenders + second.contenders[1:],
        sums=first.sums + second.sums[1:],
    )


def _described(
    texts: Sequence[Text], documents: Sequence[Tensor]
) -> tuple[tuple[str, str, int], ...]:
    return tuple(
        (text.name, text.sha256, len(ids)) for text, ids in zip(texts, documents, strict=True)
    )
