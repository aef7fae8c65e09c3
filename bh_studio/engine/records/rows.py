"""What an experiment keeps of each answer, and the numbers over many of them.

Rows go to JSON and come back equal, so that an experiment can go on where it was interrupted.
Knows no model, no file and no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from bh_studio.engine.files.plain_json import convert
from bh_studio.engine.records.counts import (
    CountStatistics,
    count_statistics,
    first_difference,
    pooled,
)
from bh_studio.engine.records.session import SideRecord
from bh_studio.engine.records.terms import FinishReason
from bh_studio.engine.rules.sides import check_number


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer without its count matrix. token_ids: the end-of-text token included."""

    text: str
    token_ids: tuple[int, ...]
    tokens_per_second: float | None
    time_to_first_token_s: float | None
    finish_reason: FinishReason
    statistics: CountStatistics

    def fits(self, layers: int) -> bool:
        """Whether a model of so many layers can have given it."""
        found = self.statistics
        return found.tokens == len(self.token_ids) and (
            not found.tokens or len(found.per_layer_mean) == layers
        )

    @classmethod
    def of(cls, record: SideRecord) -> Self:
        """What is kept of `record`."""
        return cls(
            record.text,
            record.token_ids,
            record.tokens_per_second,
            record.time_to_first_token_s,
            record.finish_reason,
            count_statistics(record.expert_counts, record.raw_counts),
        )

    def to_json(self) -> dict[str, Any]:
        """The answer under the names of a session, statistics of the answer only."""
        return {
            "text": self.text,
            "token_ids": list(self.token_ids),
            "tokens_per_second": self.tokens_per_second,
            "time_to_first_token_s": self.time_to_first_token_s,
            "finish_reason": self.finish_reason.value,
            "statistics": self.statistics.to_dict(),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The answer that `to_json` wrote. Raises KeyError, TypeError or ValueError for others."""
        return convert(cls, {name: values[name] for name in cls.__slots__})


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two answers are the same.

    matching: positions at which both have the same token, counted from the start of each answer.
    positions: length of the longer answer, so what only one of them has counts as different.
    first_difference: index of the first position at which they differ; None if they never do.
    """

    matching: int
    positions: int
    first_difference: int | None

    @classmethod
    def between(cls, first: Answer, other: Answer) -> Self:
        """The agreement of `other` with `first`, the answer that it is compared with."""
        pairs = zip(first.token_ids, other.token_ids, strict=False)
        return cls(
            sum(left == right for left, right in pairs),
            max(len(first.token_ids), len(other.token_ids)),
            first_difference(first.token_ids, other.token_ids),
        )

    @property
    def share(self) -> float:
        return self.matching / self.positions

    def to_json(self) -> dict[str, Any]:
        """The agreement by name."""
        return {
            "agreement": self.share,
            "matching_tokens": self.matching,
            "first_difference": self.first_difference,
        }


@dataclass(frozen=True, slots=True)
class AnswersSummary:
    """Many answers of one side taken together, each token with the same weight."""

    statistics: CountStatistics
    tokens_per_second: float | None

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> Self:
        """The summary of `answers`."""
        return cls(pooled([answer.statistics for answer in answers]), _pooled_speed(answers))

    def to_json(self) -> dict[str, Any]:
        """The summary under the names of an answer."""
        return {
            "tokens_per_second": self.tokens_per_second,
            "statistics": self.statistics.to_dict(),
        }


def _pooled_speed(answers: Sequence[Answer]) -> float | None:
    """All decoding steps over all decoding time; the first token of an answer is no such step."""
    steps = [
        (len(answer.token_ids) - 1, answer.tokens_per_second)
        for answer in answers
        if answer.tokens_per_second
    ]
    seconds = sum(count / speed for count, speed in steps)
    return sum(count for count, _ in steps) / seconds if seconds > 0 else None


# The field of a row in which a prompt stands, unless another is named.
PROMPTS_FIELD = "prompt"


@dataclass(frozen=True, slots=True)
class FilePrompt:
    """line: where it starts, from 1. fields: what else its row holds, by name."""

    line: int
    prompt: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A row without an answer; `reason` says why, in a sentence."""

    line: int
    reason: str

    def to_json(self) -> dict[str, Any]:
        """The row by name."""
        return {"line": self.line, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class PromptRow:
    """The answers of all sides to one prompt of a file.

    agreements: (side,) how far each answer is that of the first side, which itself has None.
    """

    asked: FilePrompt
    answers: tuple[Answer, ...]
    agreements: tuple[Agreement | None, ...]

    @classmethod
    def of(cls, asked: FilePrompt, answers: Sequence[Answer]) -> Self:
        """The row of what the sides answered."""
        first, *others = answers
        agreements = (Agreement.between(first, other) for other in others)
        return cls(asked, tuple(answers), (None, *agreements))

    @property
    def line(self) -> int:
        return self.asked.line

    def to_json(self) -> dict[str, Any]:
        """The row by name."""
        return {
            **asdict(self.asked),
            "sides": [
                {**(agreement.to_json() if agreement else {}), **answer.to_json()}
                for answer, agreement in zip(self.answers, self.agreements, strict=True)
            ],
        }


def prompt_row_from_json(row: dict[str, Any]) -> PromptRow | SkippedRow:
    """The row that their `to_json` wrote. Raises KeyError, TypeError or ValueError for others."""
    if "reason" in row:
        return SkippedRow(int(row["line"]), str(row["reason"]))
    answers = [Answer.from_json(side) for side in convert(list[dict[str, Any]], row["sides"])]
    check_number(len(answers))
    asked = FilePrompt(int(row["line"]), str(row["prompt"]), dict(row["fields"]))
    return PromptRow.of(asked, answers)
