"""The decode loop against transformers' own generate, and its stopping conditions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import OlmoeForCausalLM, PreTrainedTokenizerFast

from bh_studio.engine.generation import SideDecoder
from bh_studio.engine.messages import FinishReason, GenerationParameters
from bh_studio.engine.nulls import RouterNull
from bh_studio.engine.routers import RouterShape
from bh_studio.engine.routing import BHRoutingIntegration
from tests.tiny_olmoe import CONTEXT, EXPERTS, LAYERS, TOP_K, tiny_model, tiny_tokenizer

SHAPE = RouterShape(LAYERS, EXPERTS, TOP_K, norm_topk_prob=False)
PROMPTS = [
    "Once upon a time",
    "The fox",
    "a",
    "Hot soup, cold bread and 3 apples; then home!",
    "\n\nChapter the last",
]


def encode(text: str) -> Tensor:
    token_ids: Tensor = tiny_tokenizer()(text, return_tensors="pt").input_ids
    return token_ids


def run(decoder: SideDecoder) -> tuple[list[int], FinishReason]:
    token_ids = []
    while True:
        step = decoder.step()
        token_ids.append(step.token_id)
        if step.finish_reason is not None:
            return token_ids, step.finish_reason


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("implementation", ["grouped_mm", "bh_selected"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_equals_generate(prompt: str, implementation: str, dtype: torch.dtype) -> None:
    model = tiny_model(dtype=dtype)
    model.set_experts_implementation(implementation)
    token_ids = encode(prompt)
    expected = model.generate(token_ids, do_sample=False, max_new_tokens=40)
    found, _ = run(
        SideDecoder(
            model, token_ids, GenerationParameters(40, sampling=False), frozenset([256]), SHAPE
        )
    )
    assert found == expected[0, token_ids.shape[1] :].tolist()


@pytest.mark.parametrize("top_p", [0.8, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_sampling_equals_generate(seed: int, top_p: float, model: OlmoeForCausalLM) -> None:
    token_ids = encode("Once upon a time")
    torch.manual_seed(seed)
    expected = model.generate(
        token_ids, do_sample=True, temperature=0.7, top_p=top_p, top_k=0, max_new_tokens=40
    )
    parameters = GenerationParameters(40, sampling=True, temperature=0.7, top_p=top_p, seed=seed)
    found, _ = run(SideDecoder(model, token_ids, parameters, frozenset([256]), SHAPE))
    assert found == expected[0, token_ids.shape[1] :].tolist()
    again, _ = run(SideDecoder(model, token_ids, parameters, frozenset([256]), SHAPE))
    assert again == found


def test_two_decoders_share_a_model_and_take_turns(
    model: OlmoeForCausalLM, null: RouterNull
) -> None:
    token_ids, parameters = encode("Once upon a time"), GenerationParameters(20, sampling=False)
    alone, _ = run(SideDecoder(model, token_ids, parameters, frozenset(), SHAPE))
    bh = BHRoutingIntegration(model, alpha=0.1, max_k=TOP_K, null=null)
    bh_alone, _ = run(SideDecoder(model, token_ids, parameters, frozenset(), SHAPE, bh))
    assert alone != bh_alone
    left = SideDecoder(model, token_ids, parameters, frozenset(), SHAPE)
    right = SideDecoder(model, token_ids, parameters, frozenset(), SHAPE, bh)
    pairs = [(left.step(), right.step()) for _ in range(20)]
    assert [pair[0].token_id for pair in pairs] == alone
    assert [pair[1].token_id for pair in pairs] == bh_alone
    assert not bh.is_patched


def test_counts_have_one_row_a_position_that_was_read(
    model: OlmoeForCausalLM, null: RouterNull
) -> None:
    token_ids = encode("Once upon a time")
    bh = BHRoutingIntegration(model, alpha=0.1, max_k=TOP_K, null=null)
    for integration in (None, bh):
        decoder = SideDecoder(
            model,
            token_ids,
            GenerationParameters(5, sampling=False),
            frozenset(),
            SHAPE,
            integration,
        )
        first, second = decoder.step(), decoder.step()
        assert first.expert_counts.shape == (token_ids.shape[1], LAYERS)
        assert second.expert_counts.shape == (1, LAYERS)
        if integration is None:
            assert (first.expert_counts == TOP_K).all()
        else:
            assert (first.raw_counts.clip(1, TOP_K) == first.expert_counts).all()


def test_ends_at_the_end_of_text_token(
    model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    token_ids = encode("Once")
    free, reason = run(
        SideDecoder(model, token_ids, GenerationParameters(30, sampling=False), frozenset(), SHAPE)
    )
    assert (len(free), reason) == (30, FinishReason.MAX_NEW_TOKENS)
    end = free[7]
    found, reason = run(
        SideDecoder(
            model, token_ids, GenerationParameters(30, sampling=False), frozenset([end]), SHAPE
        )
    )
    assert found == free[: free.index(end) + 1]
    assert reason is FinishReason.END_OF_TEXT


def test_ends_when_the_context_is_full(model: OlmoeForCausalLM) -> None:
    token_ids = encode("x" * (CONTEXT - 3))
    found, reason = run(
        SideDecoder(model, token_ids, GenerationParameters(500, sampling=False), frozenset(), SHAPE)
    )
    assert len(found) == 3
    assert reason is FinishReason.CONTEXT_LENGTH
