"""What every way of computing the next token of one side has in common.

Knows neither models nor devices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules
from transformers import DynamicCache

from bh_studio.engine.decoding.decided import Decided

# Logits (1, vocabulary) to the next token, (1, 1) int64 on the same device.
Choose = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class DecodedToken:
    """One token that a step has produced.

    raw_counts: (1, layer) uint8, what the side's rule selected before min_k and max_k while the
    former token was read; None for a side without a rule. seconds: computing time of the step.
    decided: None where it is not recorded.
    """

    token_id: int
    raw_counts: np.ndarray | None
    seconds: float
    decided: Decided | None = None


class PendingToken(Protocol):
    """A token that is being computed."""

    def wait(self) -> DecodedToken:
        """The token, once it is there. To be called once, in the order of submission.

        It also enters the statistics of the side's integration here, so that a token that was
        computed and not wanted is never counted.
        """


class DecodeStep(Protocol):
    """Reads one token after another for one side and chooses the next, on a cache of its own.

    runs_ahead: `submit` returns before the token is there, so that the next step can be submitted
    before the former token has been waited for. Otherwise the token is there when it returns.
    """

    runs_ahead: bool

    def start(self, cache: DynamicCache, token: Tensor, room: int) -> None:
        """Go on after a prompt.

        cache: keys and values of the prompt, which this step takes over. token: (1, 1) int64, the
        first token after it, not yet read. room: tokens that may be read from here on at most.
        """

    def submit(self) -> PendingToken:
        """Read the last token chosen, and choose the next."""

    def close(self) -> None:
        """Give buffers back; the step is over."""


def hook_problem(model: nn.Module) -> str:
    """What runs besides, or instead of, the forwards of the modules of `model`; empty if nothing.

    A way to decode that does not call them one by one would leave it out.
    """
    if torch_modules._has_any_global_hook():
        return "PyTorch calls a hook in every module"
    for name, module in model.named_modules():
        called, attributes = name or "the model", vars(module)
        if "forward" in attributes or attributes.get("_compiled_call_impl") is not None:
            return f"the forward of {called} was replaced"
        if attributes["_forward_hooks"] or attributes["_forward_pre_hooks"]:
            return f"{called} has a forward hook"
    return ""
