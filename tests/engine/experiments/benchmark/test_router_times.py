"""Timed router calls: who is called, how often, and what is put back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import OlmoeForCausalLM, PreTrainedTokenizerFast

from bh_studio.engine.experiments.benchmark import router_times
from bh_studio.engine.experiments.benchmark.router_times import RouterClock
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.moe.routers import find_routers
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.rules.parameters import RouterShape, RuleParameters
from tests.tiny_olmoe import EXPERTS, LAYERS, TOP_K

PROMPT = torch.arange(12)[None]


@pytest.fixture
def loaded(
    model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerFast, recording: Recording
) -> LoadedModel:
    shape = RouterShape(LAYERS, EXPERTS, TOP_K, norm_topk_prob=False)
    info = SimpleNamespace(fingerprint=recording.origin.model_fingerprint)
    return LoadedModel(model, tokenizer, recording, shape, info, frozenset())  # type: ignore[arg-type]


def patched(model: OlmoeForCausalLM) -> bool:
    modules = [*find_routers(model), model.base_model]
    return any("forward" in vars(module) for module in modules)


def test_all_three_ways_call_every_router_with_its_own_row(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_times, "_PASSES", 1)
    clock = RouterClock(loaded, RuleParameters(level=0.1, max_k=8), PROMPT)
    calls: list[tuple[int, torch.Size]] = []
    for layer, router in enumerate(find_routers(loaded.model)):

        def count(_router: nn.Module, inputs: Any, layer: int = layer) -> None:
            calls.append((layer, inputs[0].shape))

        router.register_forward_pre_hook(count)
    times = clock.measure(blocks=2)
    assert calls == [(layer, torch.Size([1, 32])) for layer in range(LAYERS)] * 3 * 2
    assert len(times.own) == len(times.bh) == len(times.bh_with_statistics) == 2
    assert not patched(loaded.model)


def test_routers_are_put_back_after_an_error(loaded: LoadedModel) -> None:
    clock = RouterClock(loaded, RuleParameters(level=0.1, max_k=8), PROMPT)

    def fail(*_arguments: Any) -> None:
        raise KeyError

    find_routers(loaded.model)[1].register_forward_pre_hook(fail)
    with pytest.raises(KeyError):
        clock.measure(blocks=1)
    assert not patched(loaded.model)
