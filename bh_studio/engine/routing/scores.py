"""What an expert is judged by: scores from the router logits of a layer. Knows no null, no rule."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from bh_studio.engine.routing.layer_tensors import LayerTensors
from bh_studio.engine.rules.parameters import ScoreName


class Scorer:
    """Scores of the experts of each layer.

    temperature: divides the logits before the softmax. factors: what was measured, by score:
    (layer, expert) float32.

    Raises ValueError for a score whose factor was not measured.
    """

    def __init__(
        self,
        name: ScoreName,
        temperature: float = 1.0,
        factors: Mapping[ScoreName, Tensor] = MappingProxyType({}),
    ) -> None:
        if name.has_factor and name not in factors:
            raise ValueError(
                f"The score {name} needs a factor of each expert that was not measured. Measure it "
                f"with bh-studio calibrate --score {name}, or use another score."
            )
        self.name = name
        self.temperature = temperature
        # Whether the score is the very probability that gives the mixing weights.
        self.is_probability = name is ScoreName.PROBABILITY and temperature == 1.0
        self._factors = LayerTensors(factors[name]) if name in factors else None

    def __call__(self, layer: int, logits: Tensor) -> Tensor:
        """Scores of `layer` in float32, of the shape of `logits`: (..., expert)."""
        if self.name is ScoreName.LOGIT:
            return logits.float() / self.temperature
        probabilities = torch.softmax(logits.float() / self.temperature, dim=-1)
        if self._factors is None:
            return probabilities
        return probabilities * self._factors.on(logits.device, layer)

    def of_all_layers(self, logits: Tensor) -> Tensor:
        """Scores of (layer, token, expert) logits, of the same shape, float32."""
        return torch.stack([self(layer, of_layer) for layer, of_layer in enumerate(logits)])

    def on_open_scale(self, scores: Tensor) -> Tensor:
        """`scores` where a normal distribution can make sense: logits as they are, else the log."""
        return scores if self.name is ScoreName.LOGIT else scores.clamp(min=0).log()
