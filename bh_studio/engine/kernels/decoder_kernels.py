"""Triton kernels for one token of an OLMoE decoder, but for its experts. Knows tensors, no model.

The product of a matrix with one row takes as long as reading the matrix: a program takes a few of
its rows, in one piece, before it looks at anything the former kernel wrote. With DEPENDENT the next
kernel may start while the former one ends (programmatic dependent launch); so every program waits
before its first look, and none ends without having waited.

Values are rounded to the dtype of the weights where transformers' forward rounds them; sums are
float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bh_studio.engine.kernels.selection_kernels import rule_of_layer, select_row

# What `best` holds before any token was looked at.
NO_TOKEN = tl.constexpr(-(2**63))

# Arguments are grouped by kind, a line each.
# fmt: off


@triton.jit
def start_next(DEPENDENT: tl.constexpr):
    """Let the next kernel start as soon as every program has come here and there is room."""
    if DEPENDENT:
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def wait(DEPENDENT: tl.constexpr):
    """Wait for what all former kernels have written."""
    if DEPENDENT:
        tl.extra.cuda.gdc_wait()


@triton.jit
def rounded(values, pointer):
    """float32 values as the dtype of `pointer` holds them, in float32."""
    return values.to(pointer.dtype.element_ty).to(tl.float32)


@triton.jit
def matrix_rows(matrix, rows, columns, ROWS: tl.constexpr, SIZE: tl.constexpr):
    """Rows of a (ROWS, SIZE) matrix, zero beyond its edges."""
    inside = (rows < ROWS)[:, None] & (columns < SIZE)[None, :]
    offsets = rows.to(tl.int64)[:, None] * SIZE + columns[None, :]
    return tl.load(matrix + offsets, mask=inside, other=0.0)


@triton.jit
def normed(state, factors, columns, SIZE: tl.constexpr, EPSILON: tl.constexpr):
    """RMS norm of the SIZE values at `state` with the weights `factors`, in float32."""
    values = tl.load(state + columns, mask=columns < SIZE, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(values * values) / SIZE + EPSILON)
    return rounded(factors.to(tl.float32) * rounded(values * scale, state), state)


@triton.jit
def embed(
    token, embedding, state,
    SIZE: tl.constexpr, PADDED: tl.constexpr, DEPENDENT: tl.constexpr,
):
    """The embedding of the token becomes the decoder's state. One program."""
    start_next(DEPENDENT)
    wait(DEPENDENT)
    columns = tl.arange(0, PADDED)
    inside = columns < SIZE
    values = tl.load(embedding + tl.load(token) * SIZE + columns, mask=inside)
    tl.store(state + columns, values, mask=inside)


@triton.jit
def project_qkv(
    state, norm, query_weight, key_weight, value_weight, projected,
    EPSILON: tl.constexpr, SIZE: tl.constexpr, PADDED: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, BLOCK: tl.constexpr, DEPENDENT: tl.constexpr,
):
    """Queries, keys and values of the normed state, one after the other in `projected`.

    QUERIES and KEYS are multiples of BLOCK. Any number of programs, which share the work.
    """
    start_next(DEPENDENT)
    columns = tl.arange(0, PADDED)
    step = tl.num_programs(0)
    blocks: tl.constexpr = (QUERIES + 2 * KEYS) // BLOCK
    weights = _qkv_rows(
        query_weight, key_weight, value_weight, tl.program_id(0), columns,
        SIZE, QUERIES, KEYS, BLOCK,
    )
    factors = tl.load(norm + columns, mask=columns < SIZE, other=0.0)
    wait(DEPENDENT)
    values = normed(state, factors, columns, SIZE, EPSILON)
    for block in range(tl.program_id(0), blocks, step):
        following = _qkv_rows(
            query_weight, key_weight, value_weight, block + step, columns,
            SIZE, QUERIES, KEYS, BLOCK,
        )
        result = tl.sum(weights.to(tl.float32) * values[None, :], axis=1)
        tl.store(projected + block * BLOCK + tl.arange(0, BLOCK), result)
        weights = following


@triton.jit
def _qkv_rows(
    query_weight, key_weight, value_weight, block, columns,
    SIZE: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, BLOCK: tl.constexpr,
):
    """Rows of the three matrices as if they lay one below the other; zero beyond the last."""
    row = block * BLOCK
    matrix = query_weight
    if row >= QUERIES + KEYS:
        matrix = value_weight
        row -= QUERIES + KEYS
    elif row >= QUERIES:
        matrix = key_weight
        row -= QUERIES
    rows = tl.arange(0, BLOCK)
    inside = (block * BLOCK + rows < QUERIES + 2 * KEYS)[:, None] & (columns < SIZE)[None, :]
    offsets = (row + rows)[:, None] * SIZE + columns[None, :]
    return tl.load(matrix + offsets, mask=inside, other=0.0)


