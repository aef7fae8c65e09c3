"""The expert computation that skips: equal to transformers' own, and only the selected run."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from transformers import OlmoeForCausalLM

from bh_studio.engine.moe import experts, experts_cpu, row_products
from bh_studio.engine.moe.expert_rows import ExpertRows
from bh_studio.engine.moe.expert_weights import Experts
from bh_studio.engine.moe.row_products import PLAIN, SLICED, RowProduct
from tests.tiny_olmoe import EXPERTS, HIDDEN, tiny_model

# Largest difference allowed, as a share of the largest output.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
SLOTS = 6
CPU_WAYS = ["small", "large", "in blocks", "without oneDNN", "in slices"]
WAYS = [*CPU_WAYS, *(["cuda"] if torch.cuda.is_available() else [])]
# For what is promised on the CPU only.
on_the_cpu = pytest.mark.parametrize("device", CPU_WAYS, indirect=True)


@pytest.fixture(params=WAYS)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a way of computing experts runs; it is in force, whatever the size of the experts."""
    way: str = request.param
    products = {"without oneDNN": PLAIN, "in slices": SLICED}
    if way == "cuda":
        return way
    if way != "small":
        monkeypatch.setattr(experts_cpu, "_SMALL_EXPERT_BYTES", 0)
    if way == "in blocks":
        monkeypatch.setattr(experts_cpu, "_BLOCK_ROWS", 5)
    if way in products:
        monkeypatch.setattr(experts_cpu, "fastest_row_product", lambda _weight: products[way])
    return "cpu"


@pytest.fixture(autouse=True)
def _settings_are_restored() -> Iterator[None]:
    before = torch._C._get_mkldnn_enabled()
    yield
    assert torch._C._get_mkldnn_enabled() == before


def drawn(rows: int, dtype: torch.dtype, device: str) -> tuple[Any, Tensor, Tensor, Tensor]:
    """Experts, hidden states, and for each row SLOTS of the experts with their weights."""
    module = tiny_model(dtype=dtype).model.layers[0].mlp.experts.to(device)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, HIDDEN, generator=generator)
    indices = torch.rand(rows, EXPERTS, generator=generator).argsort(dim=1)[:, :SLOTS]
    weights = 0.1 + torch.rand(rows, SLOTS, generator=generator)
    return module, hidden.to(device, dtype), indices.to(device), weights.to(device, dtype)


