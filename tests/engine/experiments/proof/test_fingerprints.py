"""Fingerprints tell rows apart that differ in any bit, and say nothing of rows that do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bh_studio.engine.experiments.proof.fingerprints import (
    PrintedLogits,
    fingerprints,
    first_difference,
    is_same,
)

DTYPES = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_bit_of_one_number_changes_the_fingerprint(dtype: torch.dtype) -> None:
    row = torch.randn(1, 300).to(dtype)
    found = int(fingerprints(row))
    whole = row.view(DTYPES[dtype])
    for column in (0, 150, 299):
        for bit in range(8 * row.element_size() - 1):
            other = whole.clone()
            other[0, column] ^= 1 << bit
            assert int(fingerprints(other.view(dtype))) != found
            assert not is_same(other.view(dtype), row)
    assert int(fingerprints(row.clone())) == found
    assert is_same(row.clone(), row)


def test_rows_have_their_own_and_places_count() -> None:
    rows = torch.randn(5, 40)
    found = fingerprints(rows)
    assert torch.equal(found, torch.cat([fingerprints(row[None]) for row in rows]))
    assert len(set(found.tolist())) == 5
    swapped = rows[:1].clone()
    swapped[0, [3, 4]] = swapped[0, [4, 3]]
    assert int(fingerprints(swapped)) != int(found[0])


def test_zeros_of_another_sign_and_other_dtypes_are_not_the_same() -> None:
    zero = torch.zeros(1, 3)
    assert int(fingerprints(zero)) != int(fingerprints(-zero))
    assert not is_same(zero, -zero)
    assert not is_same(zero, zero.double())
    assert not is_same(zero, zero[:, :2])
    assert is_same(torch.full((1,), torch.nan), torch.full((1,), torch.nan))


def test_only_tokens_that_were_wanted_are_kept() -> None:
    printed = PrintedLogits()
    rows = torch.randn(3, 40)
    for row in rows:
        printed(row[None])
    np.testing.assert_array_equal(printed.of(2), fingerprints(rows[:2]).numpy())


@pytest.mark.parametrize(
    ("one", "other", "first"),
    [
        ([1, 2, 3], [1, 2, 3], None),
        ([1, 2, 3], [1, 9, 9], 1),
        ([1, 2, 3], [1, 2], 2),
        ([1, 2], [3], 0),
        ([[1, 2], [3, 4]], [[1, 2], [3, 5]], 1),
        (np.zeros((0, 3)), np.zeros((0, 3)), None),
    ],
)
def test_the_first_difference_is_found(one: object, other: object, first: int | None) -> None:
    assert first_difference(np.array(one), np.array(other)) == first
