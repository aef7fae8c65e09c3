"""What many prompts with all sides came to: the rows, and the numbers over all of them.

Knows no model, no file and no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from bh_studio.engine.files.plain_json import convert
from bh_studio.engine.records.rows import (
    Agreement,
    AnswersSummary,
    PromptRow,
    SkippedRow,
    prompt_row_from_json,
)
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.sides import check_number
from bh_studio.engine.rules.text import parse_rule


@dataclass(frozen=True, slots=True)
class SharedAnswers:
    """How far the answers of a side are those of the first, over many prompts.

    matching, positions: see Agreement. identical: prompts to which both gave the same answer.
    """

    matching: int
    positions: int
    identical: int

    @classmethod
    def of(cls, agreements: Sequence[Agreement]) -> Self:
        """What `agreements`, one a prompt, come to."""
        return cls(
            matching=sum(agreement.matching for agreement in agreements),
            positions=sum(agreement.positions for agreement in agreements),
            identical=sum(agreement.matching == agreement.positions for agreement in agreements),
        )

    @property
    def agreement(self) -> float | None:
        return self.matching / self.positions if self.positions else None

    def to_json(self) -> dict[str, Any]:
        """The numbers by name."""
        return {
            "agreement": self.agreement,
            "matching_tokens": self.matching,
            "identical_answers": self.identical,
        }


@dataclass(frozen=True, slots=True)
class PromptSummary:
    """Many prompts taken together; every token weighs the same, so a long answer weighs more.

    sides: (side,) what each answered. shared: (side,) None for the first.
    """

    prompts: int
    skipped: int
    sides: tuple[AnswersSummary, ...]
    shared: tuple[SharedAnswers | None, ...]

    @classmethod
    def of(cls, rows: Sequence[PromptRow], skipped: int, sides: int) -> Self:
        """The summary of `rows`, each with the answers of so many `sides`."""
        agreements = [
            [found for row in rows if (found := row.agreements[side]) is not None]
            for side in range(1, sides)
        ]
        return cls(
            prompts=len(rows),
            skipped=skipped,
            sides=tuple(
                AnswersSummary.of([row.answers[side] for row in rows]) for side in range(sides)
            ),
            shared=(None, *map(SharedAnswers.of, agreements)),
        )

    def to_json(self) -> dict[str, Any]:
        """The numbers by name."""
        return {
            "prompts": self.prompts,
            "skipped": self.skipped,
            "sides": [
                {**(shared.to_json() if shared else {}), **side.to_json()}
                for side, shared in zip(self.sides, self.shared, strict=True)
            ],
        }


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The rows of a batch, in the order of its prompts.

    prompts_name, prompts_sha256: of the file that the prompts are from. sides: the rule of each,
    None for the model's own routing. unusable: rows of that file that hold no prompt, so that
    nothing was asked.
    """

    prompts_name: str
    prompts_sha256: str
    sides: tuple[RuleParameters | None, ...]
    unusable: tuple[SkippedRow, ...]
    rows: tuple[PromptRow | SkippedRow, ...]
    is_complete: bool

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """What is in a file that holds its rows. Raises KeyError, TypeError or ValueError.

        Files of schema version 1 do not tell prompts that the model could not answer from lines
        without a prompt; there both are refused.
        """
        texts = convert(tuple[str | None, ...], document["settings"]["sides"], "settings.sides")
        check_number(len(texts))
        rows = [prompt_row_from_json(row) for row in document["rows"]]
        if any(isinstance(row, PromptRow) and len(row.answers) != len(texts) for row in rows):
            raise ValueError("a row has not one answer for each side.")
        layers = convert(int, document["model"]["layers"], "model.layers")
        answers = [one for row in rows if isinstance(row, PromptRow) for one in row.answers]
        if not all(answer.fits(layers) for answer in answers):
            raise ValueError("its answers are not those of its model.")
        seen = {row.line for row in rows}
        skipped = [prompt_row_from_json(row) for row in document.get("skipped", ())]
        unusable = [row for row in skipped if isinstance(row, SkippedRow) and row.line not in seen]
        return cls(
            convert(str, document["prompts_file"]["name"], "prompts_file.name"),
            convert(str, document["prompts_file"]["sha256"], "prompts_file.sha256"),
            tuple(None if text is None else parse_rule(text) for text in texts),
            tuple(unusable),
            tuple(sorted(rows, key=lambda row: row.line)),
            convert(bool, document["complete"], "complete"),
        )

    @property
    def answered(self) -> tuple[PromptRow, ...]:
        return tuple(row for row in self.rows if isinstance(row, PromptRow))

    @property
    def refused(self) -> tuple[SkippedRow, ...]:
        """Prompts that the model cannot answer."""
        return tuple(row for row in self.rows if isinstance(row, SkippedRow))

    @property
    def skipped(self) -> tuple[SkippedRow, ...]:
        """All rows of the file that have no answer, in its order."""
        return tuple(sorted((*self.unusable, *self.refused), key=lambda row: row.line))

    @property
    def summary(self) -> PromptSummary:
        """The numbers over all rows."""
        return PromptSummary.of(self.answered, len(self.skipped), len(self.sides))

    def to_json(self) -> dict[str, Any]:
        """The result by name; rows that the model has seen with their keys."""
        refused = {row.line for row in self.refused}
        return {
            "prompts_file": {"name": self.prompts_name, "sha256": self.prompts_sha256},
            "overall": self.summary.to_json(),
            "rows": [{"key": str(row.line), **row.to_json()} for row in self.answered],
            "skipped": [
                {"key": str(row.line), **row.to_json()} if row.line in refused else row.to_json()
                for row in self.skipped
            ],
        }
