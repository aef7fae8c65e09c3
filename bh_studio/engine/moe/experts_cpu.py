"""Expert computation on the CPU, and wherever there is none of its own, with the selected experts.

One row: products of the weights where they lie, the fastest there are here. Many rows: one product
an expert for all rows that selected it. Knows no routers and no models.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from bh_studio.engine.moe.expert_weights import gated
from bh_studio.engine.moe.row_products import fastest_row_product

if TYPE_CHECKING:
    from bh_studio.engine.moe.expert_weights import Experts

# Up to this size of one expert's weights calling its products takes longer than making them. Above
# it, what one product for several experts needs would: a copy of their weights, or of all rows.
_SMALL_EXPERT_BYTES = 2**20
# Addresses that torch's grouped product starts rows at are multiples of this.
_GROUPED_ALIGNMENT = 16
# Rows of experts that are worked on together, so that a short prompt costs few operations.
_BLOCK_ROWS = 2048


def forward(experts: Experts, rows: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """See experts.selected_experts_forward."""
    if rows.shape[0] == 1:
        return _one_row(experts, rows, indices[0], weights[0])
    return _many_rows(experts, rows, indices, weights)


def describe(experts: Experts) -> str:
    """What `forward` does for one row, in words for people."""
    if _are_small(experts):
        return "selected experts, copied together for one product"
    product = fastest_row_product(experts.gate_up_proj)
    return f"selected experts, one product each ({product.name})"


def _one_row(experts: Experts, row: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    if int(weights.count_nonzero()) < weights.numel():
        used = weights.nonzero().squeeze(1)
        if not len(used):
            return torch.zeros_like(row)
        indices, weights = indices[used], weights[used]
    outputs = _outputs_of_small if _are_small(experts) else _outputs_of_large
    return torch.mm(weights.float()[None], outputs(experts, row, indices).float()).to(row.dtype)


def _outputs_of_small(experts: Experts, row: Tensor, indices: Tensor) -> Tensor:
    """What each of the experts `indices` makes of one row, (expert, hidden)."""
    gate_up = experts.gate_up_proj.index_select(0, indices)
    hidden = gated(experts, F.linear(row, gate_up.flatten(0, 1)).view(len(indices), -1))
    down = experts.down_proj.index_select(0, indices)
    # A row times a matrix: the other way round, a matrix times a column, takes four times as long.
    return torch.bmm(hidden.unsqueeze(1), down.transpose(1, 2)).squeeze(1)


def _outputs_of_large(experts: Experts, row: Tensor, indices: Tensor) -> Tensor:
    """The same, with products of the weights where they lie."""
    numbers = indices.tolist()
    product = fastest_row_product(experts.gate_up_proj)
    with product.in_force():
        projected = [product.linear(row, experts.gate_up_proj[number]) for number in numbers]
        hidden = gated(experts, torch.cat(projected)).split(1)
        outputs = [
            product.linear(own, experts.down_proj[number])
            for own, number in zip(hidden, numbers, strict=True)
        ]
    return torch.cat(outputs)


def _many_rows(experts: Experts, rows: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    token, slot = weights.nonzero(as_tuple=True)
    expert, order = indices[token, slot].sort(stable=True)
    token, slot = token[order], slot[order]
    shares = weights[token, slot].float().unsqueeze(1)
    total = torch.zeros_like(rows, dtype=torch.float32)
    add = _add_small if _can_group(experts) else _add_large
    add(total, experts, rows, expert, token, shares)
    return total.to(rows.dtype)


# Each of the two adds to `total`, (token, hidden) float32, the outputs of some pairs of expert and
# token, ordered by expert: so a token's outputs are added in the order of the experts, whatever
# other tokens there are. expert, token: (pair,). shares: (pair, 1) float32, the weights.


def _add_small(
    total: Tensor, experts: Experts, rows: Tensor, expert: Tensor, token: Tensor, shares: Tensor
) -> None:
    count = experts.gate_up_proj.shape[0]
    ends = torch.bincount(expert, minlength=count).cumsum(0).to(torch.int32)
    gate_up, down = experts.gate_up_proj.transpose(1, 2), experts.down_proj.transpose(1, 2)
    hidden = gated(experts, F.grouped_mm(rows[token], gate_up, offs=ends))
    total.index_add_(0, token, F.grouped_mm(hidden, down, offs=ends) * shares)


def _add_large(
    total: Tensor, experts: Experts, rows: Tensor, expert: Tensor, token: Tensor, shares: Tensor
) -> None:
    used, counts = expert.unique_consecutive(return_counts=True)
    numbers, sizes = used.tolist(), counts.tolist()
    # What is made of the rows of one block is in memory at once, whatever the length of a prompt.
    # Other devices than the CPU may add the rows of one token, all in one block, in any order.
    for block in _blocks(sizes, _BLOCK_ROWS if rows.is_cpu else 1):
        groups = numbers[block], sizes[block]
        begin = sum(sizes[: block.start])
        pairs = slice(begin, begin + sum(groups[1]))
        own = token[pairs]
        hidden = gated(experts, _products(rows[own], experts.gate_up_proj, *groups))
        output = _products(hidden, experts.down_proj, *groups)
        total.index_add_(0, own, output * shares[pairs])


def _blocks(sizes: list[int], most: int) -> Iterator[slice]:
    """Neighbouring groups of these sizes, of at most so many rows together or one at a time."""
    begin, rows = 0, 0
    for group, size in enumerate(sizes):
        if group > begin and rows + size > most:
            yield slice(begin, group)
            begin, rows = group, 0
        rows += size
    if sizes:
        yield slice(begin, len(sizes))


def _products(rows: Tensor, weights: Tensor, numbers: list[int], sizes: list[int]) -> Tensor:
    """Each group of rows times the weight of its number. rows: (row, in), group after group."""
    product = fastest_row_product(weights)
    results = []
    for number, group in zip(numbers, rows.split(sizes), strict=True):
        if len(group) == 1:
            with product.in_force():
                results.append(product.linear(group, weights[number]))
        else:
            results.append(F.linear(group, weights[number]))
    return torch.cat(results)


def _are_small(experts: Experts) -> bool:
    bytes_of_all = experts.gate_up_proj.nbytes + experts.down_proj.nbytes
    return bytes_of_all <= _SMALL_EXPERT_BYTES * experts.gate_up_proj.shape[0]


def _can_group(experts: Experts) -> bool:
    """Whether the experts are small, and torch's grouped product takes their shapes."""
    return _are_small(experts) and all(
        weight.is_cpu and weight.shape[-1] * weight.itemsize % _GROUPED_ALIGNMENT == 0
        for weight in (experts.gate_up_proj, experts.down_proj)
    )
