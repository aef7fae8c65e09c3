"""The experts of CUDA devices against transformers' own: interpreted where there is no GPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bh_studio.engine.kernels.triton_support import triton_problem
from bh_studio.engine.moe.expert_rows import ExpertRows
from bh_studio.engine.moe.experts import use_selected_experts
from tests.tiny_olmoe import tiny_model

pytest.importorskip("triton")

from bh_studio.engine.kernels import expert_kernels, triton_support
from bh_studio.engine.moe import experts_cuda
from tests.engine.interpreted_kernels import DEVICE, ON_GPU, kernels_run

EXPERTS, SLOTS = 6, 3
# Largest difference allowed, as a share of the largest output. Triton's interpreter cuts numbers
# off where a GPU rounds them to the nearest bfloat16.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2 if ON_GPU else 4e-2}
# Widths that are powers of two; that are not, but start rows where grouped products may; and such
# as only the kernels take.
SHAPES = {"round": (16, 8), "odd": (24, 40), "ragged": (22, 10)}
WAYS = [experts_cuda.few_rows, experts_cuda.many_rows]


@pytest.fixture(scope="module", autouse=True)
def _kernels_run() -> Iterator[None]:
    with kernels_run(), torch.inference_mode():
        yield


def drawn(
    rows: int = 4, dtype: torch.dtype = torch.float32, shape: str = "round"
) -> tuple[Any, Tensor, Tensor, Tensor]:
    """Experts, hidden states, and for each row SLOTS of the experts with their weights."""
    hidden_size, width = SHAPES[shape]
    model = tiny_model(
        dtype=dtype, num_hidden_layers=1, hidden_size=hidden_size, intermediate_size=width,
        num_attention_heads=1, num_key_value_heads=1, num_experts=EXPERTS, top_k=SLOTS,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, hidden_size, generator=generator)
    indices = torch.rand(rows, EXPERTS, generator=generator).argsort(dim=1)[:, :SLOTS]
    weights = 0.1 + torch.rand(rows, SLOTS, generator=generator)
    return (
        model.model.layers[0].mlp.experts.to(DEVICE), hidden.to(DEVICE, dtype), indices.to(DEVICE),
        weights.to(DEVICE, dtype),
    )  # fmt: skip


def eager(module: Any, hidden: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    module.config._experts_implementation = "eager"
    output: Tensor = module(hidden, indices, weights)
    return output


def assert_near(found: Tensor, expected: Tensor) -> None:
    assert found.dtype == expected.dtype
    scale = float(expected.abs().max())
    tolerance = TOLERANCES[found.dtype]
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("way", "shape"),
    [(way, shape) for way in WAYS for shape in ("round", "odd")] + [(WAYS[0], "ragged")],
)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_equals_eager_wherever_weights_are_zero(way: Any, shape: str, dtype: torch.dtype) -> None:
    module, hidden, indices, weights = drawn(4, dtype, shape)
    # The first row uses all slots, one only its first, one leaves the first out, one uses none.
    weights[1, 1:] = 0
    weights[2, 0] = 0
    weights[3] = 0
    found = way(module, hidden, indices, weights)
    assert_near(found, eager(module, hidden, indices, weights))
    assert not found[3].any()


@pytest.mark.parametrize("way", WAYS)
def test_weights_may_stay_in_float32(way: Any) -> None:
    module, hidden, indices, weights = drawn(2, torch.bfloat16)
    found = way(module, hidden, indices, weights.float())
    assert found.dtype == torch.bfloat16
    assert_near(found, eager(module, hidden, indices, weights))


def test_the_kernels_give_a_row_the_same_bits_alone_and_among_others() -> None:
    module, hidden, indices, weights = drawn(3)
    weights[1, 0] = 0
    together = experts_cuda.few_rows(module, hidden, indices, weights)
    for row in range(3):
        own = slice(row, row + 1)
        alone = experts_cuda.few_rows(module, hidden[own], indices[own], weights[own])
        assert torch.equal(alone, together[own])


@pytest.mark.parametrize("way", WAYS)
def test_experts_that_are_not_selected_are_not_looked_at(way: Any) -> None:
    module, hidden, indices, weights = drawn(2)
    indices[:] = torch.tensor([[0, 1, 2], [2, 4, 0]], device=DEVICE)
    weights[:] = torch.tensor([[0.0, 0.5, 0.3], [0.7, 0.0, 0.0]], device=DEVICE)
    expected = way(module, hidden, indices, weights)
    for unused in (0, 3, 4, 5):
        module.gate_up_proj[unused] = torch.nan
        module.down_proj[unused] = torch.nan
    assert torch.equal(way(module, hidden, indices, weights), expected)
    assert expected.isfinite().all()


def test_the_kernels_read_no_expert_of_weight_0() -> None:
    module, hidden, indices, weights = drawn(2, shape="ragged")
    weights[0, 1] = weights[1, 2] = 0
    (_, size), width = hidden.shape, module.down_proj.shape[-1]
    activated = torch.full((2, SLOTS, width), torch.nan, device=DEVICE)
    expert_kernels.gate_up[(3,)](
        hidden, indices, weights, indices, module.gate_up_proj, activated, 2 * SLOTS,
        SLOTS=SLOTS, SIZE=size, PADDED=32, WIDTH=width, BLOCK=4, ONE_ROW=False, DEPENDENT=False,
    )  # fmt: skip
    assert torch.equal(activated.isnan().any(-1), weights == 0)
    assert torch.equal(activated.isnan().all(-1), weights == 0)


@pytest.mark.parametrize("way", WAYS)
def test_rows_need_not_lie_together(way: Any) -> None:
    module, hidden, indices, weights = drawn(4)
    expected = way(module, hidden[::2].contiguous(), indices[::2], weights[::2])
    strided = hidden[::2], indices[::2], weights.T.contiguous().T[::2]
    assert torch.equal(way(module, *strided), expected)


def test_the_same_expert_may_fill_two_slots_of_a_row() -> None:
    module, hidden, indices, weights = drawn(2)
    indices[:, 1] = indices[:, 0]
    expected = eager(module, hidden, indices, weights)
    for way in WAYS:
        assert_near(way(module, hidden, indices, weights), expected)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_grouped_products_are_the_same_while_a_graph_is_captured(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, hidden, indices, weights = drawn(40, dtype)
    weights[::2, 1] = 0
    weights[3] = 0
    expected = experts_cuda.many_rows(module, hidden, indices, weights)
    assert_near(expected, eager(module, hidden, indices, weights))
    # Then nothing may wait for the device, so slots are left that no product writes.
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    product = F.grouped_mm

    def unwritten(*arguments: Tensor, offs: Tensor) -> Tensor:
        output = product(*arguments, offs=offs)
        output[offs[-1] :] = torch.nan
        return output

    monkeypatch.setattr(F, "grouped_mm", unwritten)
    assert_near(experts_cuda.many_rows(module, hidden, indices, weights), expected)


# Which way is taken


@pytest.mark.parametrize(("rows", "way"), [(1, "few_rows"), (4, "few_rows"), (5, "many_rows")])
def test_few_rows_take_the_kernels(rows: int, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, hidden, indices, weights = drawn(rows)
    monkeypatch.setattr(experts_cuda, way, lambda *arguments: arguments)
    found: Any = experts_cuda.forward(module, hidden, indices, weights)
    assert found == (module, hidden, indices, weights)


def test_what_looks_at_the_activation_is_called() -> None:
    model: Any = tiny_model(num_hidden_layers=1).to(DEVICE)
    module = model.model.layers[0].mlp.experts
    hidden = torch.ones(2, 32, device=DEVICE)
    indices = torch.tensor([[0, 1], [2, 0]], device=DEVICE)
    weights = torch.tensor([[0.5, 0.0], [0.2, 0.2]], device=DEVICE)
    with ExpertRows(model) as counter:
        experts_cuda.forward(module, hidden, indices, weights)
    assert counter.rows == [3]
    experts_cuda.forward(module, hidden, indices, weights)
    assert counter.rows == [3]


def test_the_path_is_said_in_words() -> None:
    model: Any = tiny_model(num_hidden_layers=1).to(DEVICE)
    use_selected_experts(model)
    assert experts_cuda.describe(model) == (
        "selected experts, Triton kernels up to 4 rows, grouped products above"
    )
    module = model.model.layers[0].mlp.experts
    module.act_fn = nn.GELU()
    assert experts_cuda.describe(model) == (
        "selected experts, grouped products (the experts' activation is GELU)"
    )
    hidden = torch.ones(1, 32, device=DEVICE)
    indices, weights = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1)
    found = experts_cuda.forward(module, hidden, indices.to(DEVICE), weights.to(DEVICE))
    assert_near(found, eager(module, hidden, indices.to(DEVICE), weights.to(DEVICE)))


def test_kernels_need_a_working_triton_and_a_gpu_with_bfloat16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = triton_problem.__wrapped__
    assert problem(DEVICE) == ""

    def fail(_device: torch.device) -> None:
        raise RuntimeError("no C compiler\nat all")

    monkeypatch.setattr(triton_support, "_try_a_kernel", fail)
    assert problem(DEVICE) == "Triton cannot build kernels here: no C compiler"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (7, 5))
    assert problem(DEVICE) == "the GPU has compute capability 7.5, kernels need 8.0"
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert problem(DEVICE) == "Triton is not installed"
