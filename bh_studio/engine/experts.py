"""Expert computation that runs only the selected experts.

transformers' own computations run every slot they are given, also those with weight 0, so a rule
that selects fewer experts would save nothing. This one drops such slots before any product. It is
registered with transformers' experts interface and chosen with `use_selected_experts(model)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

NAME = "bh_selected"

# Up to this size of one expert's weights it is faster to copy the selected experts next to each
# other and multiply once; above it the copy would cost as much as the product itself.
_GATHER_LIMIT_BYTES = 2**20


class Experts(Protocol):
    """The experts of one layer: gate_up_proj (expert, 2 * width, hidden), down_proj (expert,
    hidden, width), act_fn the activation of the gate."""

    gate_up_proj: Tensor
    down_proj: Tensor
    act_fn: Callable[[Tensor], Tensor]


def selected_experts_forward(
    self: Experts, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor
) -> Tensor:
    """Weighted sum of the outputs of the experts whose weight is not zero.

    hidden_states: (token, hidden). top_k_index, top_k_weights: (token, slot). Returns
    (token, hidden). The signature is that of transformers' experts interface; `self` is the
    experts module. Slots are added up in float32.
    """
    if hidden_states.shape[0] == 1:
        return _one_row(self, hidden_states, top_k_index[0], top_k_weights[0])
    return _many_rows(self, hidden_states, top_k_index, top_k_weights)


def find_experts(model: PreTrainedModel) -> list[Experts]:
    """The experts modules of `model` in layer order."""
    found = [
        m for m in model.modules() if {"gate_up_proj", "down_proj"} <= vars(m)["_parameters"].keys()
    ]
    return cast(list[Experts], found)


def expert_output(experts: Experts, rows: Tensor, index: int) -> Tensor:
    """What expert `index` makes of `rows`, (row, hidden)."""
    hidden = _gate(experts, F.linear(rows, experts.gate_up_proj[index]))
    return F.linear(hidden, experts.down_proj[index])


def use_selected_experts(model: PreTrainedModel) -> None:
    """Make `model` compute its experts here."""
    model.set_experts_implementation(NAME)


def _one_row(experts: Experts, row: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    if int(weights.count_nonzero()) < weights.numel():
        used = weights.nonzero().squeeze(1)
        if not len(used):
            return torch.zeros_like(row)
        indices, weights = indices[used], weights[used]
    gate_up, down = experts.gate_up_proj, experts.down_proj
    if gate_up[0].nbytes + down[0].nbytes <= _GATHER_LIMIT_BYTES:
        chosen = gate_up.index_select(0, indices)
        projected = F.linear(row, chosen.flatten(0, 1)).view(len(indices), -1)
        hidden = _gate(experts, projected)
        outputs = torch.bmm(down.index_select(0, indices), hidden.unsqueeze(-1)).squeeze(-1)
        return torch.mm(weights.float()[None], outputs.float()).to(row.dtype)
    total = torch.zeros_like(row, dtype=torch.float32)
    for expert, weight in zip(indices.tolist(), weights, strict=True):
        total += expert_output(experts, row, expert).float() * weight
    return total.to(row.dtype)


def _many_rows(experts: Experts, rows: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    token, slot = weights.nonzero(as_tuple=True)
    expert = indices[token, slot]
    order = expert.argsort(stable=True)
    token, slot = token[order], slot[order]
    used, sizes = expert[order].unique_consecutive(return_counts=True)
    # One place a (token, slot), so that slots are added in slot order whatever the grouping.
    outputs = rows.new_zeros(*weights.shape, rows.shape[1], dtype=torch.float32)
    start = 0
    for index, size in zip(used.tolist(), sizes.tolist(), strict=True):
        at = token[start : start + size], slot[start : start + size]
        result = expert_output(experts, rows[at[0]], index)
        outputs[at] = result.float() * weights[at].unsqueeze(-1)
        start += size
    return outputs.sum(dim=1).to(rows.dtype)


def _gate(experts: Experts, projected: Tensor) -> Tensor:
    gate, up = projected.chunk(2, dim=-1)
    return experts.act_fn(gate) * up


ALL_EXPERTS_FUNCTIONS.register(NAME, selected_experts_forward)