@triton.jit
def _rotated_half(low, high, cos, sin, pointer, SIGN: tl.constexpr):
    """One half of a rotary embedding: `low` is the half itself, `high` the other one."""
    return rounded(rounded(low * cos, pointer) + SIGN * rounded(high * sin, pointer), pointer)


@triton.jit
def _head(
    projected, low_norm, high_norm, head, cos, sin,
    CLIP: tl.constexpr, EPSILON: tl.constexpr,
    SIZE: tl.constexpr, PADDED: tl.constexpr, WIDTH: tl.constexpr, HALF: tl.constexpr,
):
    """Both halves of one head of queries or keys, normed over all heads, clipped and rotated."""
    columns = tl.arange(0, PADDED)
    at = projected + head * WIDTH + tl.arange(0, HALF)
    everything = tl.load(projected + columns, mask=columns < SIZE, other=0.0).to(tl.float32)
    low = tl.load(at).to(tl.float32)
    high = tl.load(at + HALF).to(tl.float32)
    scale = tl.rsqrt(tl.sum(everything * everything) / SIZE + EPSILON)
    low = rounded(low_norm.to(tl.float32) * rounded(low * scale, projected), projected)
    high = rounded(high_norm.to(tl.float32) * rounded(high * scale, projected), projected)
    if CLIP > 0:
        low = tl.minimum(tl.maximum(low, -CLIP), CLIP)
        high = tl.minimum(tl.maximum(high, -CLIP), CLIP)
    return (
        _rotated_half(low, high, cos, sin, projected, -1.0),
        _rotated_half(high, low, cos, sin, projected, 1.0),
    )


@triton.jit
def _remembered(
    keys, values, base, start, end,
    WIDTH: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
):
    """Both halves of BLOCK keys and the values of a head, from `start`; zero from `end` on."""
    places = start + tl.arange(0, BLOCK)
    there = (places < end)[:, None]
    row = base + places.to(tl.int64)[:, None] * WIDTH
    half = row + tl.arange(0, HALF)[None, :]
    low = tl.load(keys + half, mask=there, other=0.0)
    high = tl.load(keys + HALF + half, mask=there, other=0.0)
    value = tl.load(values + row + tl.arange(0, WIDTH)[None, :], mask=there, other=0.0)
    return low, high, value


