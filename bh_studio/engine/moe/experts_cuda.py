"""Expert computation on CUDA devices that runs only the selected experts. Knows no routers.

A few rows go through Triton kernels where they can run; other rows through grouped products, whose
groups leave out the slots of weight 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from bh_studio.engine.kernels.triton_support import LONGEST_ROW, launching_on, triton_problem
from bh_studio.engine.moe.expert_weights import Experts, find_experts, gated

# More rows share experts, which the kernels would read once a row.
FEW_ROWS = 4
# The classes under which transformers and PyTorch have it.
_SILU = ("SiLU", "SiLUActivation")
# From here on PyTorch makes grouped products in bfloat16 by one kernel, others one by one.
_GROUPED_ON_DEVICE = (9, 0)


def forward(experts: Experts, rows: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """See experts.selected_experts_forward."""
    if rows.shape[0] <= FEW_ROWS and not (_kernel_problem(experts) or _is_watched(experts)):
        return few_rows(experts, rows, indices, weights)
    return many_rows(experts, rows, indices, weights)


def describe(model: PreTrainedModel) -> str:
    """What `forward` does for the experts of `model`, in words for people."""
    problem = _kernel_problem(find_experts(model)[0])
    if problem:
        return f"selected experts, grouped products ({problem})"
    return f"selected experts, Triton kernels up to {FEW_ROWS} rows, grouped products above"


def capture_problem(model: PreTrainedModel) -> str:
    """Why `forward` of one row waits for the host, which a CUDA graph cannot; empty if not."""
    matrix = find_experts(model)[0].gate_up_proj
    if not _kernel_problem(find_experts(model)[0]):
        return ""
    capability = torch.cuda.get_device_capability(matrix.device)
    if matrix.dtype == torch.bfloat16 and capability >= _GROUPED_ON_DEVICE:
        return ""
    return "grouped products of this GPU and dtype wait for the host"


def few_rows(experts: Experts, rows: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """The same by kernels; experts of weight 0 are not read. Waits for nothing."""
    import triton

    from bh_studio.engine.kernels import expert_kernels

    (count, size), slots = rows.shape, indices.shape[1]
    width = experts.down_proj.shape[-1]
    rows, indices, weights = rows.contiguous(), indices.contiguous(), weights.contiguous()
    activated = rows.new_empty(count, slots, width)
    result = torch.empty_like(rows)
    pairs, at_once = count * slots, 4
    with launching_on(rows.device):
        expert_kernels.gate_up[(pairs * triton.cdiv(width, at_once),)](
            rows, indices, weights, indices, experts.gate_up_proj, activated, pairs,
            SLOTS=slots, SIZE=size, PADDED=triton.next_power_of_2(size), WIDTH=width,
            BLOCK=at_once, ONE_ROW=False, DEPENDENT=False, num_warps=4,
        )  # fmt: skip
        expert_kernels.down[(triton.cdiv(size, at_once), count)](
            activated, indices, weights, indices, experts.down_proj, result, slots,
            SLOTS=slots, SIZE=size, WIDTH=width, PADDED=triton.next_power_of_2(width),
            BLOCK=at_once, SLOT_BLOCK=2, ONE_ROW=False, DEPENDENT=False, num_warps=2,
        )  # fmt: skip
    return result


def many_rows(experts: Experts, rows: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """The same by grouped products. Waits for the device once, except while a graph is captured."""
    slots, count = indices.shape[1], experts.gate_up_proj.shape[0]
    weight = weights.reshape(-1)
    # Slots of weight 0 come last, in a group of their own that no product looks at.
    group = indices.reshape(-1).masked_fill(weight == 0, count)
    group, order = group.sort(stable=True)
    ends = torch.searchsorted(group, torch.arange(count, device=group.device), right=True)
    ends = ends.to(torch.int32)
    if not torch.cuda.is_current_stream_capturing():
        order = order[: int(ends[-1])]
    used = torch.arange(len(order), device=order.device) < ends[-1]
    projected = F.grouped_mm(rows[order // slots], experts.gate_up_proj.transpose(1, 2), offs=ends)
    hidden = gated(experts, projected)
    output = F.grouped_mm(hidden, experts.down_proj.transpose(1, 2), offs=ends)
    # What lies beyond the groups was never written, and may be anything.
    output.masked_fill_(~used[:, None], 0.0)
    of_slot = output.new_zeros(weight.numel(), rows.shape[1]).index_copy_(0, order, output)
    of_slot = of_slot.view(*indices.shape, -1)
    # One slot after another: all of them in float32 at once would take several times the memory.
    total = torch.zeros_like(rows, dtype=torch.float32)
    for slot in range(slots):
        total += of_slot[:, slot] * weights[:, slot, None].float()
    return total.to(rows.dtype)


def _kernel_problem(experts: Experts) -> str:
    matrix = experts.gate_up_proj
    problem = triton_problem(matrix.device)
    if problem:
        return problem
    activation = type(experts.act_fn).__name__
    if activation not in _SILU:
        return f"the experts' activation is {activation}"
    if max(matrix.shape[-1], experts.down_proj.shape[-1]) > LONGEST_ROW:
        return f"rows of the experts are longer than {LONGEST_ROW}"
    return ""


def _is_watched(experts: Experts) -> bool:
    """Whether somebody looks at the activation, which the kernels do not call."""
    hooks = vars(experts.act_fn)
    return bool(hooks["_forward_pre_hooks"] or hooks["_forward_hooks"])
