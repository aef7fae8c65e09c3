"""How many experts a rule uses: measured by reading texts, or estimated without a model.

Only counts are wanted, so no probability of a next token is computed.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bh_studio.engine.errors import Cancelled, CancelToken
from bh_studio.engine.experiments.stages import Stepped
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.routing.selection import RoutingRule
from bh_studio.engine.rules.parameters import RuleName, RuleParameters

# Recorded tokens that an estimate looks at: a start for a search needs no more.
_ESTIMATE_TOKENS = 512


def experts_used(
    loaded: LoadedModel, inputs: Sequence[Tensor], parameters: RuleParameters, cancel: CancelToken
) -> Generator[Stepped, None, np.ndarray]:
    """Experts that the rule `parameters` uses while it routes: (window, 1 + layer) int64.

    inputs: windows of token ids, (token,) each. A row is the tokens of a window, then the experts
    that they used in each layer together. Raises Cancelled between two windows; the model is as it
    was.
    """
    integration = RoutingIntegration(loaded.model, parameters, recording=loaded.recording)
    used = np.empty((len(inputs), 1 + loaded.shape.layers), dtype=np.int64)
    for number, ids in enumerate(inputs):
        if cancel.is_cancelled:
            raise Cancelled
        with integration, torch.inference_mode():
            # One at a time: on a processor, more would not fit into its caches.
            loaded.model.base_model(ids[None].to(loaded.model.device), use_cache=False)
        counts, _ = integration.last_counts()
        used[number] = len(ids), *counts.sum(0, dtype=np.int64)
        yield Stepped(1)
    return used


class Replay:
    """What rules would select for the router logits that the null was fitted on.

    An estimate: the text is another one, and a layer does not see what a rule does to the others.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._recording, self._shape = loaded.recording, loaded.shape
        step = max(1, loaded.recording.logits.shape[1] // _ESTIMATE_TOKENS)
        self._logits = loaded.recording.logits[:, ::step]

    def means(self, parameters: RuleParameters) -> np.ndarray:
        """Mean experts of each layer, (layer,) float64."""
        if parameters.rule is RuleName.STOREY:
            # It estimates pi0 anew for each level, which takes seconds, and is nearly BH.
            parameters = replace(parameters, rule=RuleName.BH)
        rule = RoutingRule(parameters, self._recording, self._shape)
        counts = (rule.counts(layer, logits)[0] for layer, logits in enumerate(self._logits))
        return np.array([float(of_layer.double().mean()) for of_layer in counts])
