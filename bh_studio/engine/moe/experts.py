"""Expert computation that runs only the selected experts.

transformers' own computations run every slot they are given, also those with weight 0, so a rule
that selects fewer experts would save nothing. This one drops such slots before any product. It is
registered with transformers' experts interface and chosen with `use_selected_experts(model)`.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from bh_studio.engine.moe import experts_cpu
from bh_studio.engine.moe.expert_weights import Experts, find_experts, gated

NAME = "bh_selected"


def selected_experts_forward(
    self: Experts, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor
) -> Tensor:
    """Weighted sum of the outputs of the experts whose weight is not zero.

    hidden_states: (token, hidden). top_k_index, top_k_weights: (token, slot). Returns
    (token, hidden). The signature is that of transformers' experts interface; `self` is the
    experts module. Outputs are weighted and added up in float32, those of one token in an order
    that does not depend on other tokens.
    """
    if hidden_states.is_cuda:
        from bh_studio.engine.moe import experts_cuda

        return experts_cuda.forward(self, hidden_states, top_k_index, top_k_weights)
    return experts_cpu.forward(self, hidden_states, top_k_index, top_k_weights)


def expert_output(experts: Experts, rows: Tensor, index: int) -> Tensor:
    """What expert `index` makes of `rows`, (row, hidden)."""
    hidden = gated(experts, F.linear(rows, experts.gate_up_proj[index]))
    return F.linear(hidden, experts.down_proj[index])


def use_selected_experts(model: PreTrainedModel) -> None:
    """Make `model` compute its experts here."""
    model.set_experts_implementation(NAME)


def expert_path(model: PreTrainedModel) -> str:
    """How `model` computes the experts of a token after the prompt, in words for people."""
    chosen = getattr(model.config, "_experts_implementation", None)
    if chosen != NAME:
        return f"all slots, by transformers ({chosen})"
    experts = find_experts(model)[0]
    if experts.gate_up_proj.is_cuda:
        from bh_studio.engine.moe import experts_cuda

        return experts_cuda.describe(model)
    return experts_cpu.describe(experts)


ALL_EXPERTS_FUNCTIONS.register(NAME, selected_experts_forward)
