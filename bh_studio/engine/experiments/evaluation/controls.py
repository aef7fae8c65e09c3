"""Controls: routing that uses as many experts as a rule does and leaves out what the rule knows.

If a control loses as little as the rule, then it is not the rule that the quality comes from.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.selection import RoutingRule
from bh_studio.engine.rules.parameters import RouterShape, RuleParameters

_SEED = 0


class ShuffledCounts(RoutingRule):
    """The rule's own counts in each layer, dealt out at random to the tokens of a pass.

    Every layer keeps the rule's distribution of counts; which token gets which is chance.
    """

    def __init__(
        self,
        parameters: RuleParameters,
        recording: Recording | None,
        shape: RouterShape,
    ) -> None:
        super().__init__(parameters, recording, shape)
        # On the processor: the same draws on every device.
        self._generator = torch.Generator().manual_seed(_SEED)

    def _raw_counts(self, layer: int, scores: Tensor) -> Tensor:
        counts = super()._raw_counts(layer, scores)
        order = torch.randperm(len(counts), generator=self._generator)
        return counts[order.to(counts.device)]


class MixedTopK(RoutingRule):
    """Fixed top-k at any mean: each token gets the whole number below or above it, at random.

    means: (layer,), the mean experts of each layer, at most max_k of `parameters`, whose other
    values apply: the same mixing weights as the rule that is controlled.
    """

    def __init__(
        self,
        means: Sequence[float],
        parameters: RuleParameters,
        recording: Recording | None,
        shape: RouterShape,
    ) -> None:
        super().__init__(parameters, recording, shape)
        self._means = torch.tensor(means, dtype=torch.float64, device="cpu")
        self._generator = torch.Generator().manual_seed(_SEED)

    def _raw_counts(self, layer: int, scores: Tensor) -> Tensor:
        draws = torch.rand(len(scores), generator=self._generator, dtype=torch.float64)
        return (self._means[layer] + draws).floor().long().to(scores.device)
