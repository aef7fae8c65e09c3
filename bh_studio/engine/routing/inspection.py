"""What a rule sees and does at one position, layer by layer, with the rule's own numbers.

Works on router logits as they were recorded, on the processor. Knows no model.
"""

from __future__ import annotations

import numpy as np

from bh_studio.engine.records.decisions.token_inspection import InspectedLayer
from bh_studio.engine.routing.criteria import CRITERIA
from bh_studio.engine.routing.recordings import checked_logits
from bh_studio.engine.routing.selection import RoutingRule


def inspect_layers(
    rule: RoutingRule, logits: np.ndarray, has_weights: bool = True
) -> tuple[InspectedLayer, ...]:
    """What `rule` does with `logits`, (layer, expert) of floating dtype, in each layer.

    has_weights: whether its shape says how the model scales mixing weights. Raises ValueError for
    logits that are not finite.
    """
    values = checked_logits(np.array(logits[:, None]))
    draw = CRITERIA[rule.parameters.rule](rule.context)
    layers = []
    for layer, row in enumerate(values):
        found = rule.judge(layer, row)
        selection = found.selection
        count, scores = int(selection.counts), found.scores[0]
        p_values = None if found.p_values is None else found.p_values[0]
        order = _order(found.order[0].numpy(), selection.indices[0].numpy())
        layers.append(
            InspectedLayer(
                experts=order,
                probabilities=found.probabilities[0].numpy()[order],
                scores=scores.numpy()[order],
                p_values=None if p_values is None else p_values.numpy()[order],
                criterion=draw(layer, scores, p_values),
                raw_count=int(selection.raw_counts),
                count=count,
                weights=selection.weights[0, :count].numpy() if has_weights else None,
            )
        )
    return tuple(layers)


def _order(order: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """`order` with those that are `taken` before the others: of equals any may come first."""
    is_taken = np.zeros(len(order), bool)
    is_taken[taken] = True
    return np.concatenate([taken, order[~is_taken[order]]])
