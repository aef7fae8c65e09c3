"""Drawing a token from logits, with transformers' own processors. Knows no model."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from bh_studio.engine.decoding.decided import not_finite
from bh_studio.engine.records.terms import GenerationParameters

# Divided by less, logits may exceed what float32 holds, and then no probability is a number.
_LEAST_DIVISOR = 1e-30


class _NearlyGreedy(LogitsProcessor):
    """Division by a temperature below _LEAST_DIVISOR of what the logits lie below the largest: that
    changes no probability, and what overflows has the probability 0."""

    def __init__(self, temperature: float) -> None:
        # Less is 0 in float32; the largest logit stays 0 as long as this is not.
        self._temperature = max(temperature, torch.finfo(torch.float32).tiny)

    def __call__(self, _text: Tensor, logits: Tensor) -> Tensor:
        return (logits - logits.amax(-1, keepdim=True)) / self._temperature


class SampledToken:
    """A step.Choose that draws as transformers' sampling loop does, with a seed of its own.

    device: where the logits lie that it is called with.
    """

    def __init__(self, parameters: GenerationParameters, device: torch.device) -> None:
        is_small = parameters.temperature < _LEAST_DIVISOR
        warper = _NearlyGreedy if is_small else TemperatureLogitsWarper
        self._processors = LogitsProcessorList([warper(parameters.temperature)])
        if parameters.top_p < 1.0:
            self._processors.append(TopPLogitsWarper(parameters.top_p))
        self._generator = torch.Generator(device).manual_seed(parameters.seed)
        # The processors are handed the text so far; neither of these looks at it.
        self._text = torch.empty((1, 0), dtype=torch.int64, device=device)

    def __call__(self, logits: Tensor) -> Tensor:
        """The next token, (1, 1) int64. logits: (1, vocabulary).

        Raises EngineError where they are not finite, as those of a damaged checkpoint.
        """
        # float32 and the processors' order are those of transformers' sampling loop.
        scores = self._processors(self._text, logits.to(torch.float32, copy=True))
        probabilities = torch.softmax(scores, dim=-1)
        try:
            return torch.multinomial(probabilities, num_samples=1, generator=self._generator)
        except RuntimeError as error:
            if torch.isfinite(logits).all():
                raise
            raise not_finite() from error
