"""Triton kernels that run the selected experts of a few rows; the others cost nothing.

Two kernels, for the second needs all of the first: gate and up projection with the activation
between them, and down projection with the weighted sum. A slot of weight 0 is not read. Knows
tensors and shapes, no model.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bh_studio.engine.kernels.decoder_kernels import matrix_rows, rounded, start_next, wait

# Arguments are grouped by kind, a line each.
# fmt: off


@triton.jit
def gate_up(
    rows, indices, weights, used, gate_up_weight, activated, pairs,
    SLOTS: tl.constexpr, SIZE: tl.constexpr, PADDED: tl.constexpr, WIDTH: tl.constexpr,
    BLOCK: tl.constexpr, ONE_ROW: tl.constexpr, DEPENDENT: tl.constexpr,
):
    """silu(gate row) * (up row) of each selected expert.

    rows: (row, SIZE). indices, weights: (row, SLOTS). gate_up_weight: (expert, 2 WIDTH, SIZE).
    activated: (row, SLOTS, WIDTH). pairs: rows * SLOTS. With ONE_ROW only the first used[0] slots
    are looked at. Any number of programs, which share the work.
    """
    columns = tl.arange(0, PADDED)
    blocks: tl.constexpr = (WIDTH + BLOCK - 1) // BLOCK
    wait(DEPENDENT)
    # Not before: `down` relies on the selection being there once it has started.
    start_next(DEPENDENT)
    if ONE_ROW:
        pairs = tl.load(used, cache_modifier=".cg")
    for item in range(tl.program_id(0), pairs * blocks, tl.num_programs(0)):
        pair = item // blocks
        expert = tl.load(indices + pair).to(tl.int64)
        if tl.load(weights + pair).to(tl.float32) != 0:
            outputs = (item % blocks) * BLOCK + tl.arange(0, BLOCK)
            gate_matrix = gate_up_weight + expert * (2 * WIDTH * SIZE)
            gate_rows = matrix_rows(gate_matrix, outputs, columns, WIDTH, SIZE)
            up_rows = matrix_rows(gate_matrix + WIDTH * SIZE, outputs, columns, WIDTH, SIZE)
            row = tl.load(rows + pair // SLOTS * SIZE + columns, mask=columns < SIZE, other=0.0)
            row = row.to(tl.float32)[None, :]
            gate = rounded(tl.sum(gate_rows.to(tl.float32) * row, axis=1), activated)
            up = rounded(tl.sum(up_rows.to(tl.float32) * row, axis=1), activated)
            gate = rounded(gate / (1 + tl.exp(-gate)), activated)
            tl.store(activated + pair * WIDTH + outputs, gate * up, mask=outputs < WIDTH)


@triton.jit
def _matrices(
    down_weight, indices, weights, pair, there, outputs, columns,
    SIZE: tl.constexpr, WIDTH: tl.constexpr,
):
    """Rows `outputs` of the down projections of some slots, (slot, output, column), the weights of
    the slots, and which of them are used. there: (slot,), which of the slots exist."""
    weight = tl.load(weights + pair, mask=there, other=0.0, cache_modifier=".cg").to(tl.float32)
    expert = tl.load(indices + pair, mask=there, other=0, cache_modifier=".cg").to(tl.int64)
    use = weight != 0
    rows = expert[:, None] * (SIZE * WIDTH) + outputs.to(tl.int64)[None, :] * WIDTH
    inside = (use[:, None] & (outputs < SIZE)[None, :])[:, :, None]
    inside = inside & (columns < WIDTH)[None, None, :]
    matrix = tl.load(
        down_weight + rows[:, :, None] + columns[None, None, :], mask=inside, other=0.0
    )
    return matrix, weight, use


@triton.jit
def down(
    activated, indices, weights, used, down_weight, result, slots,
    SLOTS: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr,
    BLOCK: tl.constexpr, SLOT_BLOCK: tl.constexpr, ONE_ROW: tl.constexpr, DEPENDENT: tl.constexpr,
):
    """The weighted sum of the experts' outputs, added up in float32 in the order of the slots.

    down_weight: (expert, SIZE, WIDTH). result: (row, SIZE), written; with ONE_ROW the state of the
    decoder, to which the sum is added. Programs: (ceil(SIZE / BLOCK), rows).
    """
    outputs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(1)
    columns = tl.arange(0, PADDED)
    inside = outputs < SIZE
    # Kernels after this one need its result, so it lets them start at once; what was selected is
    # there, for gate_up has waited for it: the first matrices are read while gate_up ends.
    start_next(DEPENDENT)
    if ONE_ROW:
        slots = tl.load(used, cache_modifier=".cg")
    slot = tl.arange(0, SLOT_BLOCK)
    pair = row * SLOTS + slot
    matrix, weight, use = _matrices(
        down_weight, indices, weights, pair, slot < slots, outputs, columns, SIZE, WIDTH
    )
    wait(DEPENDENT)
    total = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, slots, SLOT_BLOCK):
        beyond = first + SLOT_BLOCK + slot < slots
        next_matrix, next_weight, next_use = _matrices(
            down_weight, indices, weights, pair + SLOT_BLOCK, beyond, outputs, columns, SIZE, WIDTH
        )
        hidden = tl.load(
            activated + pair[:, None] * WIDTH + columns[None, :],
            mask=use[:, None] & (columns < WIDTH)[None, :], other=0.0,
        )
        output = tl.sum(matrix.to(tl.float32) * hidden.to(tl.float32)[:, None, :], axis=2)
        total += tl.sum(rounded(output, activated) * weight[:, None], axis=0)
        matrix, weight, use = next_matrix, next_weight, next_use
        pair += SLOT_BLOCK
    at = result + row * SIZE + outputs
    if ONE_ROW:
        former = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        tl.store(at, former + rounded(total, result), mask=inside)
    else:
        tl.store(at, total, mask=inside)
