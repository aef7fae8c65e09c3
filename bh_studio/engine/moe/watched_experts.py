"""Seeing which work experts really do for each position, whoever has selected them."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from bh_studio.engine.moe.expert_rows import ExpertRows
from bh_studio.engine.moe.expert_weights import find_experts
from bh_studio.engine.moe.replacement import Replacement


class WatchedExperts:
    """Inside its `with` blocks, counts the experts that run in each layer of `model`.

    Looks at two places, neither of which knows a rule: the activation, through which one row goes
    for each expert that is computed (see ExpertRows), and the weights that the experts of a layer
    are given. Rows of several positions go through the activation together, so only the weights
    say which position had how many; where one position is read alone the activation says it.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        experts = find_experts(model)
        self._computed = ExpertRows(model)
        self._given: list[Tensor | None] = [None] * len(experts)
        self._former = [0] * len(experts)
        self._replacements = [
            Replacement(module, self._looking(layer)) for layer, module in enumerate(experts)
        ]

    def __enter__(self) -> Self:
        self._computed.__enter__()
        for replacement in self._replacements:
            replacement.apply()
        return self

    def __exit__(self, *error: object) -> None:
        for replacement in reversed(self._replacements):
            replacement.undo()
        self._computed.__exit__(*error)

    def taken(self, positions: int) -> tuple[np.ndarray, np.ndarray]:
        """What has run since this was asked last, while `positions` were read in one pass.

        The experts of each position, (position, layer), and the rows that were computed, (layer,),
        both int64.
        """
        computed = np.array(self._computed.rows) - self._former
        self._former = list(self._computed.rows)
        given, self._given = self._given, [None] * len(self._given)
        if positions == 1:
            return computed[None], computed
        none = np.zeros(positions, dtype=np.int64)
        columns = [none if counts is None else counts.cpu().numpy() for counts in given]
        return np.stack(columns, axis=1), computed

    def _looking(self, layer: int) -> Any:
        def look(
            original: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor
        ) -> Tensor:
            self._given[layer] = (top_k_weights != 0).sum(-1)
            output: Tensor = original(hidden_states, top_k_index, top_k_weights)
            return output

        return look
