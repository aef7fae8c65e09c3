"""What is seen of experts is what runs, whatever is reported of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import OlmoeForCausalLM

from bh_studio.engine.decoding.step import hook_problem
from bh_studio.engine.moe import experts_cpu
from bh_studio.engine.moe.experts import use_selected_experts
from bh_studio.engine.moe.watched_experts import WatchedExperts
from tests.tiny_olmoe import LAYERS, TOP_K


@pytest.fixture
def selecting(model: OlmoeForCausalLM) -> OlmoeForCausalLM:
    use_selected_experts(model)
    return model


def read(model: OlmoeForCausalLM, positions: int) -> None:
    with torch.inference_mode():
        model(torch.arange(positions)[None])


def test_every_position_has_the_experts_of_the_model(selecting: OlmoeForCausalLM) -> None:
    watched = WatchedExperts(selecting)
    for positions in (7, 1):
        with watched:
            read(selecting, positions)
        counts, computed = watched.taken(positions)
        assert counts.shape == (positions, LAYERS)
        assert (counts == TOP_K).all()
        assert computed.tolist() == [positions * TOP_K] * LAYERS


def test_only_what_runs_inside_a_block_is_seen(selecting: OlmoeForCausalLM) -> None:
    watched = WatchedExperts(selecting)
    read(selecting, 3)
    assert not watched.taken(3)[0].any()
    with watched:
        assert hook_problem(selecting)
    assert not hook_problem(selecting)
    assert not any("forward" in vars(module) for module in selecting.modules())


def test_weights_of_zero_ask_for_nothing(selecting: OlmoeForCausalLM) -> None:
    def without_last(_router: object, _inputs: object, outputs: tuple[Tensor, ...]) -> object:
        logits, weights, indices = outputs
        weights = weights.clone()
        weights[2, -1] = 0
        return logits, weights, indices

    selecting.model.layers[1].mlp.gate.register_forward_hook(without_last)
    watched = WatchedExperts(selecting)
    with watched:
        read(selecting, 5)
    counts, computed = watched.taken(5)
    expected = np.full((5, LAYERS), TOP_K)
    expected[2, 1] -= 1
    np.testing.assert_array_equal(counts, expected)
    np.testing.assert_array_equal(computed, expected.sum(0))


def test_experts_that_do_other_work_than_they_are_given_are_seen(
    selecting: OlmoeForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    many_rows = experts_cpu._many_rows

    def lazy(experts: object, rows: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        weights = weights.clone()
        weights[0, 0] = 0
        return many_rows(experts, rows, indices, weights)  # type: ignore[arg-type]

    monkeypatch.setattr(experts_cpu, "_many_rows", lazy)
    watched = WatchedExperts(selecting)
    with watched:
        read(selecting, 5)
    counts, computed = watched.taken(5)
    assert (counts == TOP_K).all()
    assert computed.tolist() == [5 * TOP_K - 1] * LAYERS
