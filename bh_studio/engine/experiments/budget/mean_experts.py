"""How many experts a rule uses: measured by reading texts, or estimated without a model.

Only counts are wanted, so no probability of a next token is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.routing.selection import RoutingRule
from bh_studio.engine.rules.parameters import RuleName, RuleParameters

# Recorded tokens that an estimate looks at: a start for a search needs no more.
_ESTIMATE_TOKENS = 512


class UnreportedRule(RoutingRule):
    """A rule that is only tried: that its null is small is said once, of the one that is kept."""

    def shortage(self) -> str | None:
        return None


@torch.inference_mode()
def measured_means(
    loaded: LoadedModel,
    inputs: Sequence[Tensor],
    parameters: RuleParameters,
    before_window: Callable[[], None],
) -> np.ndarray:
    """Mean experts of each layer, (layer,) float64, while the rule `parameters` routes.

    inputs: windows of token ids, (token,) each. before_window: called before each is read; what it
    raises ends the measurement, and the model is as it was.
    """
    integration = RoutingIntegration(
        loaded.model, parameters, recording=loaded.recording, make_rule=UnreportedRule
    )
    with integration:
        for ids in inputs:
            before_window()
            # One at a time: on a processor, more would not fit into its caches.
            loaded.model.base_model(ids[None].to(loaded.model.device), use_cache=False)
    return np.array(integration.get_routing_stats()["per_layer_mean"])


class Replay:
    """What rules would select for the router logits that the null was fitted on.

    An estimate: the text is another one, and a layer does not see what a rule does to the others.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._null, self._shape = loaded.recording, loaded.shape
        step = max(1, loaded.recording.logits.shape[1] // _ESTIMATE_TOKENS)
        self._logits = loaded.recording.logits[:, ::step]

    def means(self, parameters: RuleParameters) -> np.ndarray:
        """Mean experts of each layer, (layer,) float64."""
        if parameters.rule is RuleName.STOREY:
            # It estimates pi0 anew for each level, which takes seconds, and is nearly BH.
            parameters = replace(parameters, rule=RuleName.BH)
        rule = RoutingRule(parameters, self._null, self._shape)
        counts = (rule.counts(layer, logits)[0] for layer, logits in enumerate(self._logits))
        return np.array([float(of_layer.double().mean()) for of_layer in counts])
