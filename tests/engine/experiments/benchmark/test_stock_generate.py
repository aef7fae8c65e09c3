"""Stock `generate` timed token by token, and what is put back afterwards."""

from __future__ import annotations

import logging
import warnings

import pytest
import torch
from transformers import OlmoeForCausalLM

from bh_studio.engine.experiments.benchmark.stock_generate import (
    default_expert_path,
    generate,
    stock_computation,
    without_traces,
)

PROMPT = torch.arange(8)[None]


def test_an_end_of_text_does_not_end_it(model: OlmoeForCausalLM) -> None:
    free = model.generate(PROMPT, do_sample=False, max_new_tokens=12, eos_token_id=300)
    model.generation_config.eos_token_id = int(free[0, 10])  # the third new token
    assert model.generate(PROMPT, do_sample=False, max_new_tokens=12).shape[1] < 20
    times = generate(model, PROMPT, 12, lambda: None)
    assert len(times.seconds) == 12
    assert times.seconds == sorted(times.seconds)


def test_an_error_between_tokens_ends_it(model: OlmoeForCausalLM) -> None:
    calls: list[None] = []

    def stop() -> None:
        calls.append(None)
        if len(calls) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        generate(model, PROMPT, 12, stop)
    assert len(calls) == 3


def test_what_is_changed_is_quiet_and_put_back(model: OlmoeForCausalLM) -> None:
    assert default_expert_path(model) == "grouped_mm"
    model.set_experts_implementation("eager")
    threads = torch.get_num_threads()

    def fail_inside() -> None:
        with stock_computation(model, "batched_mm", threads + 1):
            assert model.config._experts_implementation == "batched_mm"
            assert torch.get_num_threads() == threads + 1
            warnings.warn("not heard", stacklevel=1)
            assert not logging.getLogger("torch._inductor").isEnabledFor(logging.WARNING)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail_inside()
    assert model.config._experts_implementation == "eager"
    assert torch.get_num_threads() == threads
    assert logging.getLogger("torch._inductor").isEnabledFor(logging.WARNING)


def test_traces_are_removed_also_after_an_error(model: OlmoeForCausalLM) -> None:
    before = dict(vars(model))

    def fail_inside() -> None:
        with without_traces(model):
            generate(model, PROMPT, 2, lambda: None, cache_implementation="static")
            assert vars(model) != before
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail_inside()
    assert vars(model) == before
