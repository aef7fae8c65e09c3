"""Controls: routing that uses as many experts as a rule does and leaves out what the rule knows.

If a control loses as little as the rule, then it is not the rule that the quality comes from. What
is drawn depends on the window and the layer alone, so it is the same in whatever order windows are
read, and on every device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.selection import RoutingRule
from bh_studio.engine.rules.parameters import RouterShape, RuleParameters

_SEED = 0


class DrawnByWindow(RoutingRule):
    """A rule that draws random numbers.

    windows: places, among all windows of the evaluation, of those that the pass reads; to be set
    before each. The rows of a pass are those of its windows, one window after the other.
    """

    windows: Sequence[int] = (0,)

    def _generators(self, layer: int) -> list[torch.Generator]:
        """One for each window of the pass, on the processor."""
        return [
            torch.Generator().manual_seed(
                int(np.random.SeedSequence((_SEED, window, layer)).generate_state(1, np.uint64)[0])
                >> 1
            )
            for window in self.windows
        ]


class ShuffledCounts(DrawnByWindow):
    """The rule's own counts in each layer, dealt out at random to the tokens of a window.

    Every window keeps the rule's distribution of counts; which token gets which is chance.
    """

    def _raw_counts(self, layer: int, scores: Tensor) -> Tensor:
        counts = super()._raw_counts(layer, scores)
        rows = len(counts) // len(self.windows)
        order = torch.cat(
            [
                number * rows + torch.randperm(rows, generator=generator)
                for number, generator in enumerate(self._generators(layer))
            ]
        )
        return counts[order.to(counts.device)]


class MixedTopK(DrawnByWindow):
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

    def _raw_counts(self, layer: int, scores: Tensor) -> Tensor:
        rows = len(scores) // len(self.windows)
        draws = torch.cat(
            [
                torch.rand(rows, generator=generator, dtype=torch.float64)
                for generator in self._generators(layer)
            ]
        )
        return (self._means[layer] + draws).floor().long().to(scores.device)
