"""Bytes that a token reads, against a count by hand."""

from __future__ import annotations

import pytest
import torch

from bh_studio.engine.experiments.benchmark.token_bytes import token_bytes
from tests.tiny_olmoe import EXPERTS, HIDDEN, LAYERS, tiny_model

WIDTH, VOCABULARY = 16, 257
ATTENTION = 4 * HIDDEN * HIDDEN + 2 * HIDDEN  # four projections, norms of queries and keys
LAYER = ATTENTION + 2 * HIDDEN + EXPERTS * HIDDEN  # norms before attention and experts, router
# The last norm, the output head, one row of the embedding.
DENSE = LAYERS * LAYER + HIDDEN + VOCABULARY * HIDDEN + HIDDEN
EXPERT = LAYERS * 3 * WIDTH * HIDDEN
POSITION = LAYERS * 2 * HIDDEN


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_bytes_are_those_of_the_parameters(dtype: torch.dtype, size: int, tied: bool) -> None:
    found = token_bytes(tiny_model(dtype=dtype, tie_word_embeddings=tied))
    assert found.dense == size * DENSE
    assert found.expert == size * EXPERT
    assert found.position == size * POSITION
    assert found.of(2.5, 10) == size * (DENSE + 2.5 * EXPERT + 10 * POSITION)


def test_fewer_heads_of_keys_read_less() -> None:
    shared = token_bytes(tiny_model(num_key_value_heads=1))
    assert shared.position == 4 * POSITION // 2
