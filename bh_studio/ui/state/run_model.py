"""What one side produced so far, for any panel to show. QtCore only."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import QObject, Signal

from bh_studio.engine.protocol.events import SideFinished, TokenGenerated
from bh_studio.engine.records.counts import CountStatistics, count_statistics, tokens_per_second
from bh_studio.engine.records.session import SideRecord
from bh_studio.engine.records.terms import FinishReason
from bh_studio.ui.state.expert_scale import ExpertScale
from bh_studio.ui.state.transcript import Passage

_FIRST_CAPACITY = 256


class RunModel(QObject):
    """The tokens, counts and times of one side, growing while the engine works.

    `epoch` changes when the content is replaced; while it stays, tokens are only appended, and
    only the last token's text may still grow.
    """

    changed = Signal()

    def __init__(self, name: str, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.name = name
        self.epoch = 0
        self._clear()

    def _clear(self) -> None:
        self.prompt = ""
        self.passages: tuple[Passage, ...] = ()
        self.layers = 0
        self.top_k = 0
        self.scale = ExpertScale()
        self.most_tokens = 0
        self.routing = ""
        self.note = ""
        self.can_be_limited = False
        self.is_started = False
        self.is_running = False
        self.is_failed = False
        self.finish_reason: FinishReason | None = None
        self.token_ids: list[int] = []
        self.token_texts: list[str] = []
        self._counts = np.zeros((0, 0), dtype=np.uint8)
        self._raw_counts = np.zeros((0, 0), dtype=np.uint8)
        self._seconds = np.zeros(0)
        self._statistics: CountStatistics | None = None

    def begin(
        self,
        *,
        prompt: str,
        passages: tuple[Passage, ...],
        layers: int,
        top_k: int,
        scale: ExpertScale,
        most_tokens: int,
        routing: str,
        note: str,
        can_be_limited: bool,
    ) -> None:
        """Forget the last run and await the tokens of a new one.

        passages: what stands above the answer, `prompt` included. can_be_limited: whether min_k or
        max_k can decide in place of the rule.
        """
        self.epoch += 1
        self._clear()
        self.prompt = prompt
        self.passages = passages
        self.layers = layers
        self.top_k = top_k
        self.scale = scale
        self.most_tokens = most_tokens
        self.routing = routing
        self.note = note
        self.can_be_limited = can_be_limited
        self.is_started = True
        self.is_running = True
        self._reserve(0)
        self.changed.emit()

    def reset(self) -> None:
        """Forget the last run; there is nothing to show."""
        self.epoch += 1
        self._clear()
        self.changed.emit()

    def append(self, token: TokenGenerated) -> None:
        """Add the next token."""
        row = len(self.token_ids)
        if row == len(self._seconds):
            self._reserve(max(_FIRST_CAPACITY, 2 * row))
        self._counts[row] = token.expert_counts
        self._raw_counts[row] = token.raw_counts
        self._seconds[row] = token.seconds
        self.token_ids.append(token.token_id)
        self.token_texts.append(token.text)
        self._statistics = None
        self.changed.emit()

    def finish(self, finished: SideFinished) -> None:
        """Take the characters held back until now and the reason for the end."""
        if finished.text_tail and self.token_texts:
            self.token_texts[-1] += finished.text_tail
        self.finish_reason = finished.record.finish_reason
        self.is_running = False
        self.changed.emit()

    def replace(self, record: SideRecord) -> None:
        """Take over the final record; what is on screen stays if the tokens are the same."""
        same = self.token_ids == list(record.token_ids)
        if not (same and self.token_texts == list(record.token_texts)):
            self.epoch += 1
        self.token_ids = list(record.token_ids)
        self.token_texts = list(record.token_texts)
        self._counts = record.expert_counts
        self._raw_counts = record.raw_counts
        self._seconds = record.token_seconds
        self._statistics = None
        self.finish_reason = record.finish_reason
        self.is_running = False
        self.changed.emit()

    def fail(self) -> None:
        """The run broke off; what has arrived stays visible."""
        self.is_failed = self.finish_reason is None
        self.is_running = False
        self.changed.emit()

    @property
    def token_count(self) -> int:
        return len(self.token_ids)

    @property
    def counts(self) -> np.ndarray:
        """(token, layer) uint8, experts used."""
        return self._counts[: self.token_count]

    @property
    def raw_counts(self) -> np.ndarray:
        """(token, layer) uint8, the same before min_k and max_k were applied."""
        return self._raw_counts[: self.token_count]

    @property
    def statistics(self) -> CountStatistics:
        """Numbers over the tokens so far, from the same function as the saved ones."""
        if self._statistics is None:
            self._statistics = count_statistics(self.counts, self.raw_counts)
        return self._statistics

    @property
    def tokens_per_second(self) -> float | None:
        return tokens_per_second(self._seconds[: self.token_count])

    @property
    def time_to_first_token_s(self) -> float | None:
        return float(self._seconds[0]) if self.token_count else None

    def token_means(self, start: int = 0) -> np.ndarray:
        """(token,) mean experts over layers, for the tokens from `start` on."""
        counts = self.counts[start:]
        return counts.mean(axis=1) if counts.size else np.zeros(0)

    def _reserve(self, rows: int) -> None:
        used = self.token_count
        counts = np.zeros((rows, self.layers), dtype=np.uint8)
        raw_counts = np.zeros((rows, self.layers), dtype=np.uint8)
        seconds = np.zeros(rows)
        if used:
            counts[:used] = self._counts[:used]
            raw_counts[:used] = self._raw_counts[:used]
            seconds[:used] = self._seconds[:used]
        self._counts, self._raw_counts, self._seconds = counts, raw_counts, seconds