@triton.jit
def attend(
    projected, query_norm, key_norm, cosines, sines, position, keys, values, capacity,
    partial, arrived, attended,
    CLIP: tl.constexpr, EPSILON: tl.constexpr, SCALE: tl.constexpr,
    QUERIES: tl.constexpr, PADDED_QUERIES: tl.constexpr,
    KEYS: tl.constexpr, PADDED_KEYS: tl.constexpr,
    WIDTH: tl.constexpr, HALF: tl.constexpr, GROUP: tl.constexpr, SPLITS: tl.constexpr,
    BLOCK: tl.constexpr, DEPENDENT: tl.constexpr,
):
    """Attention of one query head to a share of the keys, and of the token to itself.

    keys, values: (head, capacity, WIDTH), of which `position` are there; the token's own are added.
    partial: (query head, SPLITS, WIDTH + 2) float32. arrived: (query head,) int32, 0 between
    tokens. Programs: (query heads, SPLITS); those beyond the keys do nothing.
    """
    start_next(DEPENDENT)
    head = tl.program_id(0)
    split = tl.program_id(1)
    key_head = head // GROUP
    half = tl.arange(0, HALF)
    wide = tl.arange(0, WIDTH)
    # The position was written when the former token was finished, the keys before it earlier still.
    length = tl.load(position)
    cos = tl.load(cosines + length * WIDTH + half).to(tl.float32)
    sin = tl.load(sines + length * WIDTH + half).to(tl.float32)
    query_norm += head * WIDTH + half
    key_norm += key_head * WIDTH + half
    query_norm_low, query_norm_high = tl.load(query_norm), tl.load(query_norm + HALF)
    key_norm_low, key_norm_high = tl.load(key_norm), tl.load(key_norm + HALF)
    base = key_head.to(tl.int64) * capacity * WIDTH
    share = tl.maximum(tl.cdiv(tl.cdiv(length, SPLITS), BLOCK) * BLOCK, BLOCK)
    active = tl.maximum(tl.cdiv(length, share), 1)
    end = tl.minimum((split + 1) * share, length)
    low, high, block = _remembered(keys, values, base, split * share, end, WIDTH, HALF, BLOCK)
    wait(DEPENDENT)
    if split < active:
        query_low, query_high = _head(
            projected, query_norm_low, query_norm_high, head, cos, sin,
            CLIP, EPSILON, QUERIES, PADDED_QUERIES, WIDTH, HALF,
        )
        largest = tl.full((), float("-inf"), tl.float32)
        total = tl.zeros((), tl.float32)
        output = tl.zeros((WIDTH,), tl.float32)
        if split == 0:
            key_low, key_high = _head(
                projected + QUERIES, key_norm_low, key_norm_high, key_head, cos, sin,
                CLIP, EPSILON, KEYS, PADDED_KEYS, WIDTH, HALF,
            )
            value = tl.load(projected + QUERIES + KEYS + key_head * WIDTH + wide).to(tl.float32)
            if CLIP > 0:
                value = tl.minimum(tl.maximum(value, -CLIP), CLIP)
            if head % GROUP == 0:
                own = base + length * WIDTH
                tl.store(keys + own + half, key_low)
                tl.store(keys + own + HALF + half, key_high)
                tl.store(values + own + wide, value)
            largest = (tl.sum(query_low * key_low) + tl.sum(query_high * key_high)) * SCALE
            total += 1.0
            output += value
        for start in range(split * share, end, BLOCK):
            next_low, next_high, next_block = _remembered(
                keys, values, base, start + BLOCK, end, WIDTH, HALF, BLOCK
            )
            scores = tl.sum(low.to(tl.float32) * query_low[None, :], axis=1)
            scores += tl.sum(high.to(tl.float32) * query_high[None, :], axis=1)
            there = start + tl.arange(0, BLOCK) < end
            scores = tl.where(there, scores * SCALE, float("-inf"))
            new_largest = tl.maximum(largest, tl.max(scores))
            weights = tl.exp(scores - new_largest)
            faded = tl.exp(largest - new_largest)
            total = total * faded + tl.sum(weights)
            output = output * faded + tl.sum(block.to(tl.float32) * weights[:, None], axis=0)
            largest = new_largest
            low, high, block = next_low, next_high, next_block
        if active == 1:
            tl.store(attended + head * WIDTH + wide, output / total)
        else:
            own = partial + (head * SPLITS + split) * (WIDTH + 2)
            tl.store(own + wide, output)
            tl.store(own + WIDTH, largest)
            tl.store(own + WIDTH + 1, total)
            tl.debug_barrier()
            # The last to come finds the parts of all others.
            if tl.atomic_add(arrived + head, 1, sem="acq_rel") == active - 1:
                splits = tl.arange(0, SPLITS)
                use = splits < active
                rows = partial + (head * SPLITS + splits) * (WIDTH + 2)
                maxima = tl.load(rows + WIDTH, mask=use, other=float("-inf"), cache_modifier=".cg")
                totals = tl.load(rows + WIDTH + 1, mask=use, other=0.0, cache_modifier=".cg")
                parts = tl.load(
                    rows[:, None] + wide[None, :], mask=use[:, None], other=0.0,
                    cache_modifier=".cg",
                )
                shares = tl.exp(maxima - tl.max(maxima))
                result = tl.sum(parts * shares[:, None], axis=0) / tl.sum(totals * shares)
                tl.store(attended + head * WIDTH + wide, result)
                tl.store(arrived + head, 0)


