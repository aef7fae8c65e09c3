"""The sensitivity of the answer to each expert: against exact Fisher information and against KL."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import OlmoeForCausalLM

from bh_studio.engine.calibration.sensitivity import sensitivities, squared_effects
from bh_studio.engine.moe.expert_weights import find_experts
from bh_studio.engine.moe.experts import expert_output
from tests.tiny_olmoe import EXPERTS, LAYERS, TOP_K, tiny_model

IDS = torch.tensor([3, 1, 200, 7, 42, 9])
LAYER = 1


def precise_model() -> OlmoeForCausalLM:
    """In float64, with the only one of transformers' expert computations that can do that."""
    model = tiny_model(dtype=torch.float64)
    model.set_experts_implementation("eager")
    return model


def shifted_logits(model: OlmoeForCausalLM, shift: Tensor) -> Tensor:
    """Logits of all positions with `shift`, (token, hidden), added to what LAYER's experts give."""
    experts = model.model.layers[LAYER].mlp.experts
    hook = experts.register_forward_hook(lambda _module, _inputs, output: output + shift)
    try:
        with torch.no_grad():
            logits: Tensor = model(IDS[None]).logits[0]
    finally:
        hook.remove()
    return logits


def selected_outputs(model: OlmoeForCausalLM) -> list[tuple[int, int, float, Tensor]]:
    """(token, expert, mixing weight, output) of everything that LAYER selects."""
    seen: list[tuple[Tensor, ...]] = []
    experts = find_experts(model)[LAYER]
    hook = experts.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs))  # type: ignore[attr-defined]
    with torch.no_grad():
        model(IDS[None])
        hook.remove()
        rows, indices, weights = seen[0]
        return [
            (token, index, weight, expert_output(experts, rows[token : token + 1], index)[0])
            for token in range(len(IDS))
            for index, weight in zip(indices[token].tolist(), weights[token].tolist(), strict=True)
        ]


def exact_effect(model: OlmoeForCausalLM, token: int, output: Tensor) -> float:
    """The Fisher information of all positions' answers in the direction `output` at `token`."""
    direction = torch.zeros(len(IDS), len(output), dtype=output.dtype)
    direction[token] = output
    step = 1e-4
    slope = (shifted_logits(model, step * direction) - shifted_logits(model, -step * direction)) / (
        2 * step
    )
    p = shifted_logits(model, 0 * direction).softmax(-1)
    return float(((p * slope**2).sum(-1) - (p * slope).sum(-1) ** 2).sum())


def expert_sensitivities(
    model: OlmoeForCausalLM, windows: list[torch.Tensor], skipped: int
) -> torch.Tensor:
    """The factors over several windows."""
    sums = [squared_effects(model, ids, n, skipped) for n, ids in enumerate(windows)]
    return sensitivities(torch.stack(sums).sum(0))


def test_what_is_drawn_depends_on_the_place_of_the_window_alone() -> None:
    model = tiny_model()
    first, second = (squared_effects(model, IDS, number, 0) for number in (0, 1))
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], second[0])
    assert torch.equal(squared_effects(model, IDS, 1, 0), second)


def test_it_estimates_the_fisher_information() -> None:
    model = precise_model()
    exact = torch.zeros(EXPERTS, dtype=torch.float64)
    tokens = torch.zeros(EXPERTS)
    for token, expert, _, output in selected_outputs(model):
        exact[expert] += exact_effect(model, token, output)
        tokens[expert] += 1
    used = tokens > 0
    # One drawn token a position and window: the mean over many windows comes near.
    found = expert_sensitivities(model, [IDS] * 300, skipped=0)[LAYER].double()
    ratio = found[used].square() / (exact / tokens)[used]
    assert float(ratio.mean()) == pytest.approx(1, abs=0.05)
    assert float((ratio - 1).abs().max()) < 0.35


def test_half_its_square_is_the_divergence_of_leaving_a_little_out() -> None:
    model = precise_model()
    for token, _, weight, output in selected_outputs(model)[:8]:
        left_out = torch.zeros(len(IDS), len(output), dtype=output.dtype)
        left_out[token] = -0.01 * weight * output
        p, q = (shifted_logits(model, s).log_softmax(-1) for s in (0 * left_out, left_out))
        divergence = float((p.exp() * (p - q)).sum())
        expected = (0.01 * weight) ** 2 * exact_effect(model, token, output) / 2
        assert divergence == pytest.approx(expected, rel=0.02)


def test_experts_that_nothing_selected_get_the_middle_of_their_layer() -> None:
    found = expert_sensitivities(tiny_model(), [IDS[:2]], skipped=0)
    assert found.shape == (LAYERS, EXPERTS)
    assert found.dtype == torch.float32
    assert (found > 0).all()
    values, counts = found[0].unique(return_counts=True)
    assert counts.max() >= EXPERTS - 2 * TOP_K
    middle = values[counts.argmax()]
    assert values.min() < middle < values.max()


def test_it_repeats_and_leaves_the_model_as_it_was() -> None:
    model = tiny_model()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        before = model(IDS[None]).logits
        first = expert_sensitivities(model, [IDS], skipped=2)
    torch.testing.assert_close(expert_sensitivities(model, [IDS], skipped=2), first, rtol=0, atol=0)
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():
        torch.testing.assert_close(model(IDS[None]).logits, before, rtol=0, atol=0)


def test_positions_at_the_start_are_left_out() -> None:
    whole = expert_sensitivities(tiny_model(), [IDS], skipped=0)
    rest = expert_sensitivities(tiny_model(), [IDS], skipped=4)
    assert not torch.equal(whole, rest)
