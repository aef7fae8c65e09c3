"""What a sweep found: answers by prompt, seed and routing, and what they say of the rules.

With several prompts every mean has an interval, a bootstrap over prompts: answers to one prompt
depend on each other. All rules are drawn together, so that differences between them are paired.
Knows no model and no torch.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from bh_studio.engine.files.plain_json import convert
from bh_studio.engine.records.estimates import Estimate, PairedBootstrap
from bh_studio.engine.records.rows import Agreement, Answer
from bh_studio.engine.rules.parameters import RuleName, RuleParameters
from bh_studio.engine.rules.text import format_rule, parse_rule

# More than one machine answers in months; they are looked for one by one.
_MOST_ANSWERS = 2**22


def sweep_key(prompt: int, seed: int, side: int) -> str:
    """The name of one answer among all of a sweep; each counts from 0."""
    return f"{prompt} {seed} {side}"


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One answer. rule: None for the model's own routing, which is compared with nothing.

    prompt, seed: places among those of the sweep. agreement: with the model's own; None also where
    that has not answered yet.
    """

    prompt: int
    seed: int
    side: int
    rule: RuleParameters | None
    answer: Answer
    agreement: Agreement | None

    @property
    def key(self) -> str:
        return sweep_key(self.prompt, self.seed, self.side)

    @property
    def alpha(self) -> float | None:
        """The level of BH, if that is the rule and has one for all layers."""
        rule = self.rule
        if rule is None or rule.rule is not RuleName.BH or isinstance(rule.level, tuple):
            return None
        return rule.level

    def to_json(self) -> dict[str, Any]:
        """The row by name."""
        compared = self.agreement.to_json() if self.agreement else {}
        return {
            "key": self.key,
            "prompt": self.prompt,
            "seed": self.seed,
            "rule": None if self.rule is None else format_rule(self.rule),
            "alpha": self.alpha,
            **compared,
            **self.answer.to_json(),
        }


@dataclass(frozen=True, slots=True)
class RuleSummary:
    """One routing over all prompts and seeds.

    experts: mean over tokens and layers. same: share of positions with the token of the model's
    own; None for that itself. more_experts: `experts` less that of the first rule, paired; None for
    that rule and for the model's own.
    """

    rule: RuleParameters | None
    experts: Estimate
    same: Estimate | None
    more_experts: Estimate | None

    def to_json(self) -> dict[str, Any]:
        """The summary by name."""
        return {
            "rule": None if self.rule is None else format_rule(self.rule),
            "experts": self.experts.to_dict(),
            "same": self.same and self.same.to_dict(),
            "more_experts": self.more_experts and self.more_experts.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class SweepResult:
    """All answers of a sweep, by key. refused: why the model cannot answer a prompt, by its place.

    sides: the routings; the first is the model's own.
    """

    prompts: tuple[str, ...]
    sides: tuple[RuleParameters | None, ...]
    seeds: int
    answers: Mapping[str, Answer]
    refused: Mapping[int, str]
    is_complete: bool

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """What is in a file that holds its rows. Raises KeyError, TypeError or ValueError."""
        settings = document["settings"]
        prompts = convert(tuple[str, ...], settings["prompts"], "prompts")
        rules = convert(tuple[str, ...], settings["rules"], "rules")
        seeds = convert(int, settings["seeds"], "seeds")
        said = convert(dict[str, str], document.get("refused", {}), "refused")
        refused = {int(place): reason for place, reason in said.items()}
        answers = {str(row["key"]): Answer.from_json(row) for row in document["rows"]}
        is_complete = convert(bool, document["complete"], "complete")
        asked = (len(prompts) - len(refused)) * seeds * (1 + len(rules))
        if not 1 <= asked <= _MOST_ANSWERS:
            raise ValueError(f"seeds is {seeds}.")
        for key in answers:
            prompt, seed, side = map(int, key.split(" "))
            if not (0 <= prompt < len(prompts) and 0 <= seed < seeds and 0 <= side <= len(rules)):
                raise ValueError(f"the answer {key!r} is to what was not asked.")
        if is_complete and len(answers) < asked:
            raise ValueError(f"{asked - len(answers)} of its {asked} answers are missing.")
        layers = convert(int, document["model"]["layers"], "model.layers")
        if not all(answer.fits(layers) for answer in answers.values()):
            raise ValueError("its answers are not those of its model.")
        sides = (None, *map(parse_rule, rules))
        return cls(prompts, sides, seeds, answers, refused, is_complete)

    def rows(self, keys: Container[str] | None = None) -> Iterator[SweepRow]:
        """The answers, or those of `keys`, in the order of prompts, seeds and sides."""
        for prompt in range(len(self.prompts)):
            for seed in range(self.seeds):
                own = self.answers.get(sweep_key(prompt, seed, 0))
                for side, rule in enumerate(self.sides):
                    key = sweep_key(prompt, seed, side)
                    answer = self.answers.get(key)
                    if answer is not None and (keys is None or key in keys):
                        agreement = Agreement.between(own, answer) if own and side else None
                        yield SweepRow(prompt, seed, side, rule, answer, agreement)

    def summaries(self) -> list[RuleSummary]:
        """Each routing over all prompts, every prompt with the same weight; intervals over prompts.

        Only prompts that every routing has answered with every seed count; none without any.
        """
        of_prompt: dict[int, list[SweepRow]] = {}
        for row in self.rows():
            of_prompt.setdefault(row.prompt, []).append(row)
        wanted = self.seeds * len(self.sides)
        whole = [found for found in of_prompt.values() if len(found) == wanted]
        if not whole:
            return []
        bootstrap = PairedBootstrap(np.ones(len(whole)))
        experts, same = (
            np.array([[of(found, side) for found in whole] for side in range(len(self.sides))])
            for of in (_experts, _same)
        )
        return [
            RuleSummary(
                rule,
                bootstrap.mean(experts[side]),
                bootstrap.mean(same[side]) if side else None,
                bootstrap.mean(experts[side] - experts[1]) if side > 1 else None,
            )
            for side, rule in enumerate(self.sides)
        ]

    def to_json(self) -> dict[str, Any]:
        """The result by name, the rows of all answers there are with it."""
        return {
            "summaries": [summary.to_json() for summary in self.summaries()],
            "refused": {str(place): reason for place, reason in self.refused.items()},
            "rows": [row.to_json() for row in self.rows()],
        }


def _experts(rows: Sequence[SweepRow], side: int) -> float:
    """Mean experts over the tokens and layers of one side's answers."""
    found = [row.answer.statistics for row in rows if row.side == side]
    tokens = sum(statistics.tokens for statistics in found)
    return sum(s.tokens * (s.mean or 0.0) for s in found) / tokens


def _same(rows: Sequence[SweepRow], side: int) -> float:
    """Share of positions with the model's own token over one side's answers."""
    found = [row.agreement for row in rows if row.side == side and row.agreement]
    positions = sum(agreement.positions for agreement in found)
    return sum(a.matching for a in found) / positions if positions else 1.0