@triton.jit
def project_out(
    row, weight, state,
    ROWS: tl.constexpr, SIZE: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Add the product of a (ROWS, SIZE) matrix with `row` to the state.

    Programs: ceil(ROWS / BLOCK).
    """
    start_next(DEPENDENT)
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    columns = tl.arange(0, PADDED)
    weights = matrix_rows(weight, rows, columns, ROWS, SIZE)
    wait(DEPENDENT)
    values = tl.load(row + columns, mask=columns < SIZE, other=0.0).to(tl.float32)
    result = rounded(tl.sum(weights.to(tl.float32) * values[None, :], axis=1), state)
    inside = rows < ROWS
    former = tl.load(state + rows, mask=inside, other=0.0).to(tl.float32)
    tl.store(state + rows, former + result, mask=inside)


@triton.jit
def route(
    state, norm, weight, normed_state, logits, arrived,
    thresholds, used_of_raw, settings, layer, indices, weights, used, raw_counts,
    TOP_K: tl.constexpr, EPSILON: tl.constexpr,
    SIZE: tl.constexpr, PADDED: tl.constexpr, EXPERTS: tl.constexpr, PADDED_EXPERTS: tl.constexpr,
    BLOCK: tl.constexpr, SELECT: tl.constexpr, DEPENDENT: tl.constexpr,
):
    """Norm the state for router and experts, make the router's logits, and select experts.

    With SELECT the last program to come does what selection_kernels.select_row says; without, a
    rule of another kind reads the logits. arrived: (1,) int32, 0 between calls.
    Programs: ceil(EXPERTS / BLOCK).
    """
    start_next(DEPENDENT)
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    columns = tl.arange(0, PADDED)
    router = matrix_rows(weight, rows, columns, EXPERTS, SIZE)
    if SELECT:
        rule = rule_of_layer(
            thresholds + layer * EXPERTS, used_of_raw + layer * (EXPERTS + 1), settings,
            EXPERTS, PADDED_EXPERTS,
        )
    factors = tl.load(norm + columns, mask=columns < SIZE, other=0.0)
    wait(DEPENDENT)
    values = normed(state, factors, columns, SIZE, EPSILON)
    if tl.program_id(0) == 0:
        tl.store(normed_state + columns, values, mask=columns < SIZE)
    result = tl.sum(router.to(tl.float32) * values[None, :], axis=1)
    tl.store(logits + rows, result, mask=rows < EXPERTS)
    if SELECT:
        tl.debug_barrier()
        if tl.atomic_add(arrived, 1, sem="acq_rel") == tl.num_programs(0) - 1:
            tl.store(arrived, 0)
            select_row(
                logits, rule, indices, weights, used, raw_counts + layer,
                TOP_K, EXPERTS, PADDED_EXPERTS, False,
            )


@triton.jit
def predict(
    state, norm, weight, logits, best,
    EPSILON: tl.constexpr, SIZE: tl.constexpr, PADDED: tl.constexpr, VOCABULARY: tl.constexpr,
    BLOCK: tl.constexpr, DEPENDENT: tl.constexpr,
):
    """Logits of the next token, and the largest of them with its token in `best`, see `finish`.

    Any number of programs, which share the work.
    """
    start_next(DEPENDENT)
    columns = tl.arange(0, PADDED)
    step = tl.num_programs(0)
    row = tl.arange(0, BLOCK)
    block = tl.program_id(0)
    head = matrix_rows(weight, block * BLOCK + row, columns, VOCABULARY, SIZE)
    factors = tl.load(norm + columns, mask=columns < SIZE, other=0.0)
    wait(DEPENDENT)
    values = normed(state, factors, columns, SIZE, EPSILON)
    likeliest = tl.full((), NO_TOKEN, tl.int64)
    for block in range(tl.program_id(0), tl.cdiv(VOCABULARY, BLOCK), step):
        following = matrix_rows(weight, (block + step) * BLOCK + row, columns, VOCABULARY, SIZE)
        result = rounded(tl.sum(head.to(tl.float32) * values[None, :], axis=1), logits)
        rows = block * BLOCK + row
        tl.store(logits + rows, result, mask=rows < VOCABULARY)
        # As whole numbers, floats keep their order once the lower bits of negative ones are turned;
        # below them, the earlier of equals is the larger.
        bits = result.to(tl.int32, bitcast=True)
        ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64)
        keys = (ordered << 32) | (0x7FFFFFFF - rows).to(tl.int64)
        likeliest = tl.maximum(likeliest, tl.max(tl.where(rows < VOCABULARY, keys, NO_TOKEN)))
        head = following
    tl.atomic_max(best, likeliest)


@triton.jit
def finish(
    best, token, position, raw_counts, outcome,
    LAYERS: tl.constexpr, PADDED_LAYERS: tl.constexpr, DEPENDENT: tl.constexpr,
):
    """Take the most probable token, go to the next position, and put down what the host will read.

    outcome: (1 + LAYERS,) int64, the token and the raw count of each layer. One program.
    """
    start_next(DEPENDENT)
    wait(DEPENDENT)
    chosen = 0x7FFFFFFF - (tl.load(best) & 0xFFFFFFFF)
    tl.store(best, NO_TOKEN)
    tl.store(token, chosen)
    tl.store(position, tl.load(position) + 1)
    tl.store(outcome, chosen)
    layers = tl.arange(0, PADDED_LAYERS)
    counts = tl.load(raw_counts + layers, mask=layers < LAYERS, other=0)
    tl.store(outcome + 1 + layers, counts.to(tl.int64), mask=layers < LAYERS)