def eager(module: Any, hidden: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    module.config._experts_implementation = "eager"
    output: Tensor = module(hidden, indices, weights)
    return output


def assert_near(found: Tensor, expected: Tensor) -> None:
    assert found.dtype == expected.dtype
    scale = float(expected.abs().max()) or 1.0
    tolerance = TOLERANCES[found.dtype]
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("rows", [1, 2, 33])
@pytest.mark.parametrize("pattern", ["all", "suffix", "scattered", "none"])
@torch.inference_mode()
def test_equals_eager(device: str, dtype: torch.dtype, rows: int, pattern: str) -> None:
    module, hidden, indices, weights = drawn(rows, dtype, device)
    if pattern == "suffix":
        weights[:, 3:] = 0
    elif pattern == "scattered":
        weights[:, ::2] = 0
        weights[0, 1] = 0
    elif pattern == "none":
        weights[:] = 0
    found = experts.selected_experts_forward(module, hidden, indices, weights)
    assert_near(found, eager(module, hidden, indices, weights))


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("rows", [1, 9])
@torch.inference_mode()
def test_experts_may_be_of_any_width(dtype: torch.dtype, rows: int) -> None:
    model = tiny_model(dtype=dtype, intermediate_size=13, hidden_size=36)
    module = model.model.layers[0].mlp.experts
    _, _, indices, weights = drawn(rows, dtype, "cpu")
    hidden = torch.randn(rows, 36).to(dtype)
    found = experts.selected_experts_forward(module, hidden, indices, weights)
    assert_near(found, eager(module, hidden, indices, weights))


@pytest.mark.parametrize("rows", [1, 12])
@torch.inference_mode()
def test_unused_slots_cost_no_rows(device: str, rows: int) -> None:
    model: Any = tiny_model().to(device)
    experts.use_selected_experts(model)
    _, hidden, indices, weights = drawn(rows, torch.float32, device)
    weights[:, 4:] = 0
    weights[0, 0] = 0
    with ExpertRows(model) as counter:
        model.model.layers[1].mlp.experts(hidden, indices, weights)
    assert counter.rows == [0, 4 * rows - 1, 0]


@torch.inference_mode()
def test_a_weight_of_zero_keeps_an_expert_out_that_would_overflow(device: str) -> None:
    module, hidden, indices, weights = drawn(9, torch.float32, device)
    expected = eager(module, hidden, indices[:, 1:], weights[:, 1:])
    module.down_proj[indices[0, 0]] = torch.inf
    weights[indices == indices[0, 0]] = 0
    found = experts.selected_experts_forward(module, hidden, indices, weights)
    assert bool(found.isfinite().all())
    assert_near(found[:1], expected[:1])


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("rows", [1, 7])
@torch.inference_mode()
def test_slots_may_come_in_any_order(device: str, dtype: torch.dtype, rows: int) -> None:
    module, hidden, indices, weights = drawn(rows, dtype, device)
    expected = experts.selected_experts_forward(module, hidden, indices, weights)
    order = torch.rand(rows, SLOTS).argsort(dim=1).to(device)
    shuffled = indices.gather(1, order), weights.gather(1, order)
    assert_near(experts.selected_experts_forward(module, hidden, *shuffled), expected)


@torch.inference_mode()
def test_the_same_expert_may_fill_two_slots_of_a_row(device: str) -> None:
    module, hidden, indices, weights = drawn(5, torch.float32, device)
    indices[:, 1] = indices[:, 0]
    found = experts.selected_experts_forward(module, hidden, indices, weights)
    assert_near(found, eager(module, hidden, indices, weights))


@on_the_cpu
@torch.inference_mode()
def test_outputs_of_a_row_are_added_in_the_same_order_whatever_other_rows_there_are(
    device: str,
) -> None:
    # Whole numbers make every product exact, so that only the order of the sum is left to differ:
    # float32 holds 2**24 + 1 - 2**24 as 0 or 1, depending on it.
    module = _experts_that_put_out(torch.tensor([1.0, 2.0**24, -(2.0**24), 3.0, 1.0]))
    generator = torch.Generator().manual_seed(0)
    indices = torch.rand(40, 5, generator=generator).argsort(dim=1)
    hidden, weights = torch.ones(40, 4), torch.ones(40, 5)
    all_rows = experts.selected_experts_forward(module, hidden, indices, weights)
    for first in range(0, 38, 2):
        own = slice(first, first + 2)
        alone = experts.selected_experts_forward(module, hidden[own], indices[own], weights[own])
        assert torch.equal(alone, all_rows[own])


def _experts_that_put_out(values: Tensor) -> Experts:
    """Expert i makes values[i] of a row of ones."""
    count = len(values)
    gate_up = torch.zeros(count, 8, 4)
    gate_up[:, :, 0] = 1
    down = torch.zeros(count, 4, 4)
    down[:, :, 0] = values[:, None]
    module = SimpleNamespace(gate_up_proj=gate_up, down_proj=down, act_fn=nn.Identity())
    return cast(Experts, module)


@torch.inference_mode()
def test_an_error_in_an_expert_leaves_no_setting_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_row: Tensor, _weight: Tensor) -> Tensor:
        assert not torch._C._get_mkldnn_enabled()
        raise RuntimeError("no memory")

    product = RowProduct("failing", failing, with_onednn=False)
    monkeypatch.setattr(experts_cpu, "fastest_row_product", lambda _weight: product)
    monkeypatch.setattr(experts_cpu, "_SMALL_EXPERT_BYTES", 0)
    module, hidden, indices, weights = drawn(2, torch.float32, "cpu")
    for rows in (1, 2):  # in either there is an expert with one row
        with pytest.raises(RuntimeError, match="no memory"):
            experts.selected_experts_forward(module, hidden[:rows], indices[:rows], weights[:rows])
        assert torch._C._get_mkldnn_enabled()


@pytest.mark.parametrize("rows", [1, 10])
def test_the_model_runs_it_once_chosen(device: str, rows: int) -> None:
    model: Any = tiny_model().to(device)
    tokens = torch.arange(rows, device=device)[None]
    stock = model(tokens).logits
    experts.use_selected_experts(model)
    assert "bh_selected" in model.config._experts_implementation
    with torch.inference_mode():
        found = model(tokens).logits
    torch.testing.assert_close(found, stock, rtol=0, atol=1e-4)


@on_the_cpu
def test_gradients_reach_weights_rows_and_routers(device: str) -> None:
    module, hidden, indices, weights = drawn(6, torch.float32, device)

    def gradients(forward: Any) -> tuple[Tensor, ...]:
        inputs = hidden.requires_grad_(), weights.requires_grad_()
        output = forward(module, hidden, indices, weights)
        return torch.autograd.grad(output.square().sum(), (*inputs, *module.parameters()))

    expected = gradients(eager)
    for found, one in zip(gradients(experts.selected_experts_forward), expected, strict=True):
        assert_near(found, one)


def test_the_path_is_said_in_words(
    model: OlmoeForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.set_experts_implementation("grouped_mm")
    assert experts.expert_path(model) == "all slots, by transformers (grouped_mm)"
    experts.use_selected_experts(model)
    assert experts.expert_path(model) == "selected experts, copied together for one product"
    monkeypatch.setattr(experts_cpu, "_SMALL_EXPERT_BYTES", 0)
    monkeypatch.setattr(row_products, "SMALL_BYTES", 0)
    monkeypatch.setattr(row_products, "_measured", lambda _weights: PLAIN)
    monkeypatch.setattr(row_products, "_fastest", {})
    assert experts.expert_path(model) == "selected experts, one product each (without oneDNN)"
