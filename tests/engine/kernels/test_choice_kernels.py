"""The kernels that judge a token against choice_of on the CPU, which they stand in for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from bh_studio.engine.decoding.decided import choice_of

pytest.importorskip("triton")

from bh_studio.engine.kernels.choice_kernels import ChoiceWriter
from tests.engine.interpreted_kernels import DEVICE, kernels_run


@pytest.fixture(scope="module", autouse=True)
def _kernels_run() -> Iterator[None]:
    with kernels_run():
        yield


def written(logits: Tensor, token: int) -> tuple[list[float], list[int]]:
    log_probabilities = torch.zeros(6, device=DEVICE)
    ids = torch.zeros(6, dtype=torch.int32, device=DEVICE)
    writer = ChoiceWriter(logits.shape[1], 5, log_probabilities.device)
    writer(logits.to(DEVICE), torch.tensor([token, 7], device=DEVICE), log_probabilities, ids)
    return log_probabilities.tolist(), ids.tolist()


# One part and several, a full last one and one of a single token.
@pytest.mark.parametrize("vocabulary", [6, 1024, 1025, 2500, 4096])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_is_judged_as_on_the_cpu(vocabulary: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    logits = (5 * torch.randn(1, vocabulary, generator=generator)).to(dtype)
    for token in (0, vocabulary - 1, int(logits.argmax()), vocabulary // 2):
        expected = choice_of(logits, token)
        log_probabilities, ids = written(logits, token)
        assert log_probabilities[0] == pytest.approx(expected.log_probability, abs=1e-5)
        assert ids[0] == expected.rank
        np.testing.assert_allclose(log_probabilities[1:], expected.top_log_probabilities, atol=1e-5)
        # Of equally probable ones another may come first.
        assert logits[0, ids[1:]].tolist() == logits[0, expected.top_ids].tolist()
        assert len(set(ids[1:])) == 5


def test_equal_logits_come_in_the_order_of_their_tokens() -> None:
    log_probabilities, ids = written(torch.zeros(1, 1500), 1200)
    assert ids == [1, 0, 1, 2, 3, 4]
    assert log_probabilities == pytest.approx([-np.log(1500)] * 6, abs=1e-5)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_leave_none(value: float) -> None:
    logits = torch.zeros(1, 1500)
    logits[0, 700] = value
    assert not np.isfinite(written(logits, 700)[0][0])
