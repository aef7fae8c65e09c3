"""The product of one row: every way is right, the fastest is chosen, and no setting stays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bh_studio.engine.moe import row_products
from bh_studio.engine.moe.row_products import (
    LINEAR,
    PLAIN,
    SLICED,
    RowProduct,
    candidates,
    fastest_row_product,
    is_accurate,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
LARGE = torch.zeros(2, 1024, 512)  # 2 MiB each in float32


@pytest.fixture(autouse=True)
def _nothing_is_measured_or_changed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(row_products, "_fastest", {})
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    assert torch._C._get_mkldnn_enabled()


def takes(monkeypatch: pytest.MonkeyPatch, seconds: dict[RowProduct, float]) -> list[RowProduct]:
    """Make products take that long, and return a list that fills with what is measured."""
    measured: list[RowProduct] = []

    def clock(product: RowProduct, _row: Tensor, _weight: Tensor) -> float:
        measured.append(product)
        return seconds[product]

    monkeypatch.setattr(row_products, "_seconds", clock)
    return measured


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(24, 40), (1, 8), (1024, 1024), (1024, 2048)])
@torch.inference_mode()
def test_every_candidate_rounds_once_at_the_end(
    dtype: torch.dtype, threads: int, shape: tuple[int, int]
) -> None:
    torch.set_num_threads(threads)
    row, weight = torch.randn(1, shape[1]).to(dtype), torch.randn(shape).to(dtype)
    found = candidates(dtype)
    assert found[0] is LINEAR
    for product in {*found, SLICED}:
        assert is_accurate(product, row, weight), product.name
        with product.in_force():
            result = product.linear(row, weight)
        assert result.shape == (1, shape[0])
        assert result.dtype == dtype


@torch.inference_mode()
def test_slices_need_no_copy_and_put_no_output_in_another_place() -> None:
    torch.set_num_threads(2)
    weight = torch.arange(6 * 4, dtype=torch.float32).view(2, 3, 4).transpose(0, 1)
    for one in (*weight.unbind(0), torch.eye(3, 4)):  # three outputs do not divide by two threads
        torch.testing.assert_close(
            SLICED.linear(torch.arange(4.0)[None], one), F.linear(torch.arange(4.0)[None], one)
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_product_that_rounds_on_the_way_is_not_accurate(dtype: torch.dtype) -> None:
    def rounding(row: Tensor, weight: Tensor) -> Tensor:
        total = torch.zeros(1, len(weight), dtype=row.dtype)
        for column in range(row.shape[1]):
            total += row[:, column] * weight[:, column]
        return total

    generator = torch.Generator().manual_seed(0)
    row = torch.rand(1, 1024, generator=generator).to(dtype)
    weight = torch.rand(64, 1024, generator=generator).to(dtype)
    assert is_accurate(LINEAR, row, weight)
    assert not is_accurate(RowProduct("rounding", rounding), row, weight)


@pytest.mark.parametrize(
    ("plain", "expected"),
    [(0.5, PLAIN), (0.95, LINEAR), (2.0, LINEAR)],
    ids=["clearly faster", "hardly faster", "slower"],
)
def test_the_fastest_is_chosen_and_pytorchs_own_kept_in_doubt(
    plain: float, expected: RowProduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    takes(monkeypatch, {LINEAR: 1.0, PLAIN: plain})
    torch.set_num_threads(1)
    assert fastest_row_product(LARGE) is expected


def test_it_is_measured_once_a_dtype_and_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = takes(monkeypatch, {LINEAR: 1.0, PLAIN: 2.0, SLICED: 0.5})
    torch.set_num_threads(1)
    assert fastest_row_product(LARGE) is LINEAR
    first = len(measured)
    assert fastest_row_product(LARGE[0]) is LINEAR
    assert len(measured) == first
    torch.set_num_threads(2)
    assert fastest_row_product(LARGE) is SLICED
    assert SLICED in measured
    fastest_row_product(torch.zeros(1024, 1024, dtype=torch.bfloat16))
    assert (torch.bfloat16, 2) in row_products._fastest


def test_small_weights_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = takes(monkeypatch, {})
    assert fastest_row_product(torch.zeros(64, 32, 192)) is LINEAR
    assert fastest_row_product(torch.empty(2, 4096, 4096, device="meta")) is LINEAR
    assert measured == []


def test_an_inaccurate_product_is_not_chosen_however_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = RowProduct("wrong", lambda row, weight: 1.01 * F.linear(row, weight))
    monkeypatch.setattr(row_products, "candidates", lambda _dtype: [LINEAR, wrong])
    takes(monkeypatch, {LINEAR: 1.0, wrong: 0.1})
    assert fastest_row_product(torch.ones(2, 1024, 512)) is LINEAR


def test_the_random_numbers_of_the_process_are_left_alone() -> None:
    before = torch.random.get_rng_state()
    fastest_row_product(LARGE)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_settings_hold_inside_the_block_only() -> None:
    with PLAIN.in_force():
        assert not torch._C._get_mkldnn_enabled()
        with LINEAR.in_force(), PLAIN.in_force():
            assert not torch._C._get_mkldnn_enabled()
        assert not torch._C._get_mkldnn_enabled()
    assert torch._C._get_mkldnn_enabled()


def test_an_error_while_measuring_leaves_no_setting_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(_row: Tensor, _weight: Tensor) -> Tensor:
        raise RuntimeError("no memory")

    broken = RowProduct("broken", failing, with_onednn=False)
    monkeypatch.setattr(row_products, "candidates", lambda _dtype: [LINEAR, broken])
    with pytest.raises(RuntimeError, match="no memory"):
        fastest_row_product(LARGE)
    assert torch._C._get_mkldnn_enabled()
    assert row_products._fastest == {}
