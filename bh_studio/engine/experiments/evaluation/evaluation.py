"""Quality of routing rules on texts, teacher-forced: every contender reads the same windows.

The model reads the true text and is scored by how well it predicts each next token; no text is
generated, so nothing drifts and differences of 0.001 nats can be seen.
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from bh_studio.engine.errors import Cancelled, CancelToken
from bh_studio.engine.experiments.environment import describe_environment
from bh_studio.engine.experiments.evaluation.controls import (
    DrawnByWindow,
    MixedTopK,
    ShuffledCounts,
)
from bh_studio.engine.experiments.evaluation.teacher_forcing import Reader, encode
from bh_studio.engine.experiments.evaluation.windows import Window, batches, thinned, windows
from bh_studio.engine.experiments.stages import Stage, Stepped, Unit
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.moe.router_capture import RouterCapture
from bh_studio.engine.protocol.events import Notice, UnitEvent
from bh_studio.engine.protocol.experiments import Evaluation
from bh_studio.engine.records.decisions.drift import Drift
from bh_studio.engine.records.evaluation import Contender, Control, EvaluationResult, WindowSums
from bh_studio.engine.records.temperature_scaling import TEMPERATURES
from bh_studio.engine.routing.drift import drift_of
from bh_studio.engine.routing.selection import RoutingRule, RuleFactory
from bh_studio.engine.rules.parameters import RuleName, RuleParameters


@dataclass(frozen=True, slots=True)
class BatchRow:
    """What every contender of a stage made of one batch of windows.

    drifts: of the texts whose first window is among them, by their number from 0.
    """

    sums: tuple[WindowSums, ...]
    drifts: Mapping[int, Drift] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The row by name."""
        drifts = {str(text): drift.to_json() for text, drift in self.drifts.items()}
        return {"contenders": [sums.to_json() for sums in self.sums], "drifts": drifts}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> BatchRow:
        """The row that to_json wrote. Raises KeyError, TypeError or ValueError for others."""
        # Rows of earlier versions say nothing of it.
        drifts = dict(values.get("drifts", {})).items()
        return cls(
            tuple(WindowSums.from_json(sums) for sums in values["contenders"]),
            {int(text): Drift.from_json(drift) for text, drift in drifts},
        )


class _Work(NamedTuple):
    """A batch and who reads it.

    numbers: places of its windows among all of the evaluation. first: the place in the batch of the
    window whose drift stands for that of its text, and the number of the text.
    """

    contenders: tuple[Contender, ...]
    windows: tuple[Window, ...]
    numbers: tuple[int, ...]
    first: Mapping[int, int]


