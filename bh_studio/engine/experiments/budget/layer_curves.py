"""What a rule costs where it decides in one layer alone: divergence against mean experts.

For each layer and each of several rules, the text is read with every other layer as the model has
it. What enters the layer is then known, and the layers before it need not be run again.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bh_studio.engine.errors import Cancelled, CancelToken, EngineError
from bh_studio.engine.experiments.stages import Stepped
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.moe.replacement import Replacement
from bh_studio.engine.moe.routers import RouterForward, find_routers
from bh_studio.engine.routing.selection import RoutingRule
from bh_studio.engine.rules.parameters import RuleParameters


class _InOneLayer:
    """Stands in for the router of `layer`: `rule` selects, and `counts` (token,) is what it used.

    Every other router stays what it is.
    """

    def __init__(self, layer: int, rule: RoutingRule) -> None:
        self.layer, self.rule = layer, rule
        self.counts = torch.empty(0)

    def __call__(
        self, original: RouterForward, hidden_states: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        logits, own_weights, _ = original(hidden_states)
        indices, weights, self.counts, _ = self.rule.select(self.layer, logits)
        return logits, weights.to(own_weights.dtype), indices


def curves_in(
    loaded: LoadedModel, ids: Tensor, grid: Sequence[RuleParameters], cancel: CancelToken
) -> Generator[Stepped, None, np.ndarray]:
    """What each rule of `grid` uses in each layer alone, and what that costs, in one window.

    ids: (token,), the window. Returns (layer, rule, 2) float64, sums over its tokens: experts used
    in the layer, and KL(baseline || rule) in nats. Raises Cancelled between two passes, EngineError
    if the model's output is not finite; the model is as it was.
    """
    rules = [RoutingRule(p, loaded.recording, loaded.shape) for p in grid]
    sums = np.zeros((loaded.shape.layers, len(rules), 2))
    with torch.inference_mode():
        entering, baseline = _native(loaded, ids)
    for layer, states in enumerate(entering):
        for number, rule in enumerate(rules):
            if cancel.is_cancelled:
                raise Cancelled
            router = _InOneLayer(layer, rule)
            with torch.inference_mode(), _only_from(loaded, layer, router):
                log_p = _log_probabilities(loaded, inputs_embeds=states)
                divergence = (baseline.exp() * (baseline - log_p)).sum(-1).double().sum()
            sums[layer, number] = router.counts.double().sum().item(), divergence.item()
            yield Stepped(1)
    if not np.isfinite(sums).all():
        raise EngineError(
            "The model gives probabilities that are not finite, so nothing can be compared.",
            "The checkpoint is damaged, or this number format is too narrow for it.",
        )
    return sums


def _native(loaded: LoadedModel, ids: Tensor) -> tuple[list[Tensor], Tensor]:
    """What enters each layer with a router, (1, token, hidden), and the log-probabilities that
    come out."""
    entering: list[Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _module, arguments: entering.append(arguments[0]))
        for _, layer in _routed_layers(loaded)
    ]
    try:
        baseline = _log_probabilities(loaded, input_ids=ids[None].to(loaded.model.device))
    finally:
        for hook in hooks:
            hook.remove()
    return entering, baseline


def _log_probabilities(loaded: LoadedModel, **inputs: Tensor) -> Tensor:
    """Of the next token at every position: (token, vocabulary) float32."""
    logits: Tensor = loaded.model(**inputs, use_cache=False).logits[0]
    return logits.log_softmax(-1, torch.float32)


@contextmanager
def _only_from(loaded: LoadedModel, layer: int, router: _InOneLayer) -> Iterator[None]:
    """The model with the layers before `layer` handing on what they get, and `router` in it."""
    replacements = [
        Replacement(before, lambda _original, states, *_args, **_keywords: states)
        for before in _decoder_layers(loaded)[: _routed_layers(loaded)[layer][0]]
    ]
    replacements.append(Replacement(find_routers(loaded.model)[layer], router))
    for replacement in replacements:
        replacement.apply()
    try:
        yield
    finally:
        for replacement in replacements:
            replacement.undo()


def _decoder_layers(loaded: LoadedModel) -> list[Any]:
    return list(loaded.model.base_model.layers)


def _routed_layers(loaded: LoadedModel) -> list[tuple[int, Any]]:
    """The layers that have a router, each with its place among all; dense ones have none."""
    routers = {id(router) for router in find_routers(loaded.model)}
    return [
        (place, layer)
        for place, layer in enumerate(_decoder_layers(loaded))
        if any(id(module) in routers for module in layer.modules())
    ]
