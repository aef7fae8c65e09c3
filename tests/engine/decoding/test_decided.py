"""What is recorded of each token is what the routers and the model said, on every way to decode."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, OlmoeForCausalLM, PreTrainedTokenizerFast

from bh_studio.engine.calibration.recorder import calibration_text, make_recording
from bh_studio.engine.decoding.decided import choice_of, experts_that_ran
from bh_studio.engine.decoding.paths import CPU, GPU, GRAPH, STOCK, decode_path
from bh_studio.engine.decoding.side import SideDecoder, Step
from bh_studio.engine.errors import EngineError
from bh_studio.engine.moe.experts import use_selected_experts
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.moe.routers import find_routers
from bh_studio.engine.records.decisions.routed_experts import NO_EXPERT, check_routed
from bh_studio.engine.records.decisions.token_choices import TokenChoices
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.rules.parameters import RouterShape
from bh_studio.engine.rules.text import parse_rule
from tests.tiny_olmoe import EXPERTS, LAYERS, TOP_K, tiny_model

SHAPE = RouterShape(LAYERS, EXPERTS, TOP_K, norm_topk_prob=False)
PROMPT = torch.tensor([[79, 110, 99, 101, 32, 117, 112, 111, 110]])
RULES = (
    None, "bh:0.1", "bh:0.3,mode=analyze", "bh:0.1,weights=renormalize", "hc:0.5,max_k=10",
    "top-p:0.5,max_k=10", "cut:0.09", "entropy:0.9,max_k=9", "top-k:3", "bh:0.1,null=gaussian",
)  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:The null holds")


# Heads too narrow for the kernels.
NARROW = {"num_attention_heads": 4, "num_key_value_heads": 4}
PATHS = [CPU, STOCK, *([GPU, GRAPH] if torch.cuda.is_available() else [])]


def model_of(path: str, dtype: torch.dtype = torch.float32) -> OlmoeForCausalLM:
    model = tiny_model(dtype=dtype, **(NARROW if path == GRAPH else {}))
    use_selected_experts(model)
    if path in (GPU, GRAPH):
        model.to("cuda")
    if path == STOCK:
        model.model.layers[0].register_forward_hook(lambda *_: None)
    assert decode_path(model).name == path
    return model


@pytest.fixture(scope="module")
def recording(tokenizer: PreTrainedTokenizerFast) -> Recording:
    return make_recording(model_of(CPU), tokenizer, calibration_text()[:2000])


def routing(
    model: OlmoeForCausalLM, rule: str | None, recording: Recording | None
) -> RoutingIntegration | None:
    if rule is None:
        return None
    return RoutingIntegration(model, parse_rule(rule), recording=recording)


def decoded(
    model: OlmoeForCausalLM, integration: RoutingIntegration | None, *, sampling: bool = True
) -> list[Step]:
    decoder = SideDecoder(
        model, PROMPT, GenerationParameters(12, sampling=sampling), frozenset(), SHAPE,
        integration, records=True,
    )  # fmt: skip
    steps = [decoder.step()]
    while steps[-1].finish_reason is None:
        steps.append(decoder.step())
    return steps


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("rule", RULES)
def test_what_is_recorded_is_what_was_decided(
    rule: str | None, path: str, recording: Recording
) -> None:
    model = model_of(path)
    integration = routing(model, rule, recording)
    steps = decoded(model, integration)
    parts = [step.decided for step in steps if step.decided is not None]
    logits = np.concatenate([part.router_logits for part in parts])
    experts = np.concatenate([part.experts for part in parts])
    tokens = [*PROMPT[0].tolist(), *(step.token_id for step in steps)]
    assert logits.shape == (len(tokens) - 1, LAYERS, EXPERTS)
    assert logits.dtype == np.float32
    check_routed(experts, len(tokens) - 1, LAYERS, EXPERTS)
    used = np.concatenate([step.expert_counts for step in steps])
    ran = (experts != NO_EXPERT).sum(-1)
    if rule is None or "analyze" in rule:
        assert (ran == TOP_K).all()
        assert experts.shape[-1] == TOP_K
    else:
        np.testing.assert_array_equal(ran, used)
    # The experts follow from the logits that were recorded, by the rule on its own.
    for layer in range(LAYERS):
        rows = torch.from_numpy(logits[:, layer].copy())
        if rule is None or "analyze" in rule:
            expected = rows.softmax(-1).topk(TOP_K).indices.numpy()
        else:
            assert integration is not None
            selection = integration.rule.select(layer, rows)
            expected = np.where(selection.weights != 0, selection.indices, NO_EXPERT)
            filled = np.full((len(rows), EXPERTS), NO_EXPERT)
            filled[:, : expected.shape[1]] = expected
            expected = filled[:, : experts.shape[-1]]
        np.testing.assert_array_equal(experts[:, layer], expected)
    # Read in one pass, the same text has the same logits, but for rounding.
    again, said = read_at_once(model, integration, torch.tensor([tokens[:-1]]))
    np.testing.assert_allclose(logits, again, atol=1e-4)
    log_probabilities = said.log_softmax(-1)[len(PROMPT[0]) - 1 :]
    choices = TokenChoices.of([part.choice for part in parts])
    choices.check(len(steps))
    chosen = torch.tensor(tokens[len(PROMPT[0]) :])
    expected_chosen = log_probabilities.gather(-1, chosen[:, None])[:, 0]
    np.testing.assert_allclose(choices.log_probabilities, expected_chosen, atol=1e-4)
    np.testing.assert_allclose(
        choices.top_log_probabilities, log_probabilities.topk(5).values, atol=1e-4
    )
    np.testing.assert_array_equal(choices.top_ids, log_probabilities.topk(5).indices)
    # Two tokens may be as near as rounding is.
    above = (log_probabilities > expected_chosen[:, None] + 1e-4).sum(-1).numpy()
    as_large = (log_probabilities > expected_chosen[:, None] - 1e-4).sum(-1).numpy()
    assert (above < choices.ranks).all()
    assert (choices.ranks <= as_large).all()


def read_at_once(
    model: OlmoeForCausalLM, integration: RoutingIntegration | None, tokens: Tensor
) -> tuple[np.ndarray, Tensor]:
    """Router logits, (position, layer, expert), and those of the vocabulary; observed by hooks."""
    found: list[Tensor] = []
    hooks = [
        router.register_forward_hook(lambda _m, _i, output: found.append(output[0]))
        for router in find_routers(model)
    ]
    tokens = tokens.to(model.device)
    try:
        with torch.inference_mode():
            if integration is None:
                said = model(tokens, past_key_values=DynamicCache(config=model.config)).logits
            else:
                with integration:
                    said = model(tokens, past_key_values=DynamicCache(config=model.config)).logits
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(found, 1).float().cpu().numpy(), said[0].float().cpu()


@pytest.mark.parametrize("rule", [None, "bh:0.1"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("path", PATHS)
def test_recording_changes_no_token_and_leaves_the_model_as_it_was(
    path: str, dtype: torch.dtype, rule: str | None, recording: Recording
) -> None:
    model = model_of(path, dtype)
    integration = routing(model, rule, recording)
    recorded = [step.token_id for step in decoded(model, integration)]
    decoder = SideDecoder(model, PROMPT, GenerationParameters(12), frozenset(), SHAPE, integration)
    plain = [decoder.step() for _ in range(12)]
    assert [step.token_id for step in plain] == recorded
    assert all(step.decided is None for step in plain)
    assert not any("forward" in vars(router) for router in find_routers(model))


def test_of_equally_probable_tokens_all_have_the_best_rank() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0, 0.0, 2.0, -4.0]])
    choice = choice_of(logits, 2)
    assert choice.rank == 1
    assert choice_of(logits, 4).rank == 3
    expected = float(logits.log_softmax(-1)[0, 2])
    assert choice.log_probability == pytest.approx(expected, abs=1e-6)
    assert len(choice.top_ids) == 5
    assert choice_of(torch.tensor([[0.0, 1.0]]), 0).top_ids.tolist() == [1, 0]


@pytest.mark.parametrize("vocabulary", [1, 2, 5, 1000, 50_304])
@pytest.mark.parametrize("step", [1e-3, 2.0])
def test_the_most_probable_are_those_of_a_whole_sort(vocabulary: int, step: float) -> None:
    drawn = torch.randn(1, vocabulary, generator=torch.Generator().manual_seed(vocabulary))
    logits = (3 * drawn / step).round() * step  # the larger the step, the more are equal
    choice = choice_of(logits, vocabulary - 1)
    log_probabilities = logits[0].double().log_softmax(0)
    # Of equal ones any may come first.
    expected = log_probabilities.sort(descending=True).values[:5]
    assert log_probabilities[choice.top_ids].tolist() == pytest.approx(expected.tolist())
    assert choice.top_log_probabilities == pytest.approx(expected, abs=1e-5)
    assert choice.log_probability == pytest.approx(float(log_probabilities[-1]), abs=1e-5)
    assert choice.rank == 1 + int((logits[0] > logits[0, -1]).sum())


def test_large_logits_have_probabilities() -> None:
    choice = choice_of(torch.tensor([[3e38, 0.0, -3e38]]), 0)
    assert choice.log_probability == 0.0
    assert choice_of(torch.tensor([[100.0, 0.0]]), 1).log_probability == pytest.approx(-100.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(EngineError, match="not finite"):
        choice_of(torch.tensor([[0.0, value, 1.0]]), 1)


def test_an_expert_whose_weight_vanished_did_not_run() -> None:
    indices, weights = np.array([[5, 3, 9]]), np.array([[0.5, 0.0, 0.25]])
    assert experts_that_ran(indices, weights, 3).tolist() == [[5, 9, NO_EXPERT]]
    assert experts_that_ran(indices, weights, 4).tolist() == [[5, 9, NO_EXPERT, NO_EXPERT]]
    assert experts_that_ran(indices, weights, 2).tolist() == [[5, 9]]