class EvaluationLaboratory:
    """An evaluation with a model. key_prefix: of its units, where it is part of an experiment.

    Fixed controls need the mean of the rule they stand for, so they follow in a second stage, which
    reads the baseline once more to compare them with.

    Raises EngineError for texts that cannot be scored, ValueError for parameters that do not fit
    the model.
    """

    def __init__(self, loaded: LoadedModel, definition: Evaluation, key_prefix: str = "") -> None:
        for rule in definition.rules:
            rule.check_shape(loaded.shape.layers, loaded.shape.experts)
        self._loaded, self._definition, self._prefix = loaded, definition, key_prefix
        self._documents = encode(loaded, definition.texts)
        context = int(loaded.model.config.max_position_embeddings)
        self._window = min(definition.window, context)
        self._stride = definition.stride or max(1, self._window // 2)
        found = windows([len(d) for d in self._documents], self._window, self._stride)
        self._windows = thinned(found, definition.tokens)
        self._batches = self._numbered(definition.windows_at_once(self._window))
        self._integrations: dict[Contender, RoutingIntegration | None] = {}

    @property
    def steps(self) -> int:
        """About how often a window passes through the model."""
        return len(self._windows) * (len(self._at_once()) + self._later())

    def stages(self, rows: Mapping[str, BatchRow]) -> Generator[Stage, None, None]:
        """The rules and the controls that can be made at once; then those at their means."""
        at_once = self._at_once()
        yield self._stage("rules", at_once, len(self._windows) * self._later())
        if self._later():
            first = self._result(rows, [("rules", at_once)])
            yield self._stage("controls", _at_means(first))

    def compute(
        self, unit: Unit, cancel: CancelToken
    ) -> Generator[UnitEvent | Stepped, None, BatchRow]:
        """Have every contender of the stage read one batch."""
        work: _Work = unit.work
        temperatures = TEMPERATURES if self._definition.with_temperatures else None
        reader = Reader(self._loaded, self._documents, work.windows, temperatures)
        sums: list[WindowSums] = []
        drifts: dict[int, Drift] = {}
        for contender in work.contenders:
            if cancel.is_cancelled:
                raise Cancelled
            if contender not in self._integrations:
                yield from self._prepare(contender)
            integration = self._integrations[contender]
            if integration is not None and isinstance(integration.rule, DrawnByWindow):
                integration.rule.windows = work.numbers
            if not sums and work.first:
                with RouterCapture(self._loaded.model) as capture:
                    sums.append(reader.read(integration))
                drifts = self._drifts(capture, work)
            else:
                sums.append(reader.read(integration))
            yield Stepped(len(work.windows))
        return BatchRow(tuple(sums), drifts)

    def _drifts(self, capture: RouterCapture, work: _Work) -> dict[int, Drift]:
        """Of the texts whose first window the baseline has just read."""
        windows = len(work.windows)
        found: dict[int, Drift] = {}
        for place, text in work.first.items():
            of_layers = [
                logits.unflatten(0, (windows, -1))[place] for logits, *_ in capture.outputs
            ]
            logits = torch.stack(of_layers, dim=1).float().cpu().numpy()
            drift = drift_of(self._loaded.recording, logits)
            if drift is not None:
                found[text] = drift
        return found

    def document(self, rows: Mapping[str, BatchRow], is_complete: bool) -> EvaluationResult | None:
        """The result as far as all contenders of a stage have read the same windows."""
        at_once = self._at_once()
        first = self._result(rows, [("rules", at_once)])
        if not len(first.tokens):
            return None
        if not (is_complete and self._later()):
            return replace(first, is_complete=is_complete)
        return self._result(rows, [("rules", at_once), ("controls", _at_means(first))])

    def row_from_json(self, values: dict[str, Any]) -> BatchRow:
        """The row that to_json wrote. Raises KeyError, TypeError or ValueError for others."""
        return BatchRow.from_json(values)

    # --- what is read by whom ---

    def _numbered(self, most: int) -> list[tuple[tuple[int, ...], tuple[Window, ...]]]:
        """The batches, each with the places of its windows."""
        numbered, first = [], 0
        for batch in batches(self._windows, most):
            numbered.append((tuple(range(first, first + len(batch))), tuple(batch)))
            first += len(batch)
        return numbered

    def _at_once(self) -> tuple[Contender, ...]:
        """The contenders of the first stage, the baseline first."""
        plan = [Contender(None), *map(Contender, self._definition.rules)]
        if self._definition.with_controls:
            plan.append(Contender(None, Control.AGAIN))
            plan += [
                Contender(rule, Control.SHUFFLED)
                for rule in self._definition.rules
                if _is_controlled(rule)
            ]
        return tuple(plan)

    def _later(self) -> int:
        """How many contenders the second stage has."""
        controlled = sum(map(_is_controlled, self._definition.rules))
        return 1 + 2 * controlled if self._definition.with_controls and controlled else 0

    def _stage(self, name: str, contenders: tuple[Contender, ...], later: int = 0) -> Stage:
        # Both stages begin with the baseline; one says how like the null's text each text is.
        first = self._first_windows() if name == "rules" else {}
        units = tuple(
            Unit(
                self._key(name, numbers),
                len(contenders) * len(numbers),
                _Work(
                    contenders,
                    of_batch,
                    numbers,
                    {n: first[number] for n, number in enumerate(numbers) if number in first},
                ),
                functools.partial(self._fits, len(contenders), of_batch),
            )
            for numbers, of_batch in self._batches
        )
        return Stage(f"{self._prefix}{name}", units, later)

    def _first_windows(self) -> dict[int, int]:
        """The number of each text, by the place of the first of its windows that is read."""
        places: dict[int, int] = {}
        for place, window in enumerate(self._windows):
            places.setdefault(window.document, place)
        return {place: text for text, place in places.items()}

    def _fits(self, contenders: int, windows: Sequence[Window], row: object) -> bool:
        layers = self._loaded.shape.layers
        tokens = np.array([window.scored for window in windows])
        return (
            isinstance(row, BatchRow)
            and len(row.sums) == contenders
            and all(sums.fits(tokens, layers) for sums in row.sums)
            and all((s.scaled is not None) == self._definition.with_temperatures for s in row.sums)
            and all(len(drift.tail_shares) == layers for drift in row.drifts.values())
        )

    def _key(self, stage: str, numbers: Sequence[int]) -> str:
        return f"{self._prefix}{stage} {numbers[0]}"

    def _prepare(self, contender: Contender) -> Generator[UnitEvent, None, None]:
        integration = _integration(self._loaded, contender)
        self._integrations[contender] = integration
        # Said of the rule itself, not of the controls that stand in its place as well.
        if integration is not None and contender.control is None and integration.rule.shortage():
            yield Notice(str(integration.rule.shortage()))

    def _result(
        self, rows: Mapping[str, BatchRow], stages: Sequence[tuple[str, tuple[Contender, ...]]]
    ) -> EvaluationResult:
        """What `stages` say of the windows that all of them have read."""
        done = [
            numbers
            for numbers, _ in self._batches
            if all(self._key(name, numbers) in rows for name, _ in stages)
        ]
        contenders: list[Contender] = []
        sums: list[WindowSums] = []
        for number, (name, of_stage) in enumerate(stages):
            parts = [rows[self._key(name, numbers)].sums for numbers in done]
            # The second baseline only served to compare with.
            first = 0 if number == 0 else 1
            contenders += of_stage[first:]
            sums += [WindowSums.joined(of_one) for of_one in list(zip(*parts, strict=True))[first:]]
        tokens = [self._windows[place].scored for numbers in done for place in numbers]
        drifts = {
            text: drift
            for numbers in done
            for text, drift in rows[self._key("rules", numbers)].drifts.items()
        }
        return EvaluationResult(
            model=self._loaded.info,
            texts=tuple(
                (text.name, text.sha256, len(ids))
                for text, ids in zip(self._definition.texts, self._documents, strict=True)
            ),
            window=self._window,
            stride=self._stride,
            tokens=np.array(tokens, dtype=np.int64),
            contenders=tuple(contenders),
            sums=tuple(sums),
            is_complete=len(tokens) == len(self._windows),
            environment=describe_environment(),
            drifts=tuple(drifts.get(text) for text in range(len(self._documents))),
        )


def _is_controlled(rule: RuleParameters | None) -> bool:
    """Whether there is a fixed top-k to compare with: not for the fixed top-k itself."""
    return rule is not None and rule.rule is not RuleName.TOP_K


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


def _at_means(evaluation: EvaluationResult) -> tuple[Contender, ...]:
    """The baseline, and both fixed controls of every rule at the means that it used."""
    controls = [Contender(None)]
    for contender, scores in zip(evaluation.contenders, evaluation.scores(), strict=True):
        if contender.control is not None or not _is_controlled(contender.parameters):
            continue
        by_layer = scores.per_layer_experts
        uniform = (scores.mean_experts.value,) * len(by_layer)
        controls.append(replace(contender, control=Control.FIXED, means=uniform))
        controls.append(replace(contender, control=Control.FIXED_BY_LAYER, means=by_layer))
    return tuple(controls)
