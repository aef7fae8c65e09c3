"""One round of a benchmark: what was timed in it. Knows JSON, no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bh_studio.engine.records.benchmark.result import RouterTimes


@dataclass(frozen=True, slots=True)
class TimedAnswer:
    """One answer. token_seconds: (token,), when each was there, since the answer was asked for.

    mean_experts: of a token in a layer while decoding, the prompt left out; nan for an answer of
    one token. expert_path: the expert computation that ran.
    """

    token_seconds: tuple[float, ...]
    mean_experts: float
    expert_path: str

    @property
    def decode_seconds(self) -> float:
        """From the first token to the last."""
        return self.token_seconds[-1] - self.token_seconds[0]


@dataclass(frozen=True, slots=True)
class RoundRow:
    """Everything that was measured once.

    answers: by contender, of at least two tokens. bytes_per_second: that memory gave; None where
    that is not measured. prefill_seconds: of stock and of ours for the long prompt; None without.
    """

    answers: Mapping[str, TimedAnswer]
    router_times: RouterTimes
    bytes_per_second: float | None
    prefill_seconds: tuple[float, float] | None

    def to_json(self) -> dict[str, Any]:
        """The row by name."""
        return asdict(self)
