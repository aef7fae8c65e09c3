"""Drawing a token: every temperature and every top_p that is allowed gives probabilities."""

from __future__ import annotations

import pytest
import torch

from bh_studio.engine.decoding.sampling import SampledToken
from bh_studio.engine.records.terms import GenerationParameters

SMALLEST = 5e-324
LOGITS = torch.tensor([[1.0, 3.5, 3.5 - 1e-6, -1e4, 3.0]])


def drawn(logits: torch.Tensor, temperature: float, top_p: float, draws: int = 60) -> set[int]:
    parameters = GenerationParameters(temperature=temperature, top_p=top_p, seed=1)
    choose = SampledToken(parameters, torch.device("cpu"))
    return {int(choose(logits)) for _ in range(draws)}


@pytest.mark.parametrize("top_p", [SMALLEST, 1e-300, 0.5, 1 - 1e-16, 1.0])
@pytest.mark.parametrize("temperature", [SMALLEST, 1e-300, 1e-45, 1e-40, 1e-38, 1e-31, 1e-30])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_a_temperature_near_0_takes_the_most_probable(
    temperature: float, top_p: float, scale: float
) -> None:
    assert drawn(LOGITS * scale, temperature, top_p) == {1}
    assert drawn(-LOGITS * scale, temperature, top_p) == {3}


@pytest.mark.parametrize("temperature", [SMALLEST, 1e-40, 0.8])
def test_equally_probable_tokens_are_drawn_alike(temperature: float) -> None:
    logits = torch.tensor([[2.0, -2.0, 2.0]])
    assert drawn(logits, temperature, 0.99) == {0, 2}


@pytest.mark.parametrize("temperature", [1e30, 1e39, 1e300, 1.7e308])
def test_a_huge_temperature_takes_any_token(temperature: float) -> None:
    assert drawn(LOGITS, temperature, 1.0) == {0, 1, 2, 3, 4}
    assert len(drawn(LOGITS, temperature, SMALLEST)) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_dtype_has_the_same_range(dtype: torch.dtype) -> None:
    assert drawn(LOGITS.to(dtype)[:, 3:], SMALLEST, 1.0) == {1}


# In 16 bits the two quotients were equal in one case and infinite in the other.
@pytest.mark.parametrize(
    ("dtype", "logits", "temperature"),
    [(torch.bfloat16, [90.0, 90.5], 0.01), (torch.float16, [5e4, 6e4], 0.5)],
)
def test_logits_of_16_bits_are_divided_in_float32(
    dtype: torch.dtype, logits: list[float], temperature: float
) -> None:
    assert drawn(torch.tensor([logits], dtype=dtype), temperature, 1.0) == {1}


def test_the_seed_alone_decides_what_is_drawn() -> None:
    logits = torch.zeros(1, 1000)
    drawn_of: dict[int, list[int]] = {}
    for seed in (1, 1, 2):
        torch.manual_seed(len(drawn_of))
        choose = SampledToken(GenerationParameters(seed=seed), torch.device("cpu"))
        draws = [int(choose(logits)) for _ in range(10)]
        assert drawn_of.setdefault(seed, draws) == draws
    assert drawn_of[1] != drawn_of[2]
