"""Seven checks of routing inside a model of transformers, on its own router class, without mercy.

Each holds for a tiny model with random weights and for the model that ships.
"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import OlmoeForCausalLM
from transformers.models.olmoe.modeling_olmoe import OlmoeTopKRouter

from bh_studio.engine.loading import load_model
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.moe.routers import find_routers, router_shape
from bh_studio.engine.notebook import BHRoutingIntegration
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.rules.parameters import MixingWeights, Mode, RuleName, RuleParameters
from tests.tiny_olmoe import tiny_model, tiny_tokenizer

TEXT = "Once upon a time there was a miller who lived by the river with his three sons."
# Levels at which every rule gives different tokens different counts.
LEVELS = {
    RuleName.BH: 0.1,
    RuleName.BY: 0.3,
    RuleName.STOREY: 0.1,
    RuleName.HIGHER_CRITICISM: 0.3,
    RuleName.TOP_K: 3,
    RuleName.TOP_P: 0.5,
    RuleName.MIN_P: 0.3,
    RuleName.CUT: 0.05,
    RuleName.ENTROPY: 0.8,
}


@dataclass(frozen=True)
class Subject:
    """A model with its null and a prompt, and what its stock routers are given for that prompt."""

    model: OlmoeForCausalLM
    recording: Recording
    prompt: Tensor
    hidden: list[Tensor]

    @property
    def experts(self) -> int:
        return int(self.model.config.num_experts)

    @property
    def gates(self) -> list[Any]:
        return [layer.mlp.gate for layer in self.model.model.layers]

    def bh(self, **parameters: Any) -> BHRoutingIntegration:
        return BHRoutingIntegration(
            self.model,
            **{"alpha": 0.1, "max_k": self.experts, **parameters},
            recording=self.recording,
        )

    @torch.inference_mode()
    def logits(self) -> Tensor:
        """Of the prompt in one pass, and then of one token alone after it."""
        first = self.model(self.prompt, use_cache=True)
        second = self.model(self.prompt[:, :1], past_key_values=first.past_key_values)
        return torch.cat([first.logits, second.logits], dim=1)

    @torch.inference_mode()
    def routed(self) -> list[tuple[Tensor, ...]]:
        """What each router makes of its stock input: logits, weights, indices."""
        return [gate(rows) for gate, rows in zip(self.gates, self.hidden, strict=True)]

    def is_stock(self) -> bool:
        """Whether no instance has a forward of its own."""
        return not any("forward" in vars(module) for module in self.model.modules())


def subject_of(model: OlmoeForCausalLM, recording: Recording, prompt: Tensor) -> Subject:
    hidden: list[Tensor] = []
    hooks = [
        layer.mlp.gate.register_forward_pre_hook(lambda _module, inputs: hidden.append(inputs[0]))
        for layer in model.model.layers
    ]
    with torch.inference_mode():
        model(prompt)
    for hook in hooks:
        hook.remove()
    return Subject(model, recording, prompt, hidden)


@pytest.fixture(scope="module", params=["tiny", "embedded"])
def subject(request: pytest.FixtureRequest, recording: Recording) -> Subject:
    if request.param == "tiny":
        return subject_of(
            tiny_model(), recording, tiny_tokenizer()(TEXT, return_tensors="pt").input_ids
        )
    loaded = load_model()
    return subject_of(
        loaded.model, loaded.recording, loaded.tokenizer(TEXT, return_tensors="pt").input_ids
    )


def test_all_routers_are_found(subject: Subject) -> None:
    config, found = subject.model.config, find_routers(subject.model)
    assert len(found) == config.num_hidden_layers
    assert all(one is other for one, other in zip(found, subject.gates, strict=True))
    assert {type(router) for router in found} == {OlmoeTopKRouter}
    assert all(one is other for one, other in zip(subject.bh().routers, found, strict=True))
    shape = router_shape(found)
    assert (shape.layers, shape.experts) == (config.num_hidden_layers, config.num_experts)
    assert (shape.top_k, shape.norm_topk_prob) == (config.num_experts_per_tok, False)


def test_patched_routers_give_other_weights_and_stock_ones_come_back(subject: Subject) -> None:
    stock, logits = subject.routed(), subject.logits()
    assert subject.is_stock()
    with subject.bh():
        patched = subject.routed()
        assert not torch.equal(subject.logits(), logits)
    for (own_logits, own_weights, _), (found_logits, weights, _) in zip(
        stock, patched, strict=True
    ):
        assert torch.equal(found_logits, own_logits)
        assert weights.dtype == own_weights.dtype
        used = (weights > 0).sum(1)
        assert not torch.equal(used, (own_weights > 0).sum(1))
        assert len(set(used.tolist())) > 1
    assert subject.is_stock()
    for own, restored in zip(stock, subject.routed(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(own, restored, strict=True))
    assert torch.equal(subject.logits(), logits)


@pytest.mark.parametrize(
    ("rule", "weights"),
    [
        *((rule, MixingWeights.MODEL) for rule in RuleName),
        *itertools.product(
            (RuleName.BH, RuleName.TOP_P), (MixingWeights.RENORMALIZE, MixingWeights.MATCH)
        ),
    ],
)
def test_weights_are_valid(rule: RuleName, weights: MixingWeights, subject: Subject) -> None:
    max_k = subject.experts // 2
    parameters = RuleParameters(rule, LEVELS[rule], max_k=max_k, weights=weights)
    integration = RoutingIntegration(subject.model, parameters, recording=subject.recording)
    with integration:
        subject.logits()
        first = subject.routed()
        # A pass of the decoder tells how many slots each token uses.
        with torch.inference_mode():
            subject.model(subject.prompt)
        counts = torch.from_numpy(integration.last_counts()[0]).long()
    # The input of layer 0 does not depend on the routing.
    used = torch.arange(max_k) < counts[:, :1]
    assert torch.equal(first[0][1] > 0, used)
    for logits, mixing, indices in first:
        assert mixing.shape == indices.shape == (len(logits), max_k)
        assert mixing.isfinite().all()
        assert (mixing >= 0).all()
        # Used slots come first, and what follows is exactly 0.
        assert ((mixing > 0).int().diff(dim=1) <= 0).all()
        assert (mixing[:, 0] > 0).all()
        assert ((indices >= 0) & (indices < subject.experts)).all()
        assert (indices.sort(dim=1).values.diff(dim=1) > 0).all()
        sums = mixing.sum(1)
        if weights is MixingWeights.MODEL:
            probabilities = logits.softmax(-1).gather(1, indices)
            assert torch.equal(mixing, torch.where(mixing > 0, probabilities, 0))
            assert (sums <= 1 + 1e-6).all()
        elif weights is MixingWeights.RENORMALIZE:
            torch.testing.assert_close(sums, torch.ones_like(sums))
        else:
            top_k = subject.model.config.num_experts_per_tok
            native = logits.softmax(-1).topk(top_k).values.sum(1)
            torch.testing.assert_close(sums, native)


def test_mean_experts_rise_with_alpha(subject: Subject) -> None:
    means, totals = [], []
    for alpha in (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5):
        bh = subject.bh(alpha=alpha, mode="analyze")
        with warnings.catch_warnings():
            # The smallest levels are below what these nulls can tell apart, and say so.
            warnings.filterwarnings("ignore", message="The null holds")
            bh.patch_model()
        subject.logits()
        bh.unpatch_model()
        means.append(bh.get_routing_stats()["bh_would_select_mean"])
        totals.append(np.array(bh.get_routing_stats()["per_layer_mean"]))
    assert means == sorted(means)
    assert len(set(means)) == len(means)
    assert means[-1] > means[0] + 3
    # Token by token it can only grow, hence in every layer.
    assert all((later >= earlier).all() for earlier, later in itertools.pairwise(totals))


@pytest.mark.parametrize("rule", RuleName)
def test_analyze_mode_leaves_the_output_unchanged_bit_for_bit(
    rule: RuleName, subject: Subject
) -> None:
    logits, stock = subject.logits(), subject.routed()
    parameters = RuleParameters(rule, LEVELS[rule], max_k=subject.experts, mode=Mode.ANALYZE)
    with RoutingIntegration(subject.model, parameters, recording=subject.recording) as analyzing:
        assert torch.equal(subject.logits(), logits)
        for own, found in zip(stock, subject.routed(), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(own, found, strict=True))
    stats = analyzing.get_routing_stats()
    assert stats["mean_experts_per_token"] == subject.model.config.num_experts_per_tok
    # It would have changed much.
    used = np.nonzero(stats["histogram"])[0]
    assert used.tolist() != [subject.model.config.num_experts_per_tok]
    assert len(used) > 1 or rule is RuleName.TOP_K


@pytest.mark.parametrize("mode", Mode)
@torch.inference_mode()
def test_statistics_are_there_and_agree_with_the_counts(mode: Mode, subject: Subject) -> None:
    bh = subject.bh(mode=mode.value, min_k=2, max_k=6)
    with bh:
        past = subject.model(subject.prompt, use_cache=True).past_key_values
        prefill, raw_prefill = bh.last_counts()
        subject.model(subject.prompt[:, :1], past_key_values=past)
        decode, raw_decode = bh.last_counts()
    layers, length = subject.model.config.num_hidden_layers, subject.prompt.shape[1]
    assert (prefill.shape, decode.shape) == ((length, layers), (1, layers))
    counts, raw = np.concatenate([prefill, decode]), np.concatenate([raw_prefill, raw_decode])
    np.testing.assert_array_equal(counts, raw.clip(2, 6))
    stats = bh.get_routing_stats()
    if mode is Mode.ANALYZE:
        assert stats["mean_experts_per_token"] == subject.model.config.num_experts_per_tok
        assert stats["std_experts_per_token"] == 0
        assert stats["bh_would_select_mean"] == pytest.approx(counts.mean())
    else:
        assert stats["mean_experts_per_token"] == pytest.approx(counts.mean())
        assert stats["std_experts_per_token"] == pytest.approx(counts.std())
        assert "bh_would_select_mean" not in stats
    assert (stats["total_forward_passes"], stats["tokens"]) == (2, length + 1)
    np.testing.assert_allclose(stats["per_layer_mean"], counts.mean(axis=0))
    assert stats["histogram"] == np.bincount(counts.ravel(), minlength=7).tolist()
    assert sum(stats["histogram"]) == counts.size
    assert stats["share_empty"] == pytest.approx((raw == 0).mean())
    assert stats["share_clamped_min"] == pytest.approx((raw < 2).mean())
    assert stats["share_clamped_max"] == pytest.approx((raw > 6).mean())
    assert stats["share_clamped_max"] > 0
    for name, block in (("prefill", prefill), ("decode", decode)):
        assert stats[name]["tokens"] == len(block)
        assert stats[name]["mean"] == pytest.approx(block.mean())
        np.testing.assert_allclose(stats[name]["per_layer_mean"], block.mean(axis=0))


def test_the_context_manager_patches_and_restores_also_after_an_error(subject: Subject) -> None:
    logits, bh = subject.logits(), subject.bh()
    with bh as entered:
        assert entered is bh
        assert all("forward" in vars(gate) for gate in subject.gates)
        patched = subject.logits()
    assert not torch.equal(patched, logits)

    def fail(inside: str) -> None:
        with bh:
            if inside == "the block":
                raise KeyError(inside)
            subject.model(torch.tensor([[10**9]]))

    for inside, error in (("the block", KeyError), ("a forward pass", IndexError)):
        with pytest.raises(error):
            fail(inside)
        assert not bh.is_patched
        assert subject.is_stock()
        assert torch.equal(subject.logits(), logits)
    # The same integration serves again, and does the same.
    with bh:
        assert torch.equal(subject.logits(), patched)
    assert torch.equal(subject.logits(), logits)
