"""The expert computation that skips: equal to transformers' own, and only the selected run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import OlmoeForCausalLM

from bh_studio.engine import experts
from tests.tiny_olmoe import EXPERTS, HIDDEN, tiny_model

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("rows", [1, 2, 33])
@pytest.mark.parametrize("limit", [0, 2**30], ids=["product by product", "gathered"])
@pytest.mark.parametrize("pattern", ["all", "suffix", "scattered", "none"])
@torch.inference_mode()
def test_equals_eager(
    dtype: torch.dtype, rows: int, limit: int, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experts, "_GATHER_LIMIT_BYTES", limit)
    module = tiny_model(dtype=dtype).model.layers[0].mlp.experts
    hidden = torch.randn(rows, HIDDEN, dtype=dtype)
    indices = torch.rand(rows, EXPERTS).argsort(dim=1)[:, :6]
    weights = torch.rand(rows, 6).to(dtype)
    if pattern == "suffix":
        weights[:, 3:] = 0
    elif pattern == "scattered":
        weights[:, ::2] = 0
        weights[0, 1] = 0
    elif pattern == "none":
        weights[:] = 0
    module.config._experts_implementation = "eager"
    expected = module(hidden, indices, weights)
    found = experts.selected_experts_forward(module, hidden, indices, weights)
    assert found.dtype == dtype
    scale = float(expected.abs().max()) or 1.0
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=TOLERANCES[dtype])


def test_the_model_runs_it_once_chosen(
    model: OlmoeForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = model(torch.arange(10)[None]).logits
    experts.use_selected_experts(model)
    calls = []
    original = experts._many_rows

    def counted(*arguments: Any) -> Tensor:
        calls.append(1)
        return original(*arguments)

    monkeypatch.setattr(experts, "_many_rows", counted)
    found = model(torch.arange(10)[None]).logits
    assert len(calls) == len(model.model.layers)
    torch.testing.assert_close(found, stock, rtol=0, atol=1e-4)
