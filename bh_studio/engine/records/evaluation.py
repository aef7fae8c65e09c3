"""What an evaluation found: sums per window, and the estimates that follow from them.

Knows arrays, no model. Every mean is over scored tokens, or over pairs of scored token and layer;
every interval is a paired bootstrap over windows, see `estimates`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np

from bh_studio.engine.architectures import MOST_EXPERTS
from bh_studio.engine.files.lists import counted_array, finite_array
from bh_studio.engine.files.plain_json import convert
from bh_studio.engine.records.decisions.drift import Drift
from bh_studio.engine.records.estimates import LEVEL, RESAMPLES, Estimate, PairedBootstrap, on_front
from bh_studio.engine.records.temperature_scaling import TEMPERATURES, ScaledNats, scaled_nats
from bh_studio.engine.records.terms import ModelInfo
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.text import format_rule

SCHEMA_VERSION = 2
# Beyond it sums of whole numbers are not exact.
_MOST_ROWS = 2**53
# A token: e to the power of a little more is more than a number can be.
_MOST_NATS = 700.0


class Control(StrEnum):
    """What is put in a rule's place, at as many experts; see `controls`.

    AGAIN: nothing else, the same once more, which shows the noise floor. SHUFFLED: the rule's
    counts dealt out at random. FIXED: fixed top-k, the same mean in every layer. FIXED_BY_LAYER:
    fixed top-k, in each layer the rule's mean there.
    """

    AGAIN = "again"

    SHUFFLED = "shuffled"
    FIXED = "fixed"
    FIXED_BY_LAYER = "fixed by layer"


@dataclass(frozen=True, slots=True)
class Contender:
    """One routing that is evaluated. parameters: None for the model's own.

    control: what stands in the place of the rule. means: (layer,) mean experts that a fixed control
    uses.
    """

    parameters: RuleParameters | None
    control: Control | None = None
    means: tuple[float, ...] = ()

    @property
    def label(self) -> str:
        """The contender in a few words, the same in every table."""
        rule = "baseline" if self.parameters is None else format_rule(self.parameters)
        return rule if self.control is None else f"{rule} ({self.control})"


@dataclass(frozen=True, slots=True, eq=False)
class WindowSums:
    """Sums over the scored tokens of each window, one contender.

    quality: (window, 3) float64: nats, -log p of the true token; KL(baseline || contender) in nats;
        tokens whose most probable next token is the baseline's.
    counts: (window, 5, layer) float64: experts used; their squares; tokens for which the rule
        selected nothing; was raised to more (min_k, on_empty); was lowered to max_k.
    rows_read: tokens times layers that ran, scored or not. expert_rows: rows that meanwhile went
        through experts, see expert_rows.
    scaled: (window, temperature) float64, nats at TEMPERATURES; None if not asked for.
    """

    quality: np.ndarray
    counts: np.ndarray
    rows_read: int
    expert_rows: int
    scaled: np.ndarray | None = None

    @property
    def nats(self) -> np.ndarray:
        """(window,)"""
        return self.quality[:, 0]

    def fits(self, tokens: np.ndarray, layers: int) -> bool:
        """Whether these can be the sums of windows with so many tokens, (window,), by a model of so
        many layers."""
        shapes = ((len(tokens), 3), (len(tokens), 5, layers))
        if (self.quality.shape, self.counts.shape) != shapes or self.rows_read < 1:
            return False
        if self.scaled is not None:
            if self.scaled.shape != (len(tokens), len(TEMPERATURES)):
                return False
            # Where logits are sharpened, so is what can be lost.
            most_scaled = _MOST_NATS * tokens[:, None] / TEMPERATURES.min()
            if not ((self.scaled >= 0) & (self.scaled <= most_scaled)).all():
                return False
        nats, kl, agreements = self.quality.T
        of_token = np.array([MOST_EXPERTS, MOST_EXPERTS**2, 1, 1, 1])
        most = tokens[:, None, None] * of_token[:, None]
        return bool(
            ((nats >= 0) & (nats <= _MOST_NATS * tokens)).all()
            # Rounded in float32, a divergence of nothing may lie a little below 0.
            and ((kl >= -1e-3 * tokens) & (kl <= _MOST_NATS * tokens)).all()
            and ((agreements >= 0) & (agreements <= tokens)).all()
            and ((self.counts >= 0) & (self.counts <= most)).all()
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The windows of all `parts`, in order."""
        scaled = [part.scaled for part in parts if part.scaled is not None]
        if len(scaled) not in (0, len(parts)):
            raise ValueError("some of its rows have temperatures, and some have none.")
        return cls(
            np.concatenate([part.quality for part in parts]),
            np.concatenate([part.counts for part in parts]),
            sum(part.rows_read for part in parts),
            sum(part.expert_rows for part in parts),
            np.concatenate(scaled) if scaled else None,
        )

    def to_json(self) -> dict[str, Any]:
        """The sums by name."""
        return {
            "quality": self.quality.tolist(),
            "counts": self.counts.tolist(),
            "rows_read": self.rows_read,
            "expert_rows": self.expert_rows,
            **({} if self.scaled is None else {"scaled": self.scaled.tolist()}),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The sums that to_json wrote. Raises KeyError, TypeError or ValueError for others."""
        rows_read, expert_rows = (
            convert(int, values[name], name) for name in ("rows_read", "expert_rows")
        )
        if not 0 <= expert_rows <= MOST_EXPERTS * rows_read <= _MOST_ROWS:
            raise ValueError(f"expert_rows is {expert_rows} of {rows_read} rows.")
        quality, counts = finite_array(values["quality"], 2), finite_array(values["counts"], 3)
        scaled = finite_array(values["scaled"], 2) if "scaled" in values else None
        return cls(quality, counts, rows_read, expert_rows, scaled)


@dataclass(frozen=True, slots=True)
class Scores:
    """The estimates of one contender.

    nats: a token. nats_increase: against the baseline, paired. kl: nats a token. agreement: share
    of tokens. mean_experts: over token-layer pairs. std_experts: over the same, divisor N.
    share_empty, share_raised, share_lowered: of the pairs. expert_rows: a token and layer that was
    read, counted in the experts. temperature: of its vocabulary logits, the one that suits them
    best. scaled_increase: as nats_increase, once this and the baseline have each their own, see
    temperature_scaling. None where they were not asked for or there is one window.
    """

    nats: Estimate
    nats_increase: Estimate
    kl: Estimate
    agreement: Estimate
    mean_experts: Estimate
    std_experts: float
    per_layer_experts: tuple[float, ...]
    share_empty: Estimate
    share_raised: Estimate
    share_lowered: Estimate
    expert_rows: float
    temperature: float | None = None
    scaled_increase: Estimate | None = None

    @property
    def perplexity(self) -> float:
        return math.exp(self.nats.value)

    @property
    def perplexity_change(self) -> Estimate:
        """Relative change of perplexity against the baseline: 0.01 is 1 % more."""
        return _relative(self.nats_increase)

    @property
    def scaled_perplexity_change(self) -> Estimate | None:
        """The same, once each has its own temperature."""
        return None if self.scaled_increase is None else _relative(self.scaled_increase)

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, estimates as value, low and high."""
        fields = {
            name: value.to_dict() if isinstance(value, Estimate) else value
            for name, value in ((name, getattr(self, name)) for name in self.__slots__)
            if value is not None
        }
        scaled = self.scaled_perplexity_change
        return {
            **fields,
            "per_layer_experts": list(self.per_layer_experts),
            "perplexity": self.perplexity,
            "perplexity_change": self.perplexity_change.to_dict(),
            **({} if scaled is None else {"scaled_perplexity_change": scaled.to_dict()}),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The estimates that to_dict wrote. Raises KeyError, TypeError or ValueError for others."""
        by_layer = values["per_layer_experts"]
        found: dict[str, Any] = {
            "per_layer_experts": convert(tuple[float, ...], by_layer, "per_layer_experts"),
            **{
                name: convert(float, values[name], name)
                for name in ("std_experts", "expert_rows", "temperature")
                if name in values or name not in _SCALED
            },
        }
        estimates = [
            name
            for name in cls.__slots__
            if name not in found and (name in values or name not in _SCALED)
        ]
        found |= {name: Estimate.from_dict(values[name]) for name in estimates}
        scores = cls(**found)
        increases = [*scores.nats_increase, *(scores.scaled_increase or ())]
        if any(abs(nats) > _MOST_NATS for nats in increases) or not (scores.temperature or 1) > 0:
            raise ValueError("its scores are none that a contender can have.")
        return scores


# What is there only if it was asked for.
_SCALED = ("temperature", "scaled_increase")


def _relative(nats_increase: Estimate) -> Estimate:
    """A change of perplexity: 0.01 is 1 % more."""
    return Estimate(*(math.expm1(value) for value in nats_increase))


@dataclass(frozen=True, slots=True)
class ContenderRow:
    """A contender and its estimates, as the table has them.

    on_front: whether no other contender has at most its mean experts and at most its nats.
    """

    contender: Contender
    scores: Scores
    on_front: bool


def contender_rows(contenders: Sequence[dict[str, Any]]) -> tuple[ContenderRow, ...]:
    """The "contenders" of the document of an evaluation, of any version.

    Raises KeyError, TypeError or ValueError for others.
    """
    rows: list[ContenderRow] = []
    for values in contenders:
        given, scores = values["parameters"], Scores.from_dict(values["scores"])
        parameters = None if given is None else convert(RuleParameters, given, "parameters")
        control = None if values["control"] is None else Control(values["control"])
        means: tuple[float, ...] = ()
        if control in (Control.FIXED, Control.FIXED_BY_LAYER):
            # A fixed control uses what its rule used, which stands before it.
            of_rule = [row.scores for row in rows if row.contender == Contender(parameters)]
            if not of_rule:
                raise ValueError(f"{values['label']} stands before its rule.")
            by_layer = of_rule[0].per_layer_experts
            uniform = (of_rule[0].mean_experts.value,) * len(by_layer)
            means = uniform if control is Control.FIXED else by_layer
        on_the_front = convert(bool, values["on_front"], "on_front")
        rows.append(ContenderRow(Contender(parameters, control, means), scores, on_the_front))
    return tuple(rows)


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationResult:
    """Results of every contender on the same windows. The first contender is the baseline.

    texts: (name, sha256, tokens) of each. tokens: (window,) scored tokens. is_complete: False if it
    was cancelled; the windows that are there were read by every contender. drifts: how like the
    null's text each of the texts is, by its first window that was read; None where that is not
    known, none at all in results of earlier versions.
    """

    model: ModelInfo
    texts: tuple[tuple[str, str, int], ...]
    window: int
    stride: int
    tokens: np.ndarray
    contenders: tuple[Contender, ...]
    sums: tuple[WindowSums, ...]
    is_complete: bool
    environment: dict[str, Any]
    drifts: tuple[Drift | None, ...] = ()

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """What is in a file that holds its rows, the window sums.

        Raises KeyError, TypeError or ValueError for others, as for schema version 1.
        """
        model = convert(ModelInfo, document["model"], "model")
        contenders = tuple(row.contender for row in contender_rows(document["contenders"]))
        texts, drifts = _texts(document["texts"], model.layers)
        tokens = counted_array(document["window_tokens"], 1)
        sums = _window_sums(document["rows"], "rules")
        if len(contenders) > len(sums):
            # The second stage reads the baseline again, only to compare with it.
            sums += _window_sums(document["rows"], "controls")[1:]
        if not contenders or contenders[0] != Contender(None) or len(contenders) != len(sums):
            raise ValueError("its rows are not those of its contenders.")
        if len({one.scaled is None for one in sums}) > 1:
            raise ValueError("some of its rows have temperatures, and some have none.")
        if not (len(tokens) and tokens.all()):
            raise ValueError("its windows have no tokens.")
        if not all(one.fits(tokens, model.layers) for one in sums):
            raise ValueError("its rows are not those of its windows.")
        return cls(
            model=model,
            texts=tuple((text.name, text.sha256, text.tokens) for text in texts),
            window=convert(int, document["window"], "window"),
            stride=convert(int, document["stride"], "stride"),
            tokens=tokens,
            contenders=contenders,
            sums=sums,
            is_complete=convert(bool, document["is_complete"], "is_complete"),
            environment=convert(dict[str, Any], document["environment"], "environment"),
            drifts=drifts,
        )

    def scores(self) -> list[Scores]:
        """Estimates of each contender. Raises ValueError if no window was read."""
        if not len(self.tokens):
            raise ValueError("Nothing was evaluated.")
        bootstrap = PairedBootstrap(self.tokens)
        baseline = _scaled(self.sums[0])
        return [self._scores(bootstrap, sums, baseline) for sums in self.sums]

    def difference(self, left: int, right: int) -> Estimate:
        """Nats a token of contender `left` minus those of `right`, paired."""
        return PairedBootstrap(self.tokens).mean(self.sums[left].nats - self.sums[right].nats)

    def _scores(
        self, bootstrap: PairedBootstrap, sums: WindowSums, baseline: ScaledNats | None
    ) -> Scores:
        nats, kl, agreements = sums.quality.T
        by_layer = sums.counts.sum(0) / self.tokens.sum()  # (5, layer)
        experts, _, empty, raised, lowered = (
            bootstrap.mean(of_kind) for of_kind in sums.counts.mean(2).T
        )
        scaled = _scaled(sums)
        return Scores(
            nats=bootstrap.mean(nats),
            nats_increase=bootstrap.mean(nats - self.sums[0].nats),
            kl=bootstrap.mean(kl),
            agreement=bootstrap.mean(agreements),
            mean_experts=experts,
            std_experts=math.sqrt(max(0.0, by_layer[1].mean() - experts.value**2)),
            per_layer_experts=tuple(by_layer[0].tolist()),
            share_empty=empty,
            share_raised=raised,
            share_lowered=lowered,
            expert_rows=sums.expert_rows / sums.rows_read,
            temperature=scaled and scaled.temperature,
            scaled_increase=(
                bootstrap.mean(scaled.nats - baseline.nats) if scaled and baseline else None
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """The result as one document for json.dump, window sums included.

        on_front: whether no other contender has at most its mean experts and at most its nats.
        """
        scores = self.scores()
        front = on_front([(s.mean_experts.value, s.nats.value) for s in scores])
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "evaluation",
            "model": asdict(self.model),
            "texts": [
                {
                    "name": name,
                    "sha256": digest,
                    "tokens": tokens,
                    "drift": None if drift is None else drift.to_json(),
                }
                for (name, digest, tokens), drift in itertools.zip_longest(self.texts, self.drifts)
            ],
            "window": self.window,
            "stride": self.stride,
            "scored_tokens": int(self.tokens.sum()),
            "is_complete": self.is_complete,
            "interval": {"level": LEVEL, "resamples": RESAMPLES, "blocks": len(self.tokens)},
            "contenders": [
                {
                    "label": contender.label,
                    "parameters": contender.parameters and asdict(contender.parameters),
                    "control": contender.control,
                    "on_front": on_the_front,
                    "scores": of_contender.to_dict(),
                    "window_nats": sums.nats.tolist(),
                }
                for contender, of_contender, sums, on_the_front in zip(
                    self.contenders, scores, self.sums, front, strict=True
                )
            ],
            "window_tokens": self.tokens.tolist(),
            "environment": self.environment,
        }


def _scaled(sums: WindowSums) -> ScaledNats | None:
    if sums.scaled is None or len(sums.scaled) < 2:
        return None
    return scaled_nats(sums.scaled)


@dataclass(frozen=True, slots=True)
class _Text:
    """A text of an evaluation, as its document names it."""

    name: str
    sha256: str
    tokens: int


def _texts(
    said: Sequence[dict[str, Any]], layers: int
) -> tuple[tuple[_Text, ...], tuple[Drift | None, ...]]:
    """The texts of a document, and the drift of each, of which earlier versions say nothing."""
    named = [dict(text) for text in said]
    drifts = [text.pop("drift", None) for text in named]
    judged = tuple(None if drift is None else Drift.from_json(drift) for drift in drifts)
    for drift in judged:
        if drift is not None:
            drift.check(layers)
    return convert(tuple[_Text, ...], named, "texts"), judged


def _window_sums(rows: Sequence[dict[str, Any]], stage: str) -> tuple[WindowSums, ...]:
    """The sums of each contender of `stage` over all windows; none if it has no rows."""
    batches: dict[int, list[WindowSums]] = {}
    for row in rows:
        of_stage, first_window = str(row["key"]).rsplit(" ", 1)
        if of_stage == stage:
            batches[int(first_window)] = list(map(WindowSums.from_json, row["contenders"]))
    in_order = [sums for _, sums in sorted(batches.items())]
    return tuple(map(WindowSums.joined, zip(*in_order, strict=True)))
